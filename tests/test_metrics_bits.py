"""Bits per dimension of data whose probabilities are known: EVAL E27 to E35."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import diffflow_jax as dfj
from diffflow_jax import evaluation
from diffflow_jax.evaluation import estimates

NORMAL = dfj.closed_form.gaussian([0.3], 1.5)
# EVAL E35: on alpha = 1 - t, sigma = t at t = 0.05, bins of 0.25
SMOOTH = dfj.closed_form.mixture([0.4, 0.6], [[-1.0], [1.5]], [0.5, 0.3])
T, WIDTH = 0.05, 0.25
LEVEL = dfj.levels.level(dfj.schedules.Flow(), dfj.levels.linear, jnp.array(T))
STD = T / (1.0 - T)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def fresh_draws():
  """Whatever ran before, a test draws the same."""
  global rng
  rng = np.random.default_rng(0)


def density(data, std=0.0):
  """log p of data + std eps, as the bounds take it."""
  lv = dfj.levels.from_pair(1.0, std)
  return lambda y, cond: data.log_prob(y, lv)


def mass(edges, weights, means, stds):
  """Probabilities of the bins between edges."""
  cdf = special.ndtr((edges[:, None] - np.array(means)) / np.array(stds))
  return np.diff(cdf @ np.array(weights))


def drawn(probabilities, values, num):
  """(x (num, 1) float32, index)."""
  index = rng.choice(len(values), num, p=probabilities / probabilities.sum())
  return values[index, None].astype(np.float32), index


def mean_is(draws, want, extra=0.0):
  error = draws.std() / math.sqrt(len(draws))
  assert abs(draws.mean() - want) < 4.5 * error + extra, (draws.mean(), error)


def normal_data(num):
  k = np.arange(-10, 12)
  p = mass(np.arange(-10.5, 12), [1.0], [0.3], [1.5])
  x, index = drawn(p, k, num)
  return x, -np.log2(p[index]), -(p * np.log2(p)).sum()


def test_uniform_dequantisation_and_its_importance_weights():
  x, exact, entropy = normal_data(40000)
  assert f"{entropy:.6f}" == "2.658292"
  excess = {1: 0.027200, 2: 0.013546, 4: 0.006681}
  for num, want in excess.items():
    got = evaluation.uniform_bits(
      density(NORMAL), x, 1.0, KEY, num_importance=num, batch_size=50000
    )
    mean_is(got.per_image - exact, want, 2e-5)
    assert (
      abs(got.total.value - entropy - want) < 4.5 * got.total.standard_error
    )
    assert got.per_image.mean() == got.total.value
    assert "upper bound" in got.of and "rounds" in got.of


def test_draws_tighten_nothing_but_the_noise():
  x, exact, _ = normal_data(4000)
  one, many = (
    evaluation.uniform_bits(
      density(NORMAL), x, 1.0, KEY, num_draws=r, batch_size=4000
    )
    for r in (1, 8)
  )
  mean_is(many.per_image - exact, 0.0272, 1e-4)
  spread = lambda b: (b.per_image - exact).std()
  assert spread(many) < 0.6 * spread(one)


def test_bits_do_not_depend_on_the_batch():
  x = rng.integers(0, 4, (30, 2, 2, 1)).astype(np.float32)
  flat = lambda y, cond: -0.5 * jnp.sum(y**2, (1, 2, 3)) + cond
  cond = np.arange(30.0, dtype=np.float32)
  for call in (
    lambda size: evaluation.uniform_bits(
      flat, x, 1.0, KEY, cond=cond, num_importance=3, batch_size=size
    ),
    lambda size: evaluation.truncated_normal_bits(
      flat, x, 1.0, 0.3, KEY, cond=cond, num_draws=2, batch_size=size
    ),
  ):
    whole, parts = call(30), call(15)
    np.testing.assert_allclose(parts.per_image, whole.per_image, rtol=1e-5)


def test_the_offset_is_minus_the_logarithm_of_the_bin():
  """EVAL E32: data on k/127.5 - 1 gain 6.99435 bits; scales drop out."""
  assert f"{-math.log2(2 / 255):.5f}" == "6.99435"
  k = rng.integers(0, 256, (200, 3)).astype(np.float32)
  flat = lambda y, cond: jnp.zeros(len(y))  # a density of 1
  got = evaluation.uniform_bits(flat, k / 127.5 - 1.0, 2 / 255, KEY)
  np.testing.assert_allclose(got.per_image, 6.99435, atol=1e-5)
  with pytest.raises(ValueError, match=r"width must be .* 2/255 .* but x lies"):
    evaluation.uniform_bits(flat, k / 127.5 - 1.0, 2 / 256, KEY)


def test_the_three_bounds_of_a_density_at_a_level():
  """EVAL E35, its table: nats of the smooth mixture at t = 0.05."""
  k = np.arange(-16, 17) * WIDTH
  edges = np.append(k - WIDTH / 2, k[-1] + WIDTH / 2)
  weights, means, stds = [0.4, 0.6], [-1.0, 1.5], np.array([0.5, 0.3])
  p = mass(edges, weights, means, stds)
  rounded = mass(edges, weights, means, np.hypot(stds, STD))
  entropy, cross = -(p * np.log(p)).sum(), -(p * np.log(rounded)).sum()
  assert (f"{entropy:.5f}", f"{cross:.5f}") == ("2.49667", "2.49680")
  x, index = drawn(p, k, 40000)
  exact = -np.log(rounded[index])
  log_p, nat = density(SMOOTH, STD), math.log(2.0)
  big = {"batch_size": 50000}
  for got, want in (
    (evaluation.uniform_bits(log_p, x, WIDTH, KEY, **big), 2.51721),
    (
      evaluation.truncated_normal_bits(log_p, x, WIDTH, STD, KEY, **big),
      2.72078,
    ),
    (evaluation.decoder_bits(log_p, x, k, STD, KEY, **big), 2.69504),
  ):
    # the exact part is known, so its noise is taken out
    mean_is(got.per_image * nat - exact, want - cross, 1e-4)


def test_the_density_of_a_flow_is_that_of_the_noisy_state():
  y = np.linspace(-2.0, 2.2, 12, dtype=np.float32)[:, None]
  got = evaluation.flow_density(SMOOTH, LEVEL, rtol=1e-5, atol=1e-5)(y, None)
  want = density(SMOOTH, STD)(y, None)
  np.testing.assert_allclose(got, want, atol=1e-3)
  # and no other's: of the data themselves, or of z before its scale
  assert np.abs(got - density(SMOOTH)(y, None)).max() > 0.05
  assert np.abs(got - SMOOTH.log_prob(y, LEVEL)).max() > 0.04
  for t in (0.0, 1.0):
    lv = dfj.levels.level(dfj.schedules.Flow(), dfj.levels.linear, jnp.array(t))
    with pytest.raises(ValueError, match="lv must be a level with alpha > 0"):
      evaluation.flow_density(SMOOTH, lv)


def test_a_model_that_knows_the_values_is_a_comb():
  """EVAL E30 and E31: 256 levels at logsnr 13.3."""
  values, width = 2 * (np.arange(256) + 0.5) / 256 - 1, 2 / 256
  std = math.exp(-13.3 / 2)

  def comb(y, cond):
    gap = (y - jnp.asarray(values, y.dtype)) / std
    normal = -0.5 * gap**2 - math.log(math.sqrt(2 * math.pi) * std)
    return jax.nn.logsumexp(normal, axis=1) - math.log(256)

  x = values[rng.integers(2, 254, 20000), None].astype(np.float32)
  big = {"batch_size": 20000}
  uniform = evaluation.uniform_bits(comb, x, width, KEY, **big)
  mean_is(uniform.per_image - 8.0, 0.858)
  cut = evaluation.truncated_normal_bits(comb, x, width, std, KEY, **big)
  want = -math.log2(special.erf(width / std / 8**0.5))
  assert f"{want:.4f}" == "0.0037"
  mean_is(cut.per_image - 8.0, want, 5e-4)
  decoded = evaluation.decoder_bits(comb, x, values, std, KEY, **big)
  mean_is(decoded.per_image, 8.0, 2e-3)


def sixteen_levels():
  """EVAL E33's data: (values, probabilities, their closed form, schedule)."""
  x = 2 * (np.arange(16) + 0.5) / 16 - 1
  p = np.diff(
    special.ndtr((np.append(x - 1 / 16, x[-1] + 1 / 16) - 0.1) / 0.35)
  )
  p /= p.sum()
  data = dfj.closed_form.mixture(p, x[:, None], 0.0)
  ends = -6.0, -2.0 * math.log(2 / 16 / 3)
  return x, p, data, dfj.schedules.LinearLogSNR(*ends)


