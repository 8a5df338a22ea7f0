"""What the metrics refuse: one sentence that names what is wrong."""

import types
import warnings

import numpy as np
import pytest

from diffflow_jax import evaluation
from diffflow_jax.evaluation import estimates
from diffflow_jax.evaluation.pairwise import kernels

rng = np.random.default_rng(0)
A, B = rng.standard_normal((2, 200, 4))
NAN = np.where(np.arange(200)[:, None] == 7, np.nan, A)
TILTED = np.array([[1.0, 5.0], [1.0, 1.0]])
CARD = types.SimpleNamespace(shape=(8, 8, 1))
DIGITS = evaluation.features_of("pixels", CARD)
TWO_SETS = {
  "frechet": evaluation.frechet,
  "kid": evaluation.kid,
  "energy": evaluation.energy_distance,
  "prdc": evaluation.prdc,
  "sliced": evaluation.sliced_wasserstein,
  "classifier": evaluation.classifier_two_sample,
  "nearest": lambda a, b: evaluation.nearest(a, b, 1),
  "train": lambda a, b: evaluation.nearer_to_train(a, b, b),
  "ratio": evaluation.distance_ratio,
  "authenticity": evaluation.authenticity,
}


@pytest.fixture(params=TWO_SETS.values(), ids=TWO_SETS)
def metric(request):
  return request.param


def test_other_dimensions_than_the_references(metric):
  with pytest.raises(ValueError, match="samples have 3 dim.* reference has 4"):
    metric(A[:, :3], B)


@pytest.mark.parametrize("bad", [NAN, np.where(np.isnan(NAN), np.inf, A)])
def test_entries_that_are_not_finite(metric, bad):
  with pytest.raises(ValueError, match="1 of its 200 rows hold NaN or inf"):
    metric(bad, B)
  with pytest.raises(ValueError, match="1 of its 200 rows hold NaN or inf"):
    metric(B, bad)


def test_no_rows(metric):
  with pytest.raises(ValueError, match="rows"):
    metric(A[:0], B)


@pytest.mark.parametrize("bad", ["a", None, A + 1j, np.array([None] * 200)])
def test_what_is_no_numbers(metric, bad):
  with pytest.raises(
    TypeError, match="must be (numbers|an array of rows), not"
  ):
    metric(bad, B)


def test_what_is_no_set(metric):
  if metric is not evaluation.frechet:  # which takes them
    with pytest.raises(TypeError, match="an array of rows, not a Moments"):
      metric(evaluation.moments(A), B)
  with pytest.raises(ValueError, match=r"at least .+ rows, not of shape \(\)"):
    metric(3.0, B)
  with pytest.raises(ValueError, match=r"rows, not of shape \(200, 0\)"):
    metric(A[:, :0], B[:, :0])


def test_entries_whose_squares_overflow(metric):
  with pytest.raises(ValueError, match="must be at most 1e\\+15 in float32"):
    metric((1e16 * A).astype(np.float32), B.astype(np.float32))


def test_sets_in_which_there_is_nothing_to_see(metric):
  """Said once, of whichever set it is; neighbours are true of any set."""
  same, one = np.full((200, 4), 0.1), np.array([[3, 1.0, 0.1, -7]])
  if metric in (TWO_SETS[n] for n in ("nearest", "train", "ratio")):
    return
  if metric is evaluation.authenticity:
    return
  for pair, name in (((same, B), "samples"), ((B, one + 0 * B), "reference")):
    with pytest.warns(
      UserWarning, match=f"200 rows of {name} are all the same"
    ):
      metric(*pair)
  if metric is not evaluation.frechet:  # of moments alone
    with pytest.warns(UserWarning, match="are the same 200 rows, which no"):
      metric(A, A.copy())
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    metric(A * [1, 1, 1, 0], B * [1, 1, 1, 0])  # a pixel at the border


def test_probabilities_that_are_all_the_same():
  with pytest.warns(UserWarning, match="9 rows of probabilities are all the s"):
    score = evaluation.inception_score(np.full((9, 3), 1 / 3)).value
  np.testing.assert_allclose(score, 1.0)


