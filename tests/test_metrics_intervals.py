"""95 % intervals hold in 92 to 98 of 100 repetitions, for every metric.

The truth is a closed form, or, where a metric is defined by the number of rows
alone (k nearest neighbours), its mean over the repetitions.
"""

import math

import numpy as np
import pytest
from scipy import special
import threadpoolctl  # comes with scikit-learn

import diffflow_jax as dfj
from diffflow_jax import evaluation
from diffflow_jax.evaluation import kernels

REPETITIONS = 400


@pytest.fixture(autouse=True)
def fresh_draws():
  """Whatever ran before, a test draws the same; and one thread is faster."""
  global rng
  rng = np.random.default_rng(0)
  with threadpoolctl.threadpool_limits(1):  # tables of 40 by 40
    yield


def normal(num, *mean, std=1.0):
  """(num, d) draws of N(mean, diag(std²))."""
  return np.array(mean) + std * rng.standard_normal((num, len(mean)))


def check_intervals(estimates, truth=None, most=0.98):
  value, _, low, high = np.array(estimates).T
  truth = value.mean() if truth is None else truth
  share = np.mean((low <= truth) & (truth <= high))
  assert 0.92 <= share <= most, (share, value.mean(), truth)


def repeat(draw):
  return [draw() for _ in range(REPETITIONS)]


# mean 0 and covariance 1 of three features, exactly: a fixed reference
EXACT = evaluation.Moments(10**9, np.zeros(3), (10**9 - 1) * np.eye(3))
STDS = np.sqrt([1.0, 2.0, 0.5])
APART = 0.25 + ((STDS - 1.0) ** 2).sum()


@pytest.mark.parametrize(
  "samples, reference, truth, most",
  [
    (lambda: normal(300, 0.5, 0, 0, std=STDS), lambda: EXACT, APART, 0.98),
    # second order in the noise alone: the jackknife is wider than need be
    (lambda: normal(300, 0, 0, 0), lambda: EXACT, 0.0, 1.0),
    # both sets drawn
    (
      lambda: normal(400, 0.5, 0, 0, std=STDS),
      lambda: evaluation.moments_in_parts(normal(300, 0, 0, 0)),
      APART,
      0.98,
    ),
  ],
  ids=["apart", "equal", "both_drawn"],
)
def test_frechet(samples, reference, truth, most):
  draw = lambda: evaluation.frechet(samples(), reference()).unbiased
  check_intervals(repeat(draw), truth, most)


@pytest.mark.parametrize(
  "kernel, samples, reference, truth",
  [
    # EVAL E13, E14 and E21
    (
      kernels.cubic,
      lambda: normal(1500, 0.4, -0.2, 0.1, std=1.2),
      lambda: normal(1200, 0, 0, 0),
      0.736275,
    ),
    (kernels.cubic, lambda: normal(600, 0), lambda: normal(600, 0), 0.0),
    (
      kernels.gaussian(0.8),
      lambda: normal(300, 0.5, 0, -0.3, std=0.7),
      lambda: normal(300, 0, 0, 0),
      0.063537,
    ),
    (
      kernels.negative_distance,
      lambda: normal(600, 1, std=2.0),
      lambda: normal(600, 0),
      0.534105,
    ),
  ],
  ids=["kid", "kid_equal", "gaussian", "energy"],
)
def test_kernel_distances(kernel, samples, reference, truth):
  draw = lambda: evaluation.mmd(samples(), reference(), kernel)
  check_intervals(repeat(draw), truth)


@pytest.mark.parametrize(
  "samples, truth, most",
  [
    (lambda: normal(500, 1.0, -0.6, 0.3), (1.0 + 0.36 + 0.09) / 3.0, 0.98),
    # second order in the noise alone: the jackknife is wider than need be
    (lambda: normal(500, 0, 0, 0), 0.0, 1.0),
  ],
  ids=["apart", "equal"],
)
def test_sliced_wasserstein(samples, truth, most):
  draw = lambda: evaluation.sliced_wasserstein(
    samples(),
    normal(400, 0, 0, 0),
    num_directions=48,
    seed=int(rng.integers(1 << 30)),
  )
  check_intervals(repeat(draw), truth, most)


