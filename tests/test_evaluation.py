"""Distances between sets of samples, against scipy and closed forms."""

import numpy as np
import pytest
from scipy import linalg, spatial

from diffflow_jax import evaluation


def test_frechet_distance_is_the_matrix_square_root_formula():
  rng = np.random.default_rng(0)
  a = rng.standard_normal((300, 5)) @ rng.standard_normal((5, 5))
  b = rng.standard_normal((200, 5)) * [1, 2, 3, 1, 1] + 0.3
  ca, cb = np.cov(a.T), np.cov(b.T)
  want = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
    ca + cb - 2 * linalg.sqrtm(ca @ cb).real
  )
  got = evaluation.frechet_distance(a.reshape(300, 5, 1), b)
  np.testing.assert_allclose(got, want, rtol=1e-9)
  assert abs(evaluation.frechet_distance(a, a)) < 1e-9


def test_frechet_distance_in_one_dimension():
  a, b = np.array([[0.0], [2.0]]), np.array([[3.0], [9.0]])
  want = 5.0**2 + (np.sqrt(2.0) - np.sqrt(18.0)) ** 2
  np.testing.assert_allclose(evaluation.frechet_distance(a, b), want)


def test_frechet_distance_refuses_what_it_cannot_compare():
  with pytest.raises(ValueError, match=r"\(1, 2\) and \(4, 2\)"):
    evaluation.frechet_distance(np.zeros((1, 2)), np.zeros((4, 2)))


def test_nearest_distances_is_the_smallest_of_all():
  rng = np.random.default_rng(0)
  s, r = rng.standard_normal((7, 2, 3)), rng.standard_normal((9, 2, 3))
  want = spatial.distance.cdist(s.reshape(7, 6), r.reshape(9, 6)).min(1)
  np.testing.assert_allclose(evaluation.nearest_distances(s, r), want)
