"""Are samples copies of training examples? Held-out data is the measure.

nearer to train   share of samples nearer to the training set than to data
                  that was held out; of n_t and n_h rows of one law, and no
                  memory, n_t/(n_t + n_h)
distance ratio    share with d_1/d_2 < τ, nearest over second nearest
                  training row; τ^D for a smooth law of D dimensions
authenticity      share farther from their nearest training row than that
                  row is from its own nearest (Alaa et al.,
                  arXiv:2102.08921); between 1/3 (D = 1) and ½, not 1
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.evaluation import estimates, features as sets
from diffflow_jax.evaluation.pairwise import neighbours
from diffflow_jax.process import ranges


class Memorisation(NamedTuple):
  """share: Estimate of samples nearer to train; expected: without memory."""

  share: estimates.Estimate
  expected: float


def nearer_to_train(samples, train, held_out, *, pairs=None):
  """Share of samples whose nearest row is a training one, ties half.

  The error is that of relabelling the N rows, which were train or held out by
  chance: n_t n_h/(N (N - 1)) Σ_i (c_i/m - 1/N)², c_i the number of samples
  nearest to row i. (The binomial one is too small: few rows attract many
  samples.) `expected` outside the interval says that it was not by chance.

  Args:
    samples: (m, ...) features; train: (n_t, ...); held_out: (n_h, ...), split
      from the same data, without rows of train.
    pairs: the `Pairs` of samples and train with across, where others share it.
  Raises:
    ValueError: other dimensions, NaN, fewer than 2 held-out rows.
  """
  held_out = sets.rows("held_out", held_out, least=2)
  to_train, i = _nearest(samples, train, 1, pairs)
  to_held_out, j = neighbours.nearest(samples, held_out, 1)
  to_train, to_held_out = to_train[:, 0], to_held_out[:, 0]
  hits = 0.5 * (1.0 + np.sign(to_held_out - to_train))  # ½ where equal
  num_train, num_held_out, m = len(train), len(held_out), len(hits)
  counts = np.concatenate(
    [
      np.bincount(i[:, 0], hits, minlength=num_train),
      np.bincount(j[:, 0], 1.0 - hits, minlength=num_held_out),
    ]
  )
  num = num_train + num_held_out
  scale = num_train * num_held_out / (num * (num - 1))
  variance = scale * ((counts / m - 1.0 / num) ** 2).sum()
  share = estimates.student(hits.mean(), np.sqrt(variance))
  return Memorisation(share, num_train / num)


def _nearest(samples, train, k, pairs):
  """The k nearest training rows, of a pass that is shared or of one's own."""
  if pairs is None:
    return neighbours.nearest(samples, train, k)
  return pairs.across(k)


@ranges.checked(threshold="in (0, 1)")
def distance_ratio(samples, train, threshold=1.0 / 3.0, *, pairs=None):
  """Share of samples with d_1/d_2 < threshold, an Estimate.

  The interval is for new samples beside this training set. A copy has d_1 = 0;
  rows that are twice in the training set have d_1 = d_2 and hide their copies:
  take duplicates out first.
  """
  distances, _ = _nearest(samples, train, 2, pairs)
  close = distances[:, 0] < threshold * distances[:, 1]
  return estimates.wilson(int(close.sum()), len(close))


def authenticity(samples, train, *, pairs=None):
  """Share of samples with d(y, x*) > d(x*, its nearest other), an Estimate.

  x* is the nearest training row. Near 0 for copies. The interval is for new
  samples beside this training set.
  """
  distances, index = _nearest(samples, train, 1, pairs)
  own = neighbours.radii(train, 1) if pairs is None else pairs.own(1)
  away = distances[:, 0] > own[index[:, 0]]
  return estimates.wilson(int(away.sum()), len(away))