def test_precision_recall_density_coverage():
  """Two unit squares, one half beside the other."""
  square = lambda: rng.random((400, 2))
  draws = repeat(
    lambda: evaluation.prdc(square() + [0.5, 0], square(), num_parts=5)
  )
  for values in zip(*draws, strict=True):
    check_intervals(values)


def test_inception_score():
  # p = Dirichlet(a, …): E p log p = a/s (ψ(a + 1) - ψ(s + 1)), C of them
  a, C = 0.3, 6
  log_score = math.log(C) + special.digamma(a + 1) - special.digamma(a * C + 1)
  draw = lambda: evaluation.inception_score(rng.dirichlet([a] * C, 200))
  check_intervals(repeat(draw), math.exp(log_score))


def guesses(labels, accuracy, num_classes):
  """Labels, changed to one of the others in a share of 1 - accuracy."""
  other = rng.integers(1, num_classes, len(labels))
  wrong = rng.random(len(labels)) > accuracy
  return np.where(wrong, (labels + other) % num_classes, labels)


def test_label_agreement_and_reliability():
  C, accuracy, reliable = 4, 0.85, 0.7
  agreements, reliabilities = [], []
  for _ in range(REPETITIONS):
    labels = rng.integers(0, C, 500)
    known = evaluation.label_agreement(guesses(labels, accuracy, C), labels, C)
    made = guesses(labels, reliable, C)
    agreement = evaluation.label_agreement(
      guesses(made, accuracy, C), labels, C
    )
    agreements.append(agreement.overall)
    reliabilities.append(
      evaluation.label_reliability(agreement.overall, known.overall, C)
    )
  check_intervals(reliabilities, reliable)
  both = reliable * accuracy + (1 - reliable) * (1 - accuracy) / (C - 1)
  check_intervals(agreements, both)


def bayes(x, y):
  """The best classifier of N(0.7, 1) against N(0, 1)."""
  return lambda x: 0.7 * x[:, 0] - 0.245


def test_classifier_two_sample():
  """EVAL E22: accuracy Φ(0.35), and the Jensen-Shannon divergence itself."""
  draws = repeat(
    lambda: evaluation.classifier_two_sample(
      normal(300, 0.7), normal(400, 0.0), bayes
    )
  )
  accuracy, divergence, _ = zip(*draws, strict=True)
  check_intervals(accuracy, special.ndtr(0.35))
  x = np.linspace(-10.0, 11.0, 20001)
  p, q = (
    np.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi) for m in (0.7, 0)
  )
  mix = (p + q) / 2
  jsd = np.trapezoid((p * np.log(p / mix) + q * np.log(q / mix)) / 2, x)
  check_intervals(divergence, jsd)


def test_nearer_to_train():
  """EVAL E26: 40 of 100 rows are train by chance; 5 samples a row."""

  def draw():
    records, samples = rng.random((100, 2)), rng.random((500, 2))
    return evaluation.nearer_to_train(samples, records[:40], records[40:])

  draws = repeat(draw)
  assert all(d.expected == 0.4 for d in draws)
  check_intervals([d.share for d in draws], 0.4)


def test_kl_of_known_densities():
  p, q = (
    dfj.closed_form.gaussian([0.0], 1.0),
    dfj.closed_form.gaussian([0.5], 2),
  )
  clean = dfj.levels.from_pair(1.0, 0.0)
  x = rng.standard_normal((REPETITIONS * 100, 1)).astype(np.float32)
  log_p, log_q = (
    np.asarray(data.log_prob(x, clean)).reshape(REPETITIONS, 100)
    for data in (p, q)
  )
  pairs = zip(log_p, log_q, strict=True)
  truth = evaluation.gaussian_kl(0.0, 1.0, 0.5, 4.0)
  check_intervals([evaluation.kl(*pair) for pair in pairs], truth)


def test_mode_shares():
  data = dfj.closed_form.mixture([0.3, 0.7], [[-20.0], [20.0]], [1.0, 1.0])
  draws = []
  for _ in range(REPETITIONS):
    first = rng.random(200) < 0.3
    samples = np.where(first, -20.0, 20.0)[:, None] + normal(200, 0)
    draws.append(evaluation.mode_shares(samples.astype(np.float32), data))
  check_intervals([d.shares[0] for d in draws], 0.3)
  assert 0.02 <= np.mean([d.p_value < 0.05 for d in draws]) <= 0.08
