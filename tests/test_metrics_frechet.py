"""Fréchet distance and its moments: SciPy, closed forms, streams."""

import numpy as np
import pytest
from scipy import linalg

from diffflow_jax import evaluation
from diffflow_jax.evaluation import estimates, features, fid, streaming

# EVAL E6's pair
C1, M1 = np.array([[2.0, 0.6], [0.6, 1.0]]), np.array([0.0, 1.0])
C2, M2 = np.array([[1.0, -0.3], [-0.3, 0.5]]), np.array([0.5, -0.2])


def exact(mean, covariance, num=10**9):
  """A reference that is known, not drawn."""
  covariance = np.asarray(covariance, float)
  return evaluation.Moments(num, np.asarray(mean), (num - 1) * covariance)


def by_scipy(x, y):
  a, b = np.cov(x.T), np.cov(y.T)
  root = linalg.sqrtm(a @ b).real
  return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root)


@pytest.mark.parametrize("d", [2, 7, 60])
def test_frechet_is_scipys(d):
  rng = np.random.default_rng(d)
  x, y = (
    rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + shift
    for n, shift in ((300, 0.0), (200, 0.3))
  )
  got = evaluation.frechet(y, x)
  np.testing.assert_allclose(got.plain.value, by_scipy(x, y), rtol=1e-9)


def test_frechet_is_pytorch_fids_where_its_root_is_one():
  """To 1e-9 at full rank; below it the root of C_1 C_2 loses digits, and ours
  is the nuclear norm of EVAL E2 b."""
  try:
    from pytorch_fid import fid_score
  except (ImportError, RuntimeError) as error:
    pytest.skip(f"pytorch-fid cannot be imported: {error}")
  rng = np.random.default_rng(5)
  moments = lambda x: (x.mean(0), np.cov(x.T))
  theirs = lambda x, y: fid_score.calculate_frechet_distance(
    *moments(x), *moments(y)
  )
  x, y = rng.standard_normal((2, 400, 40)) * np.linspace(0.2, 2.0, 40)
  y += 0.1
  ours = evaluation.frechet_distance(x, y)
  np.testing.assert_allclose(ours, theirs(x, y), rtol=1e-9)
  x, y = x[:30], y[:30]
  with pytest.warns(UserWarning, match="has lost rank"):
    ours = evaluation.frechet_distance(x, y)
  a, b = x - x.mean(0), y - y.mean(0)
  root = np.linalg.svd(a @ b.T, compute_uv=False).sum() / 29
  want = ((x.mean(0) - y.mean(0)) ** 2).sum() - 2.0 * root
  want += ((a**2).sum() + (b**2).sum()) / 29
  np.testing.assert_allclose(ours, want, rtol=1e-12)
  np.testing.assert_allclose(theirs(x, y), want, rtol=1e-3)
  assert abs(theirs(x, y) / want - 1) > 1e-9


