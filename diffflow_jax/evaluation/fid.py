"""The Fréchet distance of Gaussians fitted to two sets of features.

    FD = |m_a - m_b|² + tr C_a + tr C_b - 2 tr (C_a^½ C_b C_a^½)^½         (1)

Dowson & Landau 1982 eq. 16; on Inception's features it is FID (Heusel et al.,
arXiv:1706.08500 eq. 6). A squared distance. With C = FᵀF the last trace is the
sum of the singular values of F_a F_bᵀ, which keeps its digits where covariances
have lost rank. From n rows it is too large by c/n; for the true law itself,
with c_i the eigenvalues of its covariance,

    c = 5/4 Σ c_i + ½ Σ_ij c_i c_j/(c_i + c_j)                             (2)
"""

from typing import NamedTuple
import warnings

import numpy as np

from diffflow_jax.evaluation import estimates, features as sets, streaming as mm
from diffflow_jax.process import ranges


class Frechet(NamedTuple):
  """Estimates: `plain` of as many rows, as papers print, and `unbiased`."""

  plain: estimates.Estimate
  unbiased: estimates.Estimate


def _eigen(covariance, rank):
  """(values, vectors) of what a covariance of that rank at most holds."""
  values, vectors = np.linalg.eigh(covariance)
  noise = len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
  keep = (values > noise) & (np.arange(len(values)) >= len(values) - rank)
  return values[keep], vectors[:, keep]


def _factor(covariance, rank):
  """F (rank, d) with C = FᵀF."""
  values, vectors = _eigen(covariance, rank)
  return np.sqrt(values)[:, None] * vectors.T


def _trace_of_root(factor, covariance, rank):
  """tr (C_a^½ C_b C_a^½)^½ from F_a, C_b and the rank that C_b can have."""
  if rank < len(covariance):
    other = _factor(covariance, rank)
    return np.linalg.svd(factor @ other.T, compute_uv=False).sum()
  values = np.linalg.eigvalsh(factor @ covariance @ factor.T)
  # a direction that is null in C_b alone has a value of rounding
  noise = len(values) * np.finfo(np.float64).eps * values.max(initial=0.0)
  return np.sqrt(values[values > noise]).sum()


class _Side(NamedTuple):
  """What (1) needs of the set that stays, worked out once."""

  mean: np.ndarray
  trace: float
  factor: np.ndarray


def _side(mean, covariance, rank):
  covariance = np.atleast_2d(np.asarray(covariance, np.float64))
  factor = _factor(covariance, rank)
  return _Side(np.asarray(mean, np.float64), np.trace(covariance), factor)


def _distance(side, mean, covariance, rank):
  cross = _trace_of_root(side.factor, covariance, rank)
  shift = ((side.mean - mean) ** 2).sum()
  return float(shift + side.trace + np.trace(covariance) - 2.0 * cross)


def _between(side, other):
  rank = min(other.num - 1, len(other.mean))
  return _distance(side, other.mean, other.covariance, rank)


def _of_moments(stays):
  rank = min(stays.num - 1, len(stays.mean))
  return _side(stays.mean, stays.covariance, rank)


def frechet_of_gaussians(mean_a, cov_a, mean_b, cov_b):
  """Eq. (1) of two Gaussians: means (d,), covariances (d, d). A float.

  Raises:
    ValueError: shapes that do not fit each other, NaN, no covariance.
  """
  mean_a, mean_b = np.atleast_1d(mean_a), np.atleast_1d(mean_b)
  cov_a = _covariance("cov_a", cov_a)
  cov_b = _covariance("cov_b", cov_b)
  shapes = [a.shape for a in (mean_a, cov_a, mean_b, cov_b)]
  d = len(mean_a)
  if shapes != [(d,), (d, d)] * 2:
    raise ValueError(
      f"means (d,) and covariances (d, d) of one d are needed, not {shapes}"
    )
  if not (np.isfinite(mean_a).all() and np.isfinite(mean_b).all()):
    raise ValueError("means must be finite, and some are NaN or infinite")
  return _distance(_side(mean_a, cov_a, d), mean_b, cov_b, d)