def test_shares_stay_within_their_intervals():
  """Also those at an end, where rounding went beyond it."""
  for num in range(1, 300):
    for hits in (0, 1, num - 1, num):
      value, _, low, high = estimates.wilson(hits, num)
      assert 0.0 <= low <= value <= high <= 1.0


@pytest.mark.parametrize(
  "call, said",
  [
    (
      lambda: evaluation.frechet_of_gaussians(*[np.zeros(2), TILTED] * 2),
      "cov_a must be symmetric, but differs by 4",
    ),
    (
      lambda: evaluation.frechet_of_gaussians(*[np.zeros(2), -np.eye(2)] * 2),
      "cov_a must have no negative eigenvalues",
    ),
    (
      lambda: evaluation.frechet_of_gaussians(
        np.zeros(2), np.eye(2), np.full(2, np.nan), np.eye(2)
      ),
      "means must be finite",
    ),
    (
      lambda: evaluation.frechet_floor(np.full((2, 2), np.nan), 10),
      "covariance must be finite",
    ),
    (lambda: evaluation.frechet_floor(np.eye(2), 0), "num must be an integer"),
    (lambda: evaluation.frechet_floor(A, 5), r"must be \(d, d\), not of shape"),
    (lambda: kernels.gaussian(0.0), "bandwidth must be > 0, not 0"),
    (lambda: DIGITS(np.zeros((3, 8, 8), np.uint8)), r"shape \(8, 8, 1\), not"),
    (lambda: DIGITS(np.full((3, 8, 8, 1), np.nan)), "must be finite, and hold"),
    (lambda: DIGITS(np.full((3, 8, 8, 1), 255.0)), "but go from 0 to 255"),
    (lambda: DIGITS(None), r"must be an array \(num, ...\), not None"),
    (lambda: DIGITS(np.zeros((0, 8, 8, 1))), r"an array \(num, ...\), not \(0"),
    (
      lambda: evaluation.reference_of(None, DIGITS, CARD),
      "must be one of folder:PATH, FILE.npz, not 'None'",
    ),
    (lambda: evaluation.prdc(A[:5], B), r"k_density must be < 5.*, not 5"),
    (
      lambda: evaluation.prdc(A, B, k_precision=200),
      r"k_precision must be < 200.*, not 200",
    ),
    (lambda: evaluation.prdc(A, B, k_density=0), r"k_density must be .* >= 1"),
    (
      lambda: evaluation.nearest(A, B, 201),
      r"k must be <= 200 points, not 201",
    ),
    (lambda: evaluation.authenticity(A, B[:1]), r"k must be < 1"),
    (lambda: evaluation.kid(A[:3], B), r"array of at least 4 rows, not of sh"),
    (lambda: evaluation.frechet(A[:19], B), r"at least 20 rows for 10.*not 19"),
    (lambda: evaluation.moments(iter([A, B[:, :2]])), r"have 2 dim.* has 4"),
    (lambda: evaluation.inception_score(A), r">= 0 and sum to 1"),
    (lambda: evaluation.inception_score(A[:, 0]), r"\(num, C\).*\(200,\)"),
    (
      lambda: evaluation.label_agreement(np.array([0, 4]), np.array([0, 1]), 4),
      r"predicted must be integers in \[0, 4\)",
    ),
    (
      lambda: evaluation.label_agreement(np.arange(3), np.arange(2), 4),
      r"one shape \(num,\), not \(3,\) and \(2,\)",
    ),
    (
      lambda: evaluation.label_reliability(
        *(evaluation.Estimate(v, 0, v, v) for v in (0.3, 0.2)), 4
      ),
      r"accuracy must be above chance, 1/4",
    ),
    (lambda: evaluation.distance_ratio(A, B, 1.5), r"threshold must be in"),
    (lambda: evaluation.kl(A[:, 0], B[:9, 0]), r"\(200,\) and \(9,\)"),
    (lambda: evaluation.kl(NAN[:, 0], A[:, 0]), r"some are NaN"),
  ],
)
def test_one_sentence_says_what_is_wrong(call, said):
  with pytest.raises(ValueError, match=said) as raised:
    call()
  assert "\n" not in str(raised.value)