def test_frechet_of_known_gaussians():
  got = evaluation.frechet_of_gaussians(M1, C1, M2, C2)
  determinants = np.linalg.det(C1) * np.linalg.det(C2)
  root = np.sqrt(np.trace(C1 @ C2) + 2.0 * np.sqrt(determinants))
  np.testing.assert_allclose(got, 1.69 + 4.5 - 2.0 * root, rtol=1e-13)
  assert f"{got:.6f}" == "2.301556"
  a, b = np.array([1.0, 4.0, 9.0, 0.0]), np.array([4.0, 1.0, 9.0, 0.0])
  got = evaluation.frechet_of_gaussians(
    np.zeros(4), np.diag(a), np.zeros(4), np.diag(b)
  )
  np.testing.assert_allclose(got, ((a**0.5 - b**0.5) ** 2).sum(), rtol=1e-13)
  # a projection against the identity: one for every null direction
  project = np.diag([1.0] * 6 + [0.0] * 4)
  zero = np.zeros(10)
  for pair in ((project, np.eye(10)), (np.eye(10), project)):
    got = evaluation.frechet_of_gaussians(zero, pair[0], zero, pair[1])
    np.testing.assert_allclose(got, 4.0, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:40 samples of 200 dimensions")
def test_frechet_keeps_its_digits_where_rank_is_lost():
  rng = np.random.default_rng(1)
  x, y = np.zeros((2, 40, 200))
  x[:, :39] = rng.standard_normal((40, 39))
  # one direction in common, and 38 that are all but perpendicular: 1e-7
  y[:, :39] = rng.standard_normal((40, 39))
  y[:, 101:139] = y[:, 1:39]
  y[:, 1:39] *= 1e-7
  assert abs(evaluation.frechet(x, x).plain.value) < 1e-10
  # the nuclear norm of centred A Bᵀ, EVAL E2 b
  a, b = x - x.mean(0), y - y.mean(0)
  cross = np.linalg.svd(a @ b.T, compute_uv=False).sum() / 39
  want = ((x.mean(0) - y.mean(0)) ** 2).sum() - 2 * cross
  want += ((a**2).sum() + (b**2).sum()) / 39
  got = evaluation.frechet(x, y).plain.value
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_set_against_itself_is_at_distance_zero():
  x = np.random.default_rng(2).standard_normal((500, 8)) * np.arange(8)
  got = evaluation.frechet(x, x)
  assert abs(got.plain.value) < 1e-10


def test_frechet_too_few_samples_are_said():
  x = np.random.default_rng(3).standard_normal((4000, 30))
  with pytest.warns(UserWarning, match="20 samples of 30 dimensions") as said:
    evaluation.frechet(x[:20], x)
  floor = evaluation.frechet_floor(np.cov(x.T), 20)
  assert f"about {floor:.3g}" in str(said[0].message)


def test_the_floor_is_what_perfect_samples_have():
  """EVAL E4, in closed form and by drawing."""
  floor = evaluation.frechet_floor(np.eye(200), 5000)
  np.testing.assert_allclose(floor, (200 + 200 * 201 / 4) / 5000)
  rng, c = np.random.default_rng(4), np.array([1.0, 2.0, 0.5, 0.0])
  reference = exact(np.zeros(4), np.diag(c))
  draws = [
    evaluation.frechet(
      rng.standard_normal((400, 4)) * np.sqrt(c), reference, num_parts=1
    ).plain.value
    for _ in range(400)
  ]
  want = evaluation.frechet_floor(np.diag(c), 400)
  error = np.std(draws) / np.sqrt(len(draws))
  assert abs(np.mean(draws) - want) < 4.5 * error + 0.02 * want


def test_unbiased_is_the_value_at_infinitely_many_samples():
  """The intercept of E5; 100 samples are far above it."""
  rng, c = np.random.default_rng(5), np.array([1.0, 2.0, 0.5, 0.25])
  reference = exact([0.3, 0, 0, 0], np.eye(4))
  truth = 0.09 + ((np.sqrt(c) - 1.0) ** 2).sum()
  draws = [
    evaluation.frechet(rng.standard_normal((100, 4)) * np.sqrt(c), reference)
    for _ in range(1500)
  ]
  values = np.array([(d.plain.value, d.unbiased.value) for d in draws])
  error = values.std(0) / np.sqrt(len(draws))
  assert values[:, 0].mean() - truth > 10 * error[0]
  assert abs(values[:, 1].mean() - truth) < 4.5 * error[1] + 0.003


def test_the_jackknife_of_a_squared_mean_is_the_mean_over_pairs():
  """One row a part: what is left is x_i x_j over i ≠ j, exactly."""
  x = np.random.default_rng(10).standard_normal(30) + 0.4
  less = lambda y: [np.delete(y, i).mean() ** 2 for i in range(len(y))]
  plain, got = estimates.jackknife(x.mean() ** 2, less(x))
  pairs = (x.sum() ** 2 - (x**2).sum()) / (30 * 29)
  assert plain.value == x.mean() ** 2
  np.testing.assert_allclose(got.value, pairs, rtol=1e-12)
  # two sets: both biases, both variances
  y = x[:20] - 1.0
  apart = lambda x, y: (x.mean() - y.mean()) ** 2
  sides = (
    [apart(np.delete(x, i), y) for i in range(30)],
    [apart(x, np.delete(y, i)) for i in range(20)],
  )
  got = estimates.jackknife(apart(x, y), *sides)[1]
  want = apart(x, y) - x.var(ddof=1) / 30 - y.var(ddof=1) / 20
  np.testing.assert_allclose(got.value, want, rtol=1e-12)
  slope = 2 * (x.mean() - y.mean())
  variance = slope**2 * (x.var(ddof=1) / 30 + y.var(ddof=1) / 20)
  np.testing.assert_allclose(got.standard_error**2, variance, rtol=0.05)


def test_the_error_is_that_of_the_influence_function():
  """EVAL E6: n var = 4 δᵀ C δ + 2 tr ((I - T) C)² of Gaussian samples."""
  rng = np.random.default_rng(6)
  root = linalg.sqrtm(C1).real
  transport = root @ np.linalg.inv(linalg.sqrtm(root @ C2 @ root).real) @ root
  gap = (np.eye(2) - transport) @ C2
  want = 4 * (M2 - M1) @ C2 @ (M2 - M1) + 2 * np.trace(gap @ gap)
  y = rng.multivariate_normal(M2, C2, 20000)
  got = evaluation.frechet(y, exact(M1, C1), num_parts=1000)
  assert abs(got.plain.standard_error**2 * 20000 / want - 1) < 0.15


@pytest.mark.parametrize("cuts", [[13, 400, 403], [1, 2, 3, 900], [500]])
def test_streamed_moments_are_those_of_one_batch(cuts):
  rng = np.random.default_rng(7)
  x = rng.standard_normal((1000, 5)) @ rng.standard_normal((5, 5)) + 1e5
  whole, pieces = evaluation.moments(x), np.split(x, cuts)
  streamed = evaluation.moments(iter(pieces))
  assert streamed.num == 1000
  np.testing.assert_allclose(streamed.mean, x.mean(0), rtol=1e-14)
  scale = np.abs(np.cov(x.T)).max()
  for got in (whole, streamed):
    np.testing.assert_allclose(got.covariance, np.cov(x.T), atol=1e-9 * scale)
  # parts hold the same rows wherever the pieces end
  parts = evaluation.moments_in_parts(iter(pieces), num_parts=7)
  for one, two in zip(
    parts, evaluation.moments_in_parts(x, num_parts=7), strict=True
  ):
    assert one.num == two.num
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-14)
    np.testing.assert_allclose(one.scatter, two.scatter, atol=1e-7 * scale)
  y = x[::-1] * [1, 2, 1, 1, 1]
  one, two = evaluation.frechet(y, x), evaluation.frechet(iter([y]), parts)
  np.testing.assert_allclose(two.plain.value, one.plain.value, rtol=1e-7)