def test_the_variational_bound_of_the_exact_denoiser():
  values, p, data, schedule = sixteen_levels()
  assert f"{-(p * np.log2(p)).sum():.6f}" == "3.497454"
  x, _ = drawn(p, values, 40000)
  got = evaluation.variational_bits(
    data, schedule, x, jnp.asarray(values, jnp.float32), KEY, batch_size=2000
  )
  total = got.total
  assert abs(total.value - 3.505710) < 4.5 * total.standard_error < 0.2
  terms = got.prior.value + got.diffusion.value + got.reconstruction.value
  np.testing.assert_allclose(total.value, terms)
  # with few steps it is larger, by more than the noise
  steps = evaluation.variational_bits(
    data, schedule, x, jnp.asarray(values, jnp.float32), KEY,
    batch_size=2000, num_steps=10,
  )  # fmt: skip
  assert steps.total.low > total.high


def test_the_error_of_the_variational_bound_is_one():
  """Against the spread of 400 repetitions; s/√num would be far too large."""
  values, p, data, schedule = sixteen_levels()
  draws = []
  for i in range(400):
    x, _ = drawn(p, values, 800)
    draws.append(
      evaluation.variational_bits(
        data, schedule, x, jnp.asarray(values, jnp.float32), jax.random.key(i)
      ).total
    )
  value, error, low, high = np.array(draws).T
  assert abs(np.sqrt((error**2).mean()) / value.std(ddof=1) - 1) < 0.15
  assert 0.92 <= ((low <= 3.505710) & (3.505710 <= high)).mean() <= 0.98


def test_intervals_of_bits_hold():
  x, _, entropy = normal_data(400 * 150)
  got = evaluation.uniform_bits(density(NORMAL), x, 1.0, KEY, batch_size=60000)
  _, _, low, high = np.array(
    [estimates.mean(part) for part in got.per_image.reshape(400, 150)]
  ).T
  truth = entropy + 0.0272
  assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.98


def test_too_few_images_for_batches():
  values, _, data, schedule = sixteen_levels()
  with pytest.raises(ValueError, match="at least 20 images for 10 batches"):
    evaluation.variational_bits(
      data, schedule, np.zeros((19, 1), np.float32), values, KEY
    )
