"""The oracle, against quadrature and differentiation: MATH.md 9.1 to 9.4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels
from tests.tables import SCALES

MIX = dict(weights=[0.3, 0.7], means=[[-1.0], [1.2]], stds=[0.3, 0.5])
Z = np.linspace(-2.5, 2.5, 11)[:, None]


def _quadrature(z, lv):
  """E[x|z] and log p(z) by summing over a fine grid of x."""
  x = np.linspace(-8, 8, 40001)
  p = sum(
    w * np.exp(-0.5 * ((x - m[0]) / s) ** 2) / s / np.sqrt(2 * np.pi)
    for w, m, s in zip(*MIX.values(), strict=True)
  )
  a, s = float(lv.alpha), float(lv.sigma)
  like = np.exp(-0.5 * ((z - a * x) / s) ** 2) / s / np.sqrt(2 * np.pi)
  joint = like * p * (x[1] - x[0])
  return (joint * x).sum(1) / joint.sum(1), np.log(joint.sum(1))


@pytest.mark.parametrize("scale", SCALES)
def test_denoiser_and_density_match_quadrature(scale, x64):
  mix, lv = closed_form.mixture(**MIX), levels.at_logsnr(SCALES[scale], 0.7)
  x_hat, eps_hat = mix(Z, lv)
  want_x, want_log_p = _quadrature(np.asarray(Z), lv)
  np.testing.assert_allclose(x_hat[:, 0], want_x, atol=1e-10)
  np.testing.assert_allclose(mix.log_prob(Z, lv), want_log_p, atol=1e-10)
  np.testing.assert_allclose(
    lv.alpha * x_hat + lv.sigma * eps_hat, Z, atol=1e-13
  )


def test_score_is_the_gradient_of_log_prob(x64):
  mix, lv = closed_form.mixture(**MIX), levels.at_logsnr(levels.vp, 0.7)
  grad = jax.grad(lambda z: mix.log_prob(z, lv).sum())(Z)
  np.testing.assert_allclose(mix.score(Z, lv), grad, atol=1e-12)
  # Tweedie
  x_hat, eps_hat = mix(Z, lv)
  tweedie = (Z + lv.sigma**2 * grad) / lv.alpha
  np.testing.assert_allclose(x_hat, tweedie, atol=1e-12)
  np.testing.assert_allclose(eps_hat, -lv.sigma * grad, atol=1e-12)


def test_flow_map_follows_the_probability_flow_ode(x64):
  """MATH 9.4: RK4 on dz/dlogsnr = alpha' x̂ + sigma' ε̂ on vp, 400 steps."""
  mix = closed_form.mixture(**MIX)

  def slope(z, l):
    lv = levels.at_logsnr(levels.vp, l)
    x_hat, eps_hat = mix(z, lv)
    da = 0.5 * lv.alpha * lv.sigma**2
    ds = -0.5 * lv.sigma * lv.alpha**2
    return da * x_hat + ds * eps_hat

  grid = np.linspace(-4.0, 5.0, 401)
  z = Z
  for a, b in zip(grid[:-1], grid[1:], strict=True):
    h = b - a
    k1 = slope(z, a)
    k2 = slope(z + h / 2 * k1, a + h / 2)
    k3 = slope(z + h / 2 * k2, a + h / 2)
    z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(z + h * k3, b))
  start, end = (levels.at_logsnr(levels.vp, l) for l in (-4.0, 5.0))
  np.testing.assert_allclose(mix.flow(Z, start, end), z, atol=1e-8)


def test_flow_map_of_a_gaussian_is_affine(x64):
  g = closed_form.gaussian([0.4, -0.3], 0.6)
  start, end = (levels.at_logsnr(levels.linear, l) for l in (-3.0, 4.0))
  z = jnp.array([[0.3, 1.0]])
  v = lambda lv: lv.alpha**2 * 0.36 + lv.sigma**2
  m = np.array([0.4, -0.3])
  want = end.alpha * m + np.sqrt(v(end) / v(start)) * (z - start.alpha * m)
  np.testing.assert_allclose(g.flow(z, start, end), want, atol=1e-13)


def test_flow_map_keeps_both_tails(x64):
  """Two components that are one: the affine map, to 8 standard deviations."""
  two = closed_form.mixture([0.3, 0.7], [[0.4], [0.4]], [0.6, 0.6])
  start, end = (levels.at_logsnr(levels.vp, l) for l in (-4.0, 5.0))
  z = jnp.array([[-8.0], [-3.0], [3.0], [8.0]])
  want = closed_form.gaussian([0.4], 0.6).flow(z, start, end)
  np.testing.assert_allclose(two.flow(z, start, end), want, rtol=1e-9)


def test_exact_ends_are_finite():
  mix = closed_form.mixture(**MIX)
  for l in (-np.inf, np.inf):
    x_hat, eps_hat = mix(Z, levels.at_logsnr(levels.vp, l))
    assert np.isfinite(x_hat).all() and np.isfinite(eps_hat).all()


def test_sample_has_the_moments_of_the_mixture():
  n = 20000
  x = closed_form.mixture(**MIX).sample(jax.random.key(0), n)
  mean = 0.3 * -1.0 + 0.7 * 1.2
  var = 0.3 * (0.09 + 1.0) + 0.7 * (0.25 + 1.44) - mean**2
  assert abs(float(x.mean()) - mean) < 4 * np.sqrt(var / n)
  assert abs(float(x.var()) - var) < 4 * var * np.sqrt(2 / n)


def test_bad_means_are_refused():
  with pytest.raises(ValueError, match=r"means must be \(K, d\)"):
    closed_form.mixture([0.5, 0.5], [[0.0]], [1.0])
  wide = closed_form.mixture([0.5, 0.5], [[0.0, 0.0], [1.0, 0.0]], [1.0, 1.0])
  lv = levels.at_logsnr(levels.vp, 0.0)
  with pytest.raises(ValueError, match="one component or one dimension"):
    wide.flow(jnp.zeros((1, 2)), lv, lv)
  with pytest.raises(ValueError, match="are known for one dimension, not for"):
    wide.path_kl(jnp.zeros((1, 2)), -1.0, 1.0)
  with pytest.raises(ValueError, match="weights must be >= 0, not -0.5"):
    closed_form.mixture([0.5, -0.5], [[0.0], [1.0]], 1.0)
  with pytest.raises(ValueError, match="stds must be >= 0, not"):
    closed_form.mixture([0.5, 0.5], [[0.0], [1.0]], [1.0, -1.0])
