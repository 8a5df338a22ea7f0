"""KID, MMD, energy and sliced distances: brute force, SciPy, closed forms."""

import numpy as np
import pytest
from scipy import integrate, special, stats
from sklearn.metrics import pairwise

from diffflow_jax import evaluation
from diffflow_jax.evaluation import sliced
from diffflow_jax.evaluation.pairwise import kernels, sums, tables
from diffflow_jax.scoring import metrics
from diffflow_jax.scoring.judged import Judged
from diffflow_jax.scoring.sides import Side


def by_hand(x, y, table):
  """The unbiased MMD² from loops over pairs."""
  off = lambda a: (
    sum(
      table(a, a)[i, j] for i in range(len(a)) for j in range(len(a)) if i != j
    )
    / (len(a) * (len(a) - 1))
  )
  return off(x) + off(y) - 2 * table(x, y).mean()


TABLES = {
  "kid": (
    kernels.cubic,
    lambda a, b: pairwise.polynomial_kernel(a, b, degree=3, coef0=1.0),
  ),
  "gaussian": (
    kernels.gaussian(0.8),
    lambda a, b: pairwise.rbf_kernel(a, b, gamma=1 / (2 * 0.8**2)),
  ),
  "energy": (
    kernels.negative_distance,
    lambda a, b: -pairwise.euclidean_distances(a, b),
  ),
}


@pytest.fixture
def small_blocks(monkeypatch):
  """Many blocks and strips, of which none is whole."""
  monkeypatch.setattr(tables, "_ROWS", 11)
  monkeypatch.setattr(tables, "_COLUMNS", 7)
  monkeypatch.setattr(sums, "_STRIP", 3)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("rtol", [1e-9, 2e-4], ids=["float64", "float32"])
def test_mmd_is_brute_force(name, rtol, request):
  kernel, table = TABLES[name]
  rng = np.random.default_rng(0)
  dtype = np.float64 if rtol < 1e-6 else np.float32
  x = rng.standard_normal((30, 4)).astype(dtype)
  y = (rng.standard_normal((25, 4)) + 0.5).astype(dtype)
  whole = evaluation.mmd(x, y, kernel)
  request.getfixturevalue("small_blocks")
  np.testing.assert_allclose(evaluation.mmd(x, y, kernel), whole, 10 * rtol)
  want = by_hand(x.astype(float), y.astype(float), table)
  np.testing.assert_allclose(evaluation.mmd(x, y, kernel).value, want, rtol)
  # anyone's function is a kernel
  own = evaluation.mmd(x, y, lambda a, b: table(a, b))
  np.testing.assert_allclose(own.value, want, 1e-9)
  together = evaluation.Pairs(x, y, kernels=[kernels.cubic, kernel], k=(2, 3))
  shared = evaluation.mmd(x, y, kernel, pairs=together)
  assert shared == evaluation.mmd(x, y, kernel)
  balls = evaluation.prdc(x, y, k_precision=2, k_density=3, pairs=together)
  alone = evaluation.prdc(x, y, k_precision=2, k_density=3)
  assert [b.value for b in balls] == [b.value for b in alone]


@pytest.mark.parametrize("shift", [0.0, 0.15, 1.0])
def test_the_error_of_mmd_is_its_spread(shift):
  """Eq. (2), from laws that are equal to laws far apart."""
  rng = np.random.default_rng(1)
  draws = np.array(
    [
      evaluation.energy_distance(
        rng.standard_normal((60, 2)) + [shift, 0], rng.standard_normal((90, 2))
      )[:2]
      for _ in range(500)
    ]
  )
  ratio = (draws[:, 1] ** 2).mean() ** 0.5 / draws[:, 0].std()
  # too large rather than too small where the second order is all there is
  assert 0.85 < ratio < (1.5 if shift == 0 else 1.2)


