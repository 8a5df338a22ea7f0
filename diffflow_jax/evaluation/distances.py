"""Distances between sets of samples, on the host in float64."""

import numpy as np


def _flat(x):
  x = np.asarray(x, np.float64)
  return x.reshape(len(x), -1)


def frechet_distance(a, b):
  """Fréchet distance of two Gaussians fitted to the rows of a and b.

      |m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½)

  Dowson & Landau 1982 eq. 16; the formula of FID (Heusel et al.,
  arXiv:1706.08500 eq. 6) on whatever features the rows are.

  Args:
    a, b: (num, ...), at least two rows each; features are flattened.
  """
  a, b = _flat(a), _flat(b)
  if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      f"two sets of at least 2 rows of equal size are needed, not shapes "
      f"{a.shape} and {b.shape}"
    )
  cov_a, cov_b = np.cov(a.T, ddof=1), np.cov(b.T, ddof=1)
  # tr (C_a C_b)^½ = tr (C_a^½ C_b C_a^½)^½, of a symmetric matrix
  values, vectors = np.linalg.eigh(np.atleast_2d(cov_a))
  root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
  middle = np.linalg.eigvalsh(root @ np.atleast_2d(cov_b) @ root)
  cross = np.sqrt(np.maximum(middle, 0.0)).sum()
  shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
  return float(shift + np.trace(np.atleast_2d(cov_a + cov_b)) - 2 * cross)


def nearest_distances(samples, reference):
  """Euclidean distance of every sample to the nearest reference row.

  Compared with the same for held-out data it shows copies: much smaller
  distances mean that training examples were memorised.
  """
  s, r = _flat(samples), _flat(reference)
  squared = (s**2).sum(1)[:, None] - 2 * s @ r.T + (r**2).sum(1)
  return np.sqrt(np.maximum(squared.min(1), 0.0))
