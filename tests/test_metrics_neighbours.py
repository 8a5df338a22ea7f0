"""Nearest neighbours and what is made of them: brute force, closed forms."""

import numpy as np
import pytest
from scipy import spatial
from sklearn.neighbors import NearestNeighbors

from diffflow_jax import evaluation
from diffflow_jax.evaluation.pairwise import coverage, tables


def by_hand(x, y, k):
  """Precision, recall, density and coverage from whole tables in float64."""
  d = spatial.distance.cdist
  of_x, of_y = (np.sort(d(a, a), 1)[:, k] for a in (x, y))
  table = d(x, y)
  in_x, in_y = table <= of_x[:, None], table <= of_y[None]
  return (
    in_x.any(0).mean(),
    in_y.any(1).mean(),
    in_x.sum(0).mean() / k,
    in_x.any(1).mean(),
  )


def values(got):
  return [estimate.value for estimate in got]


@pytest.fixture
def small_blocks(monkeypatch):
  """Many blocks, of which none is whole."""
  monkeypatch.setattr(tables, "_ROWS", 37)
  monkeypatch.setattr(tables, "_COLUMNS", 23)
  monkeypatch.setattr(tables, "_GATHER", 100)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nearest_is_scikit_learns(small_blocks, dtype):
  rng = np.random.default_rng(0)
  queries = rng.standard_normal((80, 6)).astype(dtype)
  points = rng.standard_normal((100, 6)).astype(dtype)
  known = NearestNeighbors(n_neighbors=4, algorithm="brute")
  want = known.fit(points.astype(float)).kneighbors(queries.astype(float))
  distances, index = evaluation.nearest(queries, points, 4)
  np.testing.assert_allclose(distances, want[0], rtol=1e-6)
  np.testing.assert_array_equal(index, want[1])


def test_near_duplicates_keep_their_distance_in_float32(small_blocks):
  """EVAL E15: the expanded square loses it at 1000 ± 1."""
  rng = np.random.default_rng(1)
  points = (1000 + rng.standard_normal((50, 64))).astype(np.float32)
  shift = 1e-2 * rng.standard_normal((50, 64))
  queries = (points + shift).astype(np.float32)
  distances, index = evaluation.nearest(queries, points, 1)
  np.testing.assert_array_equal(index[:, 0], np.arange(50))
  want = np.linalg.norm(queries.astype(float) - points, axis=1)
  np.testing.assert_allclose(distances[:, 0], want, rtol=1e-12)
  assert (evaluation.nearest(points, points, 1)[0] == 0).all()


def test_neighbours_that_float32_cannot_order():
  """Four rows a hair apart, far from the middle of all rows."""
  rng = np.random.default_rng(7)
  points = np.repeat(30.0 * rng.standard_normal((25, 16)), 4, axis=0)
  points = (points + 1e-4 * rng.standard_normal((100, 16))).astype(np.float32)
  distances, index = evaluation.nearest(points, points, 2)
  np.testing.assert_array_equal(index[:, 0], np.arange(100))
  want = np.sort(spatial.distance.cdist(*[points.astype(float)] * 2), 1)[:, :2]
  np.testing.assert_allclose(distances, want, rtol=1e-12)


