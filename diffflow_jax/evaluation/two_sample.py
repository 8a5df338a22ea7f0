"""The classifier two-sample test: can a classifier tell samples from data?

Lopez-Paz & Oquab, arXiv:1610.06545. Trained on one half of both sets, judged
on the other; the best one has the balanced accuracy ½ (1 + TV). It finds first
whatever differs in how the two sets were made (8-bit levels, JPEG, clipping),
so both must have gone the same way.
"""

from typing import NamedTuple

import numpy as np
from scipy import special

from diffflow_jax.evaluation import estimates, features as sets


class TwoSampleTest(NamedTuple):
  """What the classifier found on rows it had not seen.

  Attributes:
    accuracy: balanced, an Estimate; ½ if it can tell nothing.
    jensen_shannon: log 2 - cross-entropy in nats, an Estimate of a lower bound
      of the Jensen-Shannon divergence, for the best classifier its value.
    p_value: probability of an accuracy as high where the laws are equal.
  """

  accuracy: estimates.Estimate
  jensen_shannon: estimates.Estimate
  p_value: float


def logistic(x, y):
  """Logistic regression on standardised features, scikit-learn's.

  Args:
    x: (n, d); y: (n,) bools.
  Returns:
    A function of (m, d), the log-odds of True (m,) for equal shares of both.
  """
  from sklearn.linear_model import LogisticRegression

  center, scale = x.mean(0), x.std(0)
  scale = np.where(scale > 0, scale, 1)
  unit = lambda x: (x - center) / scale
  model = LogisticRegression(class_weight="balanced", max_iter=300)
  model.fit(unit(x), y)
  return lambda x: model.decision_function(unit(x))


def classifier_two_sample(samples, reference, fit=logistic):
  """The test, with the errors of the held-out rows.

  Args:
    samples: (m, ...) features; reference: (n, ...), at least four rows each.
    fit: (x (n, d), y (n,) bools, True for samples) -> log-odds of (m, d) rows,
      (m,), for equal shares of both; `logistic` sees shifts of the mean alone.
  Returns:
    TwoSampleTest. The intervals are those of the classifier that was trained.
  Raises:
    ValueError: fewer than four rows, other dimensions, NaN.
  """
  samples, reference = sets.compared(samples, reference, least=4)
  mine, theirs = (sets.part_of(len(x), 2) for x in (samples, reference))
  x = np.concatenate([samples[mine == 0], reference[theirs == 0]])
  y = np.arange(len(x)) < np.count_nonzero(mine == 0)
  log_odds = fit(x, y)
  odds = [
    np.asarray(log_odds(samples[mine == 1]), np.float64),
    -np.asarray(log_odds(reference[theirs == 1]), np.float64),
  ]
  # right if > 0; one that cannot decide is right in half of the cases
  hits = [0.5 * (1.0 + np.sign(o)) for o in odds]
  bits = [np.log(2.0) - np.logaddexp(0.0, -o) for o in odds]
  accuracy = _balanced(hits)
  null = np.sqrt(sum(0.25 / len(o) for o in odds)) / 2.0
  p_value = special.ndtr(-(accuracy.value - 0.5) / null)
  return TwoSampleTest(accuracy, _balanced(bits), float(p_value))


def _balanced(draws):
  """½ (mean of one class + mean of the other)."""
  value = np.mean([d.mean() for d in draws])
  variance = sum(d.var(ddof=1) / len(d) for d in draws) / 4.0
  return estimates.student(value, np.sqrt(variance))
