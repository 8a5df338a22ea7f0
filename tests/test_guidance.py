"""Guidance and inverse problems, on closed forms: MATH.md 7."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import grids, guidance, introspection, solvers
from diffflow_jax.sampling.tableau import sample

KEY = jax.random.key(0)
GIVEN, NONE = (0.4, 0.6), (-1.0, 0.9)
Z = jnp.array([[0.3], [-0.2]])


def predict(z, lv, cond):
  """Class 9 is the unconditional one."""
  c, n = (closed_form.gaussian([m], s)(z, lv) for m, s in (GIVEN, NONE))
  pick = (cond == 9)[:, None]
  return tuple(jnp.where(pick, b, a) for a, b in zip(c, n, strict=True))


def pieces(lv):
  return (closed_form.gaussian([m], s)(Z, lv) for m, s in (GIVEN, NONE))


def mixed(lv, w):
  return tuple(b + w * (a - b) for a, b in zip(*pieces(lv), strict=True))


COND = jnp.array([0, 1])
LV = levels.at_logsnr(levels.vp, 0.4)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("scale", [levels.vp, levels.linear])
def test_guidance_is_linear_on_any_scale(batched, scale, x64):
  lv = levels.at_logsnr(scale, 0.4)
  got = guidance.Guided(predict, 9, 2.5, batched=batched)(Z, lv, COND)
  for g, want in zip(got, mixed(lv, 2.5), strict=True):
    np.testing.assert_allclose(g, want, atol=1e-14)
  np.testing.assert_allclose(lv.alpha * got[0] + lv.sigma * got[1], Z)


def test_strength_and_null_per_sample(x64):
  got = guidance.Guided(predict, 9, jnp.array([1.0, 0.0]))(Z, LV, COND)
  given, none = pieces(LV)
  np.testing.assert_allclose(got[0][0], given[0][0], atol=1e-14)
  np.testing.assert_allclose(got[0][1], none[0][1], atol=1e-14)
  # a negative condition per sample: where it is the condition itself, no change
  null = jnp.array([9, 1])
  got = guidance.Guided(predict, null, 3.0)(Z, LV, COND)
  np.testing.assert_allclose(got[0][0], mixed(LV, 3.0)[0][0], atol=1e-14)
  np.testing.assert_allclose(got[0][1], given[0][1], atol=1e-14)


def test_interval_is_in_logsnr(x64):
  guided = guidance.Guided(predict, 9, 3.0, interval=(0.0, 2.0))
  for logsnr, w in ((-0.1, 1.0), (0.0, 3.0), (1.9, 3.0), (2.0, 1.0)):
    for scale in (levels.vp, levels.ve):
      lv = levels.at_logsnr(scale, logsnr)
      got = guided(Z, lv, COND)
      np.testing.assert_allclose(got[0], mixed(lv, w)[0], atol=1e-14)


def test_autoguidance_uses_the_weaker_model(x64):
  good, weak = (closed_form.gaussian([m], s) for m, s in (GIVEN, NONE))
  got = guidance.Guided(good, strength=2.0, weak=weak)(Z, LV)
  np.testing.assert_allclose(got[0], mixed(LV, 2.0)[0], atol=1e-14)
  np.testing.assert_allclose(got[1], mixed(LV, 2.0)[1], atol=1e-14)


def test_rescale_restores_the_spread(x64):
  mean = jnp.array([[1.0, -1.0, 0.5, 2.0]])

  def wide(z, lv, cond):
    x = jnp.where((cond == 9)[:, None], 0.2 * mean, mean) + 0.0 * z
    return x, (z - lv.alpha * x) / lv.sigma

  z, cond = jnp.ones((1, 4)) * 0.3, jnp.array([0])
  plain = guidance.Guided(wide, 9, 4.0)(z, LV, cond)
  for phi in (0.0, 0.4, 1.0):
    got = guidance.Guided(wide, 9, 4.0, rescale=phi)(z, LV, cond)
    ratio = float(jnp.std(mean) / jnp.std(plain[0]))
    want = plain[0] * (phi * ratio + 1 - phi)
    np.testing.assert_allclose(got[0], want, atol=1e-13)
    np.testing.assert_allclose(
      LV.alpha * got[0] + LV.sigma * got[1], z, rtol=1e-5
    )
  np.testing.assert_allclose(jnp.std(got[0]), jnp.std(mean), rtol=1e-5)


def test_cfg_plus_plus_is_the_papers_step(x64):
  """z_t = α_t x̂_w + σ_t ε̂_null by `ddim`, two steps by hand."""
  grid = grids.from_logsnr([-1.0, 0.5, 2.0])
  guided = guidance.Guided(predict, 9, 0.6, plus_plus=True)
  got = sample(guided, solvers.ddim(grid), KEY, Z.shape, z=Z, cond=COND)
  z = Z
  for s, t in ((0, 1), (1, 2)):
    c, n = (predict(z, grid[s], k) for k in (COND, jnp.array([9, 9])))
    z = grid.alpha[t] * (n[0] + 0.6 * (c[0] - n[0])) + grid.sigma[t] * n[1]
  np.testing.assert_allclose(got, z, atol=1e-6)


def test_cfg_plus_plus_outside_its_interval_is_off(x64):
  """x̂ and ε̂ of the condition both: a pair that fits z."""
  guided = guidance.Guided(predict, 9, 0.6, interval=(0.0, 2.0), plus_plus=True)
  for logsnr, inside in ((-0.5, False), (1.0, True), (3.0, False)):
    lv = levels.at_logsnr(levels.vp, logsnr)
    x_hat, eps_hat = guided(Z, lv, COND)
    given, none = pieces(lv)
    want = mixed(lv, 0.6)[0] if inside else given[0]
    np.testing.assert_allclose(x_hat, want, atol=1e-14)
    np.testing.assert_allclose(eps_hat, (none if inside else given)[1])


def test_a_low_percentile_does_not_shrink():
  """Dynamic thresholding's s is at least the limit: inside it nothing moves."""
  x = jnp.array([[0.5, -0.9, 0.1, 0.0]])
  point = lambda z, lv, cond: (x, (z - lv.alpha * x) / lv.sigma)
  got = guidance.DynamicallyClipped(point, 50.0)(0.3 * jnp.ones((1, 4)), LV)
  np.testing.assert_allclose(got[0], x, rtol=1e-6)


