"""Inception score, labels, two-sample tests, and data of known law."""

import math

import jax
import numpy as np
import pytest
from scipy import integrate, stats

import diffflow_jax as dfj
from diffflow_jax import evaluation


def plain_log_score(p):
  p, q = np.maximum(p, 1e-300), p.mean(0)
  return (p * (np.log(p) - np.log(q))).sum(1).mean()


def test_inception_score_is_the_mean_divergence_and_its_bias():
  rng = np.random.default_rng(0)
  p = rng.dirichlet(np.ones(6) * 0.3, 500)
  got = evaluation.inception_score(p)
  bias = 0.5 * (p.var(0, ddof=1) / p.mean(0)).sum() / 500
  want = np.exp(plain_log_score(p) + bias)
  np.testing.assert_allclose(got.value, want, rtol=1e-10)
  q = p.mean(0)
  each = (np.maximum(p, 1e-300) * np.log(np.maximum(p, 1e-300) / q)).sum(1)
  error = want * each.std(ddof=1) / np.sqrt(500)
  np.testing.assert_allclose(got.standard_error, error, rtol=1e-8)
  assert got.low < got.value < got.high


def test_inception_score_of_sure_predictions():
  """EVAL E19: (C - 1)/(2n) is missing from the plain logarithm."""
  rng, C, n = np.random.default_rng(1), 50, 1000
  draws = [np.eye(C)[rng.integers(0, C, n)] for _ in range(200)]
  plain = np.mean([plain_log_score(p) for p in draws]) - math.log(C)
  assert abs(plain + (C - 1) / (2 * n)) < 2e-3
  scores = [evaluation.inception_score(p).value for p in draws]
  assert abs(np.log(scores).mean() - math.log(C)) < 2e-3


def test_inception_score_streams():
  rng = np.random.default_rng(2)
  p = rng.dirichlet(np.ones(5), 300)
  pieces = np.split(p, [7, 100, 299])
  whole = evaluation.inception_score(p)
  streamed = evaluation.inception_score(iter(pieces))
  np.testing.assert_allclose(streamed, whole, rtol=1e-9)
  # a class that nobody predicts changes nothing
  with_empty = np.concatenate([p, np.zeros((300, 1))], axis=1)
  got = evaluation.inception_score(with_empty)
  np.testing.assert_allclose(got, whole, rtol=1e-9)


def test_label_agreement_by_hand():
  wanted = np.array([0, 0, 0, 1, 1, 2])
  predicted = np.array([0, 0, 1, 1, 1, 0])
  got = evaluation.label_agreement(predicted, wanted, 4)
  assert got.overall.value == 4 / 6
  assert [e and e.value for e in got.per_class] == [2 / 3, 1.0, 0.0, None]
  known = stats.binomtest(4, 6).proportion_ci(0.95, method="wilson")
  np.testing.assert_allclose(got.overall[2:], (known.low, known.high))


def test_label_reliability_of_uniform_confusion():
  """EVAL E23: A = r a + (1 - r) b."""
  exact = lambda v: evaluation.Estimate(v, 0.0, v, v)
  a, r, C = 0.7, 0.8, 3
  b = (1 - a) / (C - 1)
  got = evaluation.label_reliability(exact(r * a + (1 - r) * b), exact(a), C)
  np.testing.assert_allclose(got.value, r)
  # the delta method, by differences
  step = 1e-6
  for i in range(2):
    args = [r * a + (1 - r) * b, a]
    moved = list(args)
    moved[i] += step
    up, down = (
      evaluation.label_reliability(*map(exact, v), C).value
      for v in (moved, args)
    )
    shaky = [exact(v) for v in args]
    shaky[i] = shaky[i]._replace(standard_error=0.01)
    error = evaluation.label_reliability(*shaky, C).standard_error
    np.testing.assert_allclose(error, 0.01 * abs(up - down) / step, rtol=1e-4)


