"""What a classifier says of samples: inception score, label agreement.

    log IS = E KL(p(c|y) ‖ p(c)) = H(E p) - E H(p),   1 <= IS <= C         (1)

Salimans et al., arXiv:1606.03498 §4. Blind to what is lost within a class, and
to the reference. From n rows log IS is too small by ½ Σ_c var(p_c)/(n E p_c),
about (C - 1)/(2n) of a sure classifier; this is added.
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.evaluation import (
  estimates,
  features as sets,
  streaming as mm,
)
from diffflow_jax.process import ranges


def _with_entropy(piece):
  """(n, C) probabilities with Σ p log p as one more column."""
  p = np.asarray(piece, np.float64)
  if p.ndim != 2 or p.shape[1] < 2:
    raise ValueError(
      f"probabilities must be (num, C) of at least 2 classes, not {p.shape}"
    )
  if not (p >= 0).all() or not np.allclose(p.sum(1), 1.0, atol=1e-3):
    raise ValueError(
      "probabilities must be >= 0 and sum to 1 in every row (softmax of the "
      "logits), and these do not"
    )
  p = p / p.sum(1, keepdims=True)
  plogp = p * np.log(np.where(p > 0, p, 1.0))
  return np.concatenate([p, plogp.sum(1, keepdims=True)], axis=1)


def inception_score(probabilities):
  """exp of eq. (1), all rows together, with its error.

  The error is that of the mean of KL(p(c|y) ‖ p(c)) (delta method). Papers
  print the mean over ten splits, and as "±" their spread, which is no error;
  theirs is lower by a factor of about exp(-10 (C - 1)/(2n)).

  Args:
    probabilities: (num, C), num >= 2; or an iterable of such arrays, of which
      one at a time is in memory (C² is).
  Raises:
    ValueError: rows that are no probabilities.
  Warns:
    Rows that are all the same, of which the score is 1 and its error 0.
  """
  whole = hasattr(probabilities, "shape") or isinstance(probabilities, list)
  pieces = [probabilities] if whole else probabilities
  num, mean, scatter = mm.moments(_with_entropy(p) for p in pieces)
  if num < 2:
    raise ValueError(f"probabilities must have at least 2 rows, not {num}")
  if mm.vary_nowhere(mm.Moments(num, mean, scatter)):
    sets.nothing_varies("probabilities", num)
  covariance = scatter / (num - 1)
  marginal, log_p = mean[:-1], np.log(np.where(mean[:-1] > 0, mean[:-1], 1.0))
  weights = np.append(-log_p, 1.0)  # KL of a row is linear in what was averaged
  seen = marginal > 0
  bias = 0.5 * (np.diag(covariance)[:-1][seen] / marginal[seen]).sum() / num
  log_score = weights @ mean + bias
  error = np.sqrt(max(weights @ covariance @ weights, 0.0) / num)
  log = estimates.student(log_score, error, num - 1)
  value, low, high = np.exp([log.value, log.low, log.high])
  return estimates.Estimate(
    float(value), float(value * error), float(low), float(high)
  )


class Agreement(NamedTuple):
  """overall: an Estimate; per_class: one for each class, None if not wanted."""

  overall: estimates.Estimate
  per_class: list


@ranges.checked(num_classes="an integer >= 2")
def label_agreement(predicted, wanted, num_classes):
  """Share of samples that a classifier gives the label they were made for.

  More than the classifier's accuracy on real data means samples easier than
  data, as guidance makes them. `label_reliability` takes its mistakes out.

  Args:
    predicted, wanted: (num,) integers in [0, num_classes).
  Raises:
    ValueError: unequal shapes, labels outside the classes.
  """
  predicted, wanted = np.asarray(predicted), np.asarray(wanted)
  if predicted.shape != wanted.shape or predicted.ndim != 1 or not wanted.size:
    raise ValueError(
      "predicted and wanted must be labels of one shape (num,), not "
      f"{predicted.shape} and {wanted.shape}"
    )
  for name, labels in (("predicted", predicted), ("wanted", wanted)):
    inside = (labels >= 0) & (labels < num_classes)
    if labels.dtype.kind not in "iu" or not inside.all():
      raise ValueError(
        f"{name} must be integers in [0, {num_classes}), not {labels!r:.60}"
      )
  right = predicted == wanted
  counts = np.bincount(wanted, minlength=num_classes)
  hits = np.bincount(wanted[right], minlength=num_classes)
  return Agreement(
    estimates.wilson(int(right.sum()), len(right)),
    [
      estimates.wilson(int(h), int(c)) if c else None
      for h, c in zip(hits, counts, strict=True)
    ],
  )


@ranges.checked(num_classes="an integer >= 2")
def label_reliability(agreement, accuracy, num_classes):
  """Share of samples that are of their class, through a fallible classifier.

      r = (A - b)/(a - b),   b = (1 - a)/(C - 1)

  for mistakes spread evenly over the other classes.

  Args:
    agreement: the Estimate A of `label_agreement`.
    accuracy: the Estimate a on real held-out data, as
      `label_agreement(predicted, labels, C).overall`.
  Returns:
    Estimate, with the errors of both (delta method).
  Raises:
    ValueError: a classifier no better than chance.
  """
  a, b = accuracy.value, (1 - accuracy.value) / (num_classes - 1)
  if a <= b:
    raise ValueError(
      f"accuracy must be above chance, 1/{num_classes}, to tell anything, not "
      f"{a:.4g}"
    )
  r = (agreement.value - b) / (a - b)
  # dr/da with db/da = -1/(C - 1)
  slope = (1 - r) / (num_classes - 1) - r
  error = np.hypot(agreement.standard_error, slope * accuracy.standard_error)
  return estimates.student(r, error / (a - b))