def test_float32_features_are_summed_in_float64():
  x = np.abs(np.random.default_rng(8).standard_normal((50000, 4)))
  x = x.astype(np.float32)
  got = evaluation.moments(x)
  np.testing.assert_allclose(got.mean, x.astype(float).mean(0), rtol=1e-13)
  assert np.abs(x.mean(0) - got.mean).max() > 1e-6


def test_a_part_can_be_taken_out_again():
  x = np.random.default_rng(9).standard_normal((100, 3)) + 7.0
  whole, part = evaluation.moments(x), evaluation.moments(x[:30])
  rest = streaming.without(whole, part)
  assert rest.num == 70
  np.testing.assert_allclose(rest.mean, x[30:].mean(0), rtol=1e-13)
  np.testing.assert_allclose(rest.covariance, np.cov(x[30:].T), rtol=1e-11)


@pytest.mark.parametrize("rule", [features.part_of, features.dealt])
def test_parts_are_even_and_do_not_follow_the_order_of_classes(rule):
  place = rule(1003, 10)
  assert np.bincount(place).min() == 100 and np.bincount(place).max() == 101
  for labels in (np.arange(1000) % 10, np.arange(1000) // 100):
    table = np.zeros((10, 10))
    np.add.at(table, (place[:1000], labels), 1)
    assert 1 <= table.min() and table.max() < 30


def test_a_stream_is_dealt_out_alike_however_it_is_cut():
  cut = [features.dealt(n, 10, f) for f, n in ((0, 3), (3, 500), (503, 500))]
  np.testing.assert_array_equal(np.concatenate(cut), features.dealt(1003, 10))


def test_means_and_covariances_of_one_size_are_needed():
  with pytest.raises(ValueError, match=r"of one d are needed"):
    fid.frechet_of_gaussians(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