def test_a_classifier_finds_a_shift_and_nothing_where_there_is_none():
  rng = np.random.default_rng(3)
  x = rng.standard_normal((3000, 3)) * [1, 100, 1e-3]
  y = rng.standard_normal((2000, 3)) * [1, 100, 1e-3] + [0.7, 0, 0]
  found = evaluation.classifier_two_sample(y, x)
  # EVAL E22: the best one has Φ(0.35)
  accuracy = found.accuracy
  assert abs(accuracy.value - 0.63683) < 3 * accuracy.standard_error + 0.01
  assert found.p_value < 1e-10
  density = lambda x, m: np.exp(-((x - m) ** 2) / 2) / math.sqrt(2 * math.pi)

  def integrand(x):
    p, q = density(x, 0.0), density(x, 0.7)
    return 0.5 * (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q)))

  divergence = integrate.quad(integrand, -9, 10)[0]
  below = found.jensen_shannon
  assert 0.0 < below.value < divergence + 3 * below.standard_error
  equal = evaluation.classifier_two_sample(rng.permutation(x)[:1500], x[1500:])
  assert 0.01 < equal.p_value < 0.99


@pytest.mark.filterwarnings("ignore:samples and reference are the same")
def test_a_classifier_that_cannot_decide_is_right_in_half():
  x = np.random.default_rng(4).standard_normal((40, 2))
  got = evaluation.classifier_two_sample(
    x, x, lambda x, y: lambda x: 0 * x[:, 0]
  )
  assert got.accuracy.value == 0.5 and got.jensen_shannon.value == 0.0
  np.testing.assert_allclose(got.p_value, 0.5)


def test_gaussian_kl_is_the_integral():
  p, q = stats.norm(0.3, 1.2), stats.norm(-0.4, 0.9)
  gap = lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x))
  want = integrate.quad(gap, -15, 15)[0]
  got = evaluation.gaussian_kl(0.3, 1.2**2, -0.4, 0.9**2)
  np.testing.assert_allclose(got, want, rtol=1e-9)
  turn = stats.ortho_group.rvs(2, random_state=0)  # KL is the same in any basis
  cov = lambda *v: turn @ np.diag(v) @ turn.T
  got = evaluation.gaussian_kl(
    turn @ [0.3, 1.0], cov(1.44, 2.0), turn @ [-0.4, 1.0], cov(0.81, 2.0)
  )
  np.testing.assert_allclose(got, want, rtol=1e-9)


def test_samples_of_a_mixture_are_known_by_their_modes():
  data = dfj.closed_form.mixture([0.5, 0.3, 0.2], [[0.0], [1.0], [30.0]], 1.0)
  samples = data.sample(jax.random.key(0), 20000)
  got = evaluation.mode_shares(samples, data)
  # two of the three overlap, and their responsibilities' means are the weights
  assert got.p_value > 0.01
  for share, weight in zip(got.shares, (0.5, 0.3, 0.2), strict=True):
    assert abs(share.value - weight) < 4 * share.standard_error
  np.testing.assert_allclose(got.expected, (0.5, 0.3, 0.2), rtol=1e-6)
  lost = evaluation.mode_shares(samples[samples[:, 0] < 15][:1000], data)
  assert lost.p_value < 1e-10 and lost.shares[2].value < 1e-9
  assert 0.0 < lost.shares[2].high < 0.01


def test_log_likelihood_of_own_draws_is_minus_the_entropy():
  data = dfj.closed_form.gaussian([1.0, -2.0], 0.5)
  samples = data.sample(jax.random.key(1), 4000)
  got = evaluation.log_likelihood(samples, data)
  want = -math.log(2 * math.pi * math.e * 0.25)
  assert abs(got.value - want) < 4 * got.standard_error < 0.1
  # a draw of the same law: KL is exactly 0
  log_p = data.log_prob(samples, dfj.levels.from_pair(1.0, 0.0))
  assert evaluation.kl(log_p, log_p) == (0.0, 0.0, 0.0, 0.0)