def test_thresholding(x64):
  point = lambda z, lv, cond: (
    jnp.array([[0.5, -4.0, 1.5, 0.0]]),
    (z - lv.alpha * jnp.array([[0.5, -4.0, 1.5, 0.0]])) / lv.sigma,
  )
  z = jnp.ones((1, 4)) * 0.3
  got = guidance.Clipped(point)(z, LV)
  np.testing.assert_allclose(got[0], [[0.5, -1.0, 1.0, 0.0]])
  np.testing.assert_allclose(
    LV.alpha * got[0] + LV.sigma * got[1], z, rtol=1e-5
  )
  s = np.percentile([0.5, 4.0, 1.5, 0.0], 75.0)
  got = guidance.DynamicallyClipped(point, 75.0, limit=0.7)(z, LV)
  want = 0.7 * np.array([[0.5 / s, -1.0, 1.5 / s, 0.0]])
  np.testing.assert_allclose(got[0], want, rtol=1e-6)
  np.testing.assert_allclose(
    LV.alpha * got[0] + LV.sigma * got[1], z, rtol=1e-5
  )
  clean = levels.at_logsnr(levels.vp, jnp.inf)
  flat = lambda z, lv, cond: (3.0 * z, 0.0 * z)
  assert np.isfinite(guidance.Clipped(flat)(z, clean)[1]).all()


def test_measured_gives_the_gaussian_posterior(x64):
  """y = x_0 + noise for x ~ N(m, s²): Bayes by hand, on both coordinates."""
  m, s, noise, y = 0.4, 0.6, 0.3, 1.3
  first = lambda x: x[:, :1]
  grid = grids.from_logsnr(np.append(np.linspace(-12, 12, 300), np.inf))
  guided = guidance.Measured(
    closed_form.gaussian([m, m], s),
    jnp.full((41, 1), y),
    noise,
    data_std=s,
    forward=first,
  )
  z = jnp.linspace(-2, 2, 41)[:, None] * jnp.ones(2)
  z = z * grid.sigma[0]
  got = sample(guided, solvers.heun(grid), KEY, z.shape, z=z)
  var = 1 / (1 / s**2 + 1 / noise**2)
  mean = var * (m / s**2 + y / noise**2)
  np.testing.assert_allclose(
    got[:, 0], mean + np.sqrt(var) * z[:, 0], atol=4e-3
  )
  np.testing.assert_allclose(got[:, 1], m + s * z[:, 1], atol=4e-3)


def test_replacement_keeps_the_known_part():
  known = jnp.array([[0.7, 0.0]])
  mask = jnp.array([[1.0, 0.0]])
  model = guidance.Replaced(closed_form.gaussian([0.4, 0.4], 0.6), known, mask)
  grid = grids.uniform_t(schedules.Cosine(), levels.vp, 50)
  for table in (solvers.dpmpp_2m(grid), solvers.ddim(grid, 1.0)):
    x = sample(model, table, KEY, (500, 2))
    np.testing.assert_allclose(x[:, 0], 0.7, atol=1e-5)
    _, var = introspection.gaussian_moments(table, 0.4, 0.6)
    assert abs(float(x[:, 1].std()) - np.sqrt(var)) < 4 * 0.6 / np.sqrt(1000)