@pytest.mark.parametrize("num", [30, 37, 100])
def test_one_set_takes_half_of_the_blocks(small_blocks, monkeypatch, num):
  """And finds what two sets of the same rows find, ties among them."""
  points = np.random.default_rng(8).integers(0, 4, (num, 3)).astype(float)
  plain, seen = tables.Search.blocks, []

  def blocks(*args):
    for block in plain(*args):
      seen.append(block.squares.size)
      yield block

  monkeypatch.setattr(tables.Search, "blocks", blocks)
  got = evaluation.nearest(points, points, 29)
  tiles = [37, 37, 26] if num == 100 else [num]
  whole = sum(tiles) ** 2
  assert sum(seen) == (whole + sum(n**2 for n in tiles)) / 2
  seen.clear()
  want = evaluation.nearest(points.copy(), points, 29)
  assert sum(seen) == whole
  np.testing.assert_array_equal(got[0], want[0])
  table = spatial.distance.cdist(points, points)
  np.testing.assert_allclose(got[0], np.sort(table, 1)[:, :29], atol=1e-12)
  for i, j in zip(got[1], table, strict=True):
    assert len(set(i)) == 29  # no point twice
    np.testing.assert_allclose(j[i], np.sort(j)[:29], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_is_brute_force(small_blocks, dtype, k):
  rng = np.random.default_rng(k)
  x = rng.standard_normal((120, 3)).astype(dtype)
  y = 0.8 * rng.standard_normal((90, 3)).astype(dtype) + dtype(0.3)
  got = evaluation.prdc(y, x, k_precision=k, k_density=k)
  want = by_hand(x.astype(float), y.astype(float), k)
  np.testing.assert_allclose(values(got), want, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_balls_are_closed_where_distances_tie(small_blocks, dtype):
  """EVAL E15 by hand, and whole numbers far from 0, which tie by the score."""
  x, y = (np.array(a, dtype)[:, None] for a in ([0, 2, 5], [4, 8, 20]))
  got = evaluation.prdc(y, x, k_precision=1, k_density=1)
  np.testing.assert_allclose(values(got), [2 / 3, 1, 1, 2 / 3], rtol=1e-15)
  assert np.isnan(got.precision.standard_error)  # nothing to split
  rng = np.random.default_rng(2)
  x, y = (rng.integers(500, 506, (n, 2)).astype(dtype) for n in (150, 130))
  got = evaluation.prdc(y, x, k_precision=3, k_density=3)
  want = by_hand(x.astype(float), y.astype(float), 3)
  np.testing.assert_allclose(values(got), want, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:samples and reference are the same")
def test_a_set_against_itself_is_covered():
  x = np.random.default_rng(3).standard_normal((200, 16)).astype(np.float32)
  got = evaluation.prdc(x, x)
  for estimate in (got.precision, got.recall, got.coverage):
    assert estimate == (1.0, 0.0, 1.0, 1.0)
  twice = np.concatenate([x, x, x, x, x, x, x])  # balls of radius 0
  got = evaluation.prdc(twice, twice)
  assert (got.precision.value, got.recall.value, got.coverage.value) == (
    1,
    1,
    1,
  )


def shares(samples, reference, *k):
  return coverage._shares(evaluation.Pairs(samples, reference, k=k))


def mean_and_error(draws):
  draws = np.array(draws)
  return draws.mean(0), draws.std(0) / np.sqrt(len(draws))


def test_density_and_coverage_of_equal_laws():
  """EVAL E17: 1 exactly, and the lemma, for any law and numbers."""
  rng = np.random.default_rng(4)
  draw = lambda: shares(
    rng.standard_normal((30, 2)), rng.standard_normal((40, 2)), 5, 5
  )[2:]
  mean, error = mean_and_error([draw() for _ in range(1000)])
  want = [1.0, evaluation.expected_coverage(40, 30)]
  assert (np.abs(mean - want) < 4.5 * error).all()
  assert f"{evaluation.expected_coverage(10**4, 10**4):.5f}" == "0.96877"
  limit = evaluation.expected_coverage(10**7, 10**7)
  np.testing.assert_allclose(limit, 1 - 2.0**-5, atol=1e-6)


def test_two_squares_of_which_half_is_shared():
  """EVAL E18."""
  rng = np.random.default_rng(5)
  square = lambda: rng.random((1000, 2))
  draw = lambda: shares(square() + [0.5, 0.0], square(), 3, 5)
  mean, error = mean_and_error([draw() for _ in range(15)])
  want = [0.515, 0.515, 0.517, 0.506]
  assert (np.abs(mean - want) < 4.5 * error + 5e-4).all()


@pytest.mark.parametrize(
  "d, authentic", [(1, 1 / 3), (2, 0.3785), (3, 11 / 27)]
)
def test_memory_without_memory(d, authentic):
  """EVAL E24, τ^D, and E25; samples in the middle, away from the border."""
  rng = np.random.default_rng(d)
  ratio, away = [], []
  for _ in range(6):
    train = rng.random((2000, d))
    samples = 0.25 + 0.5 * rng.random((1500, d))
    ratio.append(evaluation.distance_ratio(samples, train, 0.5).value)
    away.append(evaluation.authenticity(samples, train).value)
  for draws, want in ((ratio, 0.5**d), (away, authentic)):
    mean, error = mean_and_error(draws)
    assert abs(mean - want) < 4.5 * error + 2e-3


def test_copies_are_found():
  rng = np.random.default_rng(6)
  records = rng.standard_normal((300, 8))
  train, held_out = records[:200], records[200:]
  own = evaluation.nearer_to_train(
    rng.standard_normal((400, 8)), train, held_out
  )
  assert own.share.low < own.expected < own.share.high
  copies = train[rng.integers(0, 200, 400)] + 0.01
  found = evaluation.nearer_to_train(copies, train, held_out)
  assert found.share.value == 1.0 and found.share.low > found.expected
  assert evaluation.distance_ratio(copies, train).value == 1.0
  assert evaluation.authenticity(copies, train).value == 0.0
  # as near to both: half of each
  tie = evaluation.nearer_to_train(copies, train, train)
  assert tie.share.value == 0.5


def test_relabelling_counts_every_sample_once():
  """The variance over all relabellings of four records, by hand."""
  from itertools import combinations

  records = np.array([[0.0], [10.0], [20.0], [30.0]])
  samples = np.array([[1.0], [2.0], [3.0], [12.0], [19.0]])
  counts = np.array([3, 1, 1, 0])
  shares = [counts[list(c)].sum() / 5 for c in combinations(range(4), 2)]
  got = evaluation.nearer_to_train(samples, records[:2], records[2:])
  assert got.share.value == 0.8 and got.expected == 0.5
  np.testing.assert_allclose(got.share.standard_error, np.std(shares))