def test_pairs_have_what_was_asked_of_them():
  x = np.random.default_rng(8).standard_normal((40, 2))
  pairs = evaluation.Pairs(x, x[::-1], kernels=[kernels.cubic], across=1)
  for call, said in (
    (lambda: evaluation.energy_distance(x, x[::-1], pairs=pairs), "negative_d"),
    (lambda: evaluation.prdc(x, x[::-1], pairs=pairs), r"k=\(3, 5\), not None"),
    (
      lambda: evaluation.distance_ratio(x, x, pairs=pairs),
      "across >= 2, not 1",
    ),
    (lambda: evaluation.authenticity(x, x, pairs=pairs), "own >= 1, not 0"),
    (lambda: evaluation.Pairs(x, x, k=(3, 40)), "k_density must be at most 39"),
    (
      lambda: evaluation.Pairs(x, x, own=2, within=evaluation.Within(x)),
      "within must have num >= 2 .* not num=0",
    ),
    (
      lambda: evaluation.Pairs(x, x, within=evaluation.Within(x[:9])),
      "within must be of the reference's 40 rows, not of 9",
    ),
    (
      lambda: evaluation.Pairs(x, x, within=evaluation.Within(x + 1.0)),
      "within must be of the reference's 40 rows, not of 40 others",
    ),
  ):
    with pytest.raises(ValueError, match=said):
      call()


def test_samplers_share_what_the_reference_is_within_itself(monkeypatch):
  """Five walks for two samplers in the place of six, and the same numbers."""
  rng, walked, walk = np.random.default_rng(2), [], tables.walk
  reference = rng.standard_normal((50, 3))
  side = Side.of_arrays({"features": reference})
  names = "kid", "mmd", "energy", "precision_recall", "density_coverage"
  asked = metrics.metrics_of(",".join(names))
  monkeypatch.setattr(
    tables, "walk", lambda *how: walked.append(how[0]) or walk(*how)
  )
  for shift, new in ((0.0, 3), (0.5, 2)):
    x = rng.standard_normal((40, 3)) + shift
    judged = Judged(
      samples=Side.of_arrays({"features": x}), reference=side, metrics=asked
    )
    walked.clear()
    pairs = [judged.pairs(one.name, **one.settings) for one in asked]
    assert len(set(map(id, pairs))) == 1
    whole = evaluation.prdc(x, reference, pairs=pairs[0])
    kernel = judged.gaussian()[0]
    mmd = evaluation.mmd(x, reference, kernel, pairs=pairs[0])
    assert len(walked) == new
    assert whole[0].value == evaluation.prdc(x, reference)[0].value
    np.testing.assert_allclose(
      mmd, evaluation.mmd(x, reference, kernel), rtol=1e-9
    )


def mean_is(draws, want, extra=0.0):
  error = np.std(draws) / np.sqrt(len(draws))
  assert abs(np.mean(draws) - want) < 4.5 * error + extra, np.mean(draws)


def test_means_are_those_of_the_closed_forms():
  """EVAL E13, E14, E21."""
  rng = np.random.default_rng(2)
  normal = lambda mean, std=1.0: (
    np.array(mean) + std * rng.standard_normal((1000, len(mean)))
  )
  at_zero = lambda d: normal([0.0] * d)
  one = evaluation.kid(normal([0.25], 0.5), 0.5 * at_zero(1))
  three = evaluation.kid(normal([0.4, -0.2, 0.1], 1.2), at_zero(3))
  gauss = evaluation.mmd(
    normal([0.5, 0, -0.3], 0.7), at_zero(3), kernels.gaussian(0.8)
  )
  energy = evaluation.energy_distance(normal([1.0], 2.0), at_zero(1))
  null = evaluation.kid(at_zero(3), at_zero(3))
  for got, want in (
    (one, 0.3666992),
    (three, 0.736275),
    (gauss, 0.063537),
    (energy, 0.534105),
    (null, 0.0),
  ):
    assert abs(got.value - want) < 4.5 * got.standard_error < 1.0, got
  # 2 ∫ (F - G)² is the same number
  gap = lambda x: (special.ndtr(x) - special.ndtr((x - 1) / 2)) ** 2
  want = 2 * integrate.quad(gap, -30, 30, limit=300)[0]
  assert f"{want:.6f}" == "0.534105"


