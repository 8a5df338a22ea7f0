"""Distances between sets of samples, as plain numbers."""

import numpy as np

from diffflow_jax.evaluation.fid import frechet
from diffflow_jax.evaluation.pairwise import neighbours


def _flat(x):
  x = np.asarray(x, np.float64)
  return x.reshape(len(x), -1)


def frechet_distance(a, b):
  """Fréchet distance of two Gaussians fitted to the rows of a and b.

      |m_a - m_b|² + tr(C_a + C_b - 2 (C_a C_b)^½)

  Dowson & Landau 1982 eq. 16; the formula of FID (Heusel et al.,
  arXiv:1706.08500 eq. 6) on whatever features the rows are. `frechet` tells
  its error too.

  Args:
    a, b: (num, ...), at least two rows each; features are flattened.
  """
  a, b = _flat(a), _flat(b)
  if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
    raise ValueError(
      f"two sets of at least 2 rows of equal size are needed, not shapes "
      f"{a.shape} and {b.shape}"
    )
  return frechet(a, b, num_parts=1).plain.value


def nearest_distances(samples, reference):
  """Euclidean distance of every sample to the nearest reference row.

  Compared with the same for held-out data it shows copies: much smaller
  distances mean that training examples were memorised.
  """
  return neighbours.nearest(_flat(samples), _flat(reference), 1)[0][:, 0]
