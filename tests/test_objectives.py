"""Densities, weightings and losses: MATH.md 3.1 to 3.6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import densities, losses, objectives, weightings
from diffflow_jax.process import closed_form, levels, schedules, targets

DENSITIES = {
  "uniform_t_flow": densities.UniformTime(schedules.Flow()),
  "uniform_t_cosine": densities.UniformTime(schedules.Cosine()),
  "uniform_t_karras": densities.UniformTime(schedules.Karras()),
  "normal": densities.Normal(1.0, 2.0),
}
LAMBDA = np.linspace(-7.0, 9.0, 33)


@pytest.mark.parametrize("name", DENSITIES)
def test_log_prob_is_the_slope_of_the_quantile(name, x64):
  """p(λ(u)) |dλ/du| = 1, the slope by finite differences."""
  d, u, h = DENSITIES[name], np.linspace(0.02, 0.98, 25), 1e-6
  slope = (d.logsnr(u + h) - d.logsnr(u - h)) / (2 * h)
  p = np.exp(d.log_prob(d.logsnr(u)))
  np.testing.assert_allclose(p * np.abs(slope), 1.0, rtol=1e-6)


def test_densities_are_their_closed_forms(x64):
  """MATH 3.3: uniform t on flow and on cosine."""
  sech = lambda y: 1 / np.cosh(y)
  np.testing.assert_allclose(
    np.exp(DENSITIES["uniform_t_flow"].log_prob(LAMBDA)),
    sech(LAMBDA / 4) ** 2 / 8,
    rtol=1e-12,
  )
  np.testing.assert_allclose(
    np.exp(DENSITIES["uniform_t_cosine"].log_prob(LAMBDA)),
    sech(LAMBDA / 2) / (2 * np.pi),
    rtol=1e-12,
  )


def test_a_density_is_zero_outside_its_schedules_range():
  d = DENSITIES["uniform_t_karras"]
  assert np.all(np.isneginf(d.log_prob(jnp.array([-9.0, 13.0]))))


def test_uniforms_are_uniform_stratified_and_never_0_or_1():
  n = 128
  for seed in range(50):
    u = densities.uniforms(jax.random.key(seed), n)
    assert np.array_equal(np.sort(np.floor(u * n)), np.arange(n)), seed
    assert u.min() > 0 and u.max() < 1
  # each place of the batch sees all of (0, 1): data need not be shuffled
  draws = jax.vmap(lambda k: densities.uniforms(k, 4))(
    jax.random.split(jax.random.key(0), 4000)
  )
  assert np.abs(draws.mean(0) - 0.5).max() < 4 * np.sqrt(1 / 12 / 4000)
  assert np.abs(draws.var(0) - 1 / 12).max() < 0.01


def test_implied_weightings_are_their_closed_forms(x64):
  """MATH 3.4: u-MSE on flow, eps-MSE on cosine, EDM."""
  flow = objectives.flow_matching().weighting(LAMBDA)
  np.testing.assert_allclose(flow, -LAMBDA / 2, atol=1e-10)
  ddpm = np.exp(objectives.ddpm().weighting(LAMBDA))
  np.testing.assert_allclose(ddpm, 1 / np.cosh(LAMBDA / 2) / np.pi, rtol=1e-10)
  m, s, sd = -1.2, 1.2, 0.5
  normal = np.exp(-0.5 * ((LAMBDA + 2 * m) / (2 * s)) ** 2) / (
    2 * s * np.sqrt(2 * np.pi)
  )
  want = 2 * normal * (np.exp(-LAMBDA) + sd**2) / sd**2
  got = np.exp(objectives.edm(sd, m, s).weighting(LAMBDA))
  np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("name", ["flow_matching", "edm"])
def test_a_plain_mse_has_factor_one(name):
  """In its own output space, in float32, to both exact ends."""
  logsnr = jnp.array([-jnp.inf, -60.0, -30.0, -3.0, 0.0, 3.0, 30.0, jnp.inf])
  factor = jnp.exp(losses.log_factor(objectives.OBJECTIVES[name](), logsnr))
  np.testing.assert_allclose(factor, 1.0, rtol=1e-5)


def test_ddpms_factor_is_alpha_squared():
  """eps-MSE by a v network on vp: ‖eps - ε̂‖² = alpha² ‖v - v̂‖²."""
  logsnr = jnp.array([-10.0, -1.0, 0.0, 4.0])
  factor = jnp.exp(losses.log_factor(objectives.ddpm(), logsnr))
  np.testing.assert_allclose(factor, jax.nn.sigmoid(logsnr), rtol=1e-5)


def _wrong_network(objective, target, scale, schedule):
  """x̂ = 0.8 times the exact one, said in any target."""
  mix = closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5])

  def apply(params, z, logsnr, cond):
    lv = levels.at_logsnr(scale, logsnr, schedule)
    x_hat = 0.8 * mix(z, lv)[0]
    return targets.from_x_eps(target, *_both(x_hat, z, lv), lv)

  return apply, mix


def _both(x_hat, z, lv):
  a, s = (levels.bcast(c, z) for c in (lv.alpha, lv.sigma))
  return x_hat, (z - a * x_hat) / s


@pytest.mark.parametrize("scale", ["vp", "linear", "ve"])
def test_the_loss_is_the_same_for_every_target_and_scale(scale, x64):
  """One error in x̂, said in each output on each scale: one loss, each level."""
  base = objectives.flow_matching()
  scale = getattr(levels, scale)
  x = jnp.array([[0.4], [-0.9], [1.1]])
  eps, logsnr = jnp.array([[0.3], [1.2], [-0.5]]), jnp.array([-2.0, 0.5, 3.0])
  reference = None
  for target in targets.TARGETS.values():
    o = base.replace(target=target, scale=scale)
    apply, _ = _wrong_network(o, target, scale, o.schedule)
    terms = losses.terms_at(o, apply, {}, x, logsnr, eps)
    reference = terms if reference is None else reference
    np.testing.assert_allclose(terms.loss, reference.loss, rtol=1e-10)
    np.testing.assert_allclose(terms.eps_mse, reference.eps_mse, rtol=1e-10)
  want = (eps - _eps_hat(x, eps, logsnr, scale)) ** 2
  np.testing.assert_allclose(reference.eps_mse, want[:, 0], rtol=1e-10)


def _eps_hat(x, eps, logsnr, scale):
  lv = levels.at_logsnr(scale, logsnr)
  mix = closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5])
  z = levels.add_noise(x, eps, lv)
  return _both(0.8 * mix(z, lv)[0], z, lv)[1]


def test_the_expected_loss_does_not_depend_on_the_density(x64):
  """Any p, one weighting: 4 standard errors of the mean, and p matters not."""
  base = objectives.ddpm()
  n, means = 40000, {}
  for name, d in DENSITIES.items():
    if name == "uniform_t_karras":
      continue  # does not cover the weighting's range
    o = base.replace(density=d)
    apply, mix = _wrong_network(o, o.target, o.scale, o.schedule)
    x = mix.sample(jax.random.key(1), n)
    loss = losses.weighted_mse(o, apply, {}, jax.random.key(2), x).loss
    means[name] = (float(loss.mean()), float(loss.std()) / np.sqrt(n))
  (m0, e0), *rest = means.values()
  for m, e in rest:
    assert abs(m - m0) < 4 * np.hypot(e, e0), means
  # and it is L_w = ½ ∫ w E‖eps - ε̂‖² dλ by quadrature over λ
  lam = np.linspace(-16, 16, 161)
  apply, mix = _wrong_network(base, base.target, base.scale, base.schedule)
  x = mix.sample(jax.random.key(3), 4000)
  eps = jax.random.normal(jax.random.key(4), x.shape)
  mse = jnp.array(
    [
      losses.terms_at(base, apply, {}, x, jnp.full(4000, l), eps).eps_mse.mean()
      for l in lam
    ]
  )
  integral = 0.5 * np.sum(np.exp(base.weighting(lam)) * mse) * (lam[1] - lam[0])
  assert abs(integral - m0) < 4 * e0 + 0.02 * m0


def test_a_users_weighting_is_a_function_to_log_w():
  mine = lambda logsnr: jax.nn.log_sigmoid(2.0 - logsnr)
  o = objectives.flow_matching().replace(weighting=mine)
  logsnr = jnp.array([0.0, 3.0])
  got = losses.log_factor(o, logsnr) - losses.log_factor(
    o.replace(weighting=weightings.elbo), logsnr
  )
  np.testing.assert_allclose(got, mine(logsnr), atol=1e-6)


def test_an_output_of_the_wrong_shape_is_refused():
  with pytest.raises(ValueError, match=r"shape \(4, 3\), but x has \(4, 2\)"):
    losses.weighted_mse(
      objectives.flow_matching(),
      lambda p, z, l, c: jnp.zeros((4, 3)),
      {},
      jax.random.key(0),
      jnp.zeros((4, 2)),
    )