def test_kid_sees_three_moments_alone():
  """EVAL E13: atoms with the normal's first three moments have KID 0."""
  rng = np.random.default_rng(3)
  atoms = rng.choice(
    [-np.sqrt(3.0), 0.0, np.sqrt(3.0)], 2000, p=[1 / 6, 4 / 6, 1 / 6]
  )
  normal = rng.standard_normal(2000)
  got = evaluation.kid(atoms[:, None], normal[:, None])
  assert got.low < 0.0 < got.high
  apart = evaluation.energy_distance(atoms[:, None], normal[:, None])
  assert apart.low > 0.0


def test_energy_distance_is_scipys_without_the_pairs_of_one_row():
  rng = np.random.default_rng(4)
  x, y = rng.standard_normal(60), 1 + 2 * rng.standard_normal(50)
  got = evaluation.energy_distance(x[:, None], y[:, None]).value
  own = lambda a: np.abs(a[:, None] - a).sum() / len(a) ** 2 / (len(a) - 1)
  want = stats.energy_distance(x, y) ** 2 - own(x) - own(y)
  np.testing.assert_allclose(got, want, rtol=1e-9)


def test_the_median_distance():
  x = np.random.default_rng(5).standard_normal((50, 3))
  table = pairwise.euclidean_distances(x)
  want = np.median(table[np.triu_indices(50, 1)])
  np.testing.assert_allclose(evaluation.median_distance(x), want, rtol=1e-9)


def test_arrays_on_disk_are_read_as_those_in_memory(tmp_path):
  x = np.random.default_rng(6).standard_normal((400, 4)).astype(np.float32)
  np.save(tmp_path / "x.npy", x)
  there = np.load(tmp_path / "x.npy", mmap_mode="r")
  assert evaluation.kid(there, x[::-1]) == evaluation.kid(x, x[::-1])


@pytest.mark.parametrize("n, m", [(40, 40), (40, 25), (24, 36)])
def test_quantiles_are_scipys_transport(n, m):
  rng = np.random.default_rng(7)
  a, b = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 0.4
  got = sliced._quantile_distance(np.sort(a, 0), np.sort(b, 0))
  fine = np.lcm(n, m)  # each row that many times: equal numbers of both
  rows = lambda x: np.sort(np.repeat(x, fine // len(x), axis=0), 0)
  want = ((rows(a) - rows(b)) ** 2).mean(0)
  np.testing.assert_allclose(got, want, rtol=1e-12)


def test_sliced_wasserstein_of_known_laws():
  """EVAL E20: a shift costs |δ|²/d; diag(4, 1) against I, 0.416071."""
  rng = np.random.default_rng(8)
  delta, x = np.array([0.3, -0.4, 1.2]), rng.standard_normal((400, 3))
  got = evaluation.sliced_wasserstein(x + delta, x, num_directions=4000)
  theta = sliced.directions(4000, 3)
  want = ((theta.T @ delta) ** 2).mean()
  # the same rows in both parts: nothing but the directions varies
  assert abs(want - (delta**2).sum() / 3) < 4.5 * got.standard_error
  plain = sliced._quantile_distance(
    np.sort((x + delta) @ theta, 0), np.sort(x @ theta, 0)
  )
  np.testing.assert_allclose(plain.mean(), want, rtol=1e-12)
  x, y = rng.standard_normal((2, 20000, 2))
  got = evaluation.sliced_wasserstein(y * [2, 1], x, num_directions=64)
  assert abs(got.value - 0.416071) < 4.5 * got.standard_error < 0.3
  draws = [
    sliced._quantile_distance(
      np.sort(rng.random((50, 400)), 0), np.sort(rng.random((50, 400)), 0)
    ).mean()
    for _ in range(10)
  ]
  mean_is(draws, 1 / 153)


@pytest.mark.filterwarnings("ignore:samples and reference are the same")
def test_a_set_against_itself_is_at_distance_zero():
  x = np.random.default_rng(9).standard_normal((300, 5))
  theta = sliced.directions(16, 5)
  same = np.sort(x @ theta, 0)
  assert (sliced._quantile_distance(same, same) == 0).all()
  # what is left is the bias that is taken off: nothing to be told apart
  for metric in (evaluation.kid, evaluation.energy_distance):
    assert metric(x, x).value <= 0
  assert evaluation.sliced_wasserstein(x, x).value <= 0