def _covariance(name, value):
  """A covariance (d, d), or a ValueError that says why it is none."""
  value = np.atleast_2d(np.asarray(value, np.float64))
  if value.ndim != 2 or value.shape[0] != value.shape[1]:
    raise ValueError(f"{name} must be (d, d), not of shape {value.shape}")
  if not np.isfinite(value).all():
    raise ValueError(
      f"{name} must be finite, and holds NaN or infinite entries"
    )
  odd, scale = abs(value - value.T).max(), abs(value).max()
  if odd > 1e-6 * scale:
    raise ValueError(f"{name} must be symmetric, but differs by {odd:.3g}")
  if scale and np.linalg.eigvalsh(value)[0] < -1e-6 * scale:
    raise ValueError(f"{name} must have no negative eigenvalues, and has some")
  return value


@ranges.checked(num="an integer >= 1")
def frechet_floor(covariance, num):
  """The distance that num perfect samples have: c/num, eq. (2).

  Args:
    covariance: (d, d) of the reference, which is taken as exact.
  """
  covariance = _covariance("covariance", covariance)
  c = np.maximum(np.linalg.eigvalsh(covariance), 0.0)
  both = c[:, None] + c[None]
  pairs = np.outer(c, c) / np.where(both > 0, both, 1.0)
  return float((1.25 * c.sum() + 0.5 * pairs.sum()) / num)


def _parts(features, num_parts):
  """A list of Moments: of what is Moments already, or of features."""
  if isinstance(features, mm.Moments):
    return [features]
  if isinstance(features, list) and isinstance(features[0], mm.Moments):
    return features
  return mm.moments_in_parts(features, num_parts=num_parts)


@ranges.checked(num_parts="an integer >= 1")
def frechet(samples, reference, *, num_parts=10):
  """Fréchet distance with its error and its value at infinitely many samples.

  The error and the 1/n bias are those of leaving out one part of a set at a
  time (`estimates.jackknife`), which takes num_parts + 1 distances. A reference
  is fixed, as in papers, unless it comes in parts; samples as one Moments have
  no error.

  Args:
    samples, reference: (num, ...) features; or an iterable of such arrays, of
      which one at a time is in memory; or a Moments; or the list of
      `moments_in_parts`.
  Returns:
    Frechet(plain, unbiased). `unbiased` may be negative.
  Raises:
    ValueError: other dimensions than the reference's, NaN, too few rows.
  Warns:
    As many samples as dimensions or fewer: the covariance has lost rank; rows
    that are all the same.
  """
  samples, reference = _parts(samples, num_parts), _parts(reference, 1)
  sets.same_width(samples[0].mean.shape, reference[0].mean.shape)
  whole, stays = mm.merge_all(samples), mm.merge_all(reference)
  if whole.num < 2 or stays.num < 2:
    raise ValueError(
      "samples and reference must have at least 2 rows each, not "
      f"{whole.num} and {stays.num}"
    )
  for name, moments in (("samples", whole), ("reference", stays)):
    if mm.vary_nowhere(moments):
      sets.nothing_varies(name, moments.num)
  if whole.num <= len(whole.mean):
    floor = frechet_floor(stays.covariance, whole.num)
    warnings.warn(
      f"{whole.num} samples of {len(whole.mean)} dimensions: their covariance "
      f"has lost rank, and even perfect ones would have about {floor:.3g}; "
      "compare at equal numbers only",
      stacklevel=3,
    )
  side = _of_moments(stays)
  sides = []
  if len(samples) > 1:
    sides.append([_between(side, mm.without(whole, p)) for p in samples])
  if len(reference) > 1:
    back = _of_moments(whole)
    sides.append([_between(back, mm.without(stays, p)) for p in reference])
  return Frechet(*estimates.jackknife(_between(side, whole), *sides))
