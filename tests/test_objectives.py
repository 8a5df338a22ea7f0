"""Densities, weightings and losses: MATH.md 3.1 to 3.6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import densities, losses, objectives, weightings
from diffflow_jax.process import closed_form, levels, schedules, targets

RECIPES = objectives.OBJECTIVES
# what a network's plain MSE is, in its own output space
PLAIN = [
  "ddpm",
  "iddpm",
  "ve",
  "vp_sde",
  "v_diffusion",
  "edm",
  "flow_matching",
  "stochastic_interpolant",
  "sd3",
]


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_mse_has_factor_one(name):
  """In its own output space, in float32, to both exact ends."""
  o = RECIPES[name]()
  logsnr = jnp.array([-jnp.inf, -60.0, -30.0, -3.0, 0.0, 3.0, 30.0, jnp.inf])
  lo, hi = np.sort(o.schedule.logsnr(jnp.array([0.0, 1.0])))
  covered = name in ("edm", "sd3") or (logsnr >= lo) & (logsnr <= hi)
  factor = np.exp(losses.log_factor(o, logsnr))
  np.testing.assert_allclose(factor[covered], 1.0, rtol=1e-5)


def test_an_eps_mse_by_a_v_network_has_factor_alpha_squared():
  """simple diffusion: ‖eps - ε̂‖² = alpha² ‖v - v̂‖² on vp."""
  logsnr = jnp.array([-10.0, -1.0, 0.0, 4.0])
  factor = jnp.exp(losses.log_factor(objectives.simple_diffusion(), logsnr))
  np.testing.assert_allclose(factor, jax.nn.sigmoid(logsnr), rtol=1e-5)


def test_vdm_is_half_the_range_of_logsnr():
  """w = 1 and p = 1/(λmax - λmin): the factor is half the range."""
  factor = jnp.exp(losses.log_factor(objectives.vdm(), jnp.array([-4.0, 9.0])))
  np.testing.assert_allclose(factor, 18.3 / 2, rtol=1e-5)


def test_sid2_is_its_equation_4(x64):
  """-dλ/dt e^b sig(λ - b) ‖x - x̂‖²/2, by a v network: x = alpha z - sigma v."""
  o, t, h = objectives.sid2(256, bias=-1.0), np.linspace(0.1, 0.9, 9), 1e-6
  lam = o.schedule.logsnr(t)
  rate = (o.schedule.logsnr(t - h) - o.schedule.logsnr(t + h)) / (2 * h)
  sig = lambda y: 1 / (1 + np.exp(-y))
  on_x = np.exp(-1.0) * sig(lam + 1.0)
  want = 0.5 * rate * on_x * sig(-lam)  # sigma² from x to v
  got = np.exp(losses.log_factor(o, jnp.asarray(lam)))
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_recipes_are_their_papers(x64):
  """Target, scale and clock of a level, in each paper's own words."""
  at = lambda o, t: levels.level(o.schedule, o.scale, jnp.asarray(t))
  o = objectives.flow_matching(0.05)
  lv = at(o, 0.3)
  np.testing.assert_allclose([lv.alpha, lv.sigma], [0.7, 0.335], rtol=1e-12)
  np.testing.assert_allclose(o.target(lv), [-1.0, 0.95], rtol=1e-12)
  np.testing.assert_allclose(np.exp(losses.log_factor(o, lv.logsnr)), 1.0)
  o = objectives.sd3(shift=3.0)
  t = 3 * 0.3 / (1 + 2 * 0.3)
  lv = at(o, 0.3)
  np.testing.assert_allclose([lv.alpha, lv.sigma], [1 - t, t], rtol=1e-12)
  np.testing.assert_allclose(o.target(lv), [-1.0, 1.0])
  # training draws the shifted times too
  np.testing.assert_allclose(
    o.density.mean, objectives.sd3().density.mean - 2 * np.log(3.0)
  )
  o = objectives.stochastic_interpolant()
  lv = at(o, 0.3)
  want = np.pi / 2 * np.array([-np.sin(0.15 * np.pi), np.cos(0.15 * np.pi)])
  np.testing.assert_allclose(o.target(lv), want, rtol=1e-12)
  o = objectives.ddpm()
  betas = np.linspace(1e-4, 0.02, 1000)
  k = np.array([0, 300, 999])
  lv = at(o, k / 999)
  np.testing.assert_allclose(lv.alpha**2, np.cumprod(1 - betas)[k], rtol=1e-9)
  o = objectives.simple_diffusion(256)
  cosine = objectives.v_diffusion().schedule
  lam = o.schedule.logsnr(0.5) - cosine.logsnr(0.5)
  np.testing.assert_allclose(lam, 2 * np.log(64 / 256), atol=1e-9)
  o = objectives.sid2(512)  # shifted from side 256 at the data, 32 at the noise
  np.testing.assert_allclose(
    o.schedule.logsnr(jnp.array([0.0, 1.0])),
    [15 + 2 * np.log(256 / 512), -15 + 2 * np.log(32 / 512)],
    atol=1e-9,
  )
  o = objectives.ve()
  np.testing.assert_allclose(at(o, 1.0).sigma, 50.0, rtol=1e-9)
  assert objectives.rectified_flow() == objectives.flow_matching()


@pytest.mark.parametrize("name", RECIPES)
def test_float32_factors_to_high_and_low_noise(name):
  """|logsnr| = 30 within the density's reach: 1e-5, and nothing NaN."""
  o = RECIPES[name]()
  u = np.float32([1e-4, 0.01, 0.2, 0.5, 0.8, 0.99, 0.9999])
  lam = np.concatenate([np.float32([-30.0, 30.0]), o.density.logsnr(u)])
  wide = lambda d: jax.tree.map(lambda x: np.asarray(x, d), o)
  got = np.asarray(losses.log_factor(wide(np.float32), jnp.asarray(lam)))
  with jax.enable_x64(True):
    want = losses.log_factor(wide(np.float64), jnp.asarray(lam, np.float64))
    want = np.asarray(want)
  on = np.isfinite(want)  # the others are outside of a bounded density
  assert on[2:].all()
  np.testing.assert_allclose(np.exp(got[on]), np.exp(want[on]), rtol=1e-5)


@pytest.mark.parametrize("name", RECIPES)
def test_one_trace_and_one_gradient_step(name):
  """A recipe is a pytree: it enters jit, its loss is finite and has a
  gradient, and new numbers in it do not retrace."""
  traces = []

  @jax.jit
  def step(o, w, key):
    traces.append(1)
    apply = lambda w, z, logsnr, cond: w * z
    x = jnp.linspace(-1.0, 1.0, 8)[:, None]
    loss = lambda w: losses.weighted_mse(o, apply, w, key, x).loss.mean()
    return jax.value_and_grad(loss)(w)

  o = jax.tree.map(jnp.asarray, RECIPES[name]())
  for seed in range(2):
    loss, grad = step(o, 0.3, jax.random.key(seed))
    assert np.isfinite(loss) and np.isfinite(grad) and loss > 0
    o = jax.tree.map(lambda leaf: leaf * 1.001, o)
  assert len(traces) == 1


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
  base = objectives.v_diffusion()
  n, means = 10000, {}
  for name, d in {
    "uniform_t_flow": densities.UniformTime(schedules.Flow()),
    "uniform_t_cosine": densities.UniformTime(schedules.Cosine()),
    "normal": densities.Normal(0.0, 4.0),
    "uniform": densities.uniform(-16.0, 16.0),
  }.items():
    o = base.replace(density=d)
    apply, mix = _wrong_network(o, o.target, o.scale, o.schedule)
    x = mix.sample(jax.random.key(1), n)
    loss = jax.jit(
      lambda x, o=o, apply=apply: (
        losses.weighted_mse(o, apply, {}, jax.random.key(2), x).loss
      )
    )(x)
    means[name] = (float(loss.mean()), float(loss.std()) / np.sqrt(n))
  (m0, e0), *rest = means.values()
  for m, e in rest:
    assert abs(m - m0) < 4 * np.hypot(e, e0), means
  # and it is L_w = ½ ∫ w E‖eps - ε̂‖² dλ by quadrature over λ
  lam = jnp.linspace(-16, 16, 161)
  apply, mix = _wrong_network(base, base.target, base.scale, base.schedule)
  x = mix.sample(jax.random.key(3), 2000)
  eps = jax.random.normal(jax.random.key(4), x.shape)

  @jax.jit
  def mse(l):
    terms = losses.terms_at(base, apply, {}, x, jnp.full(2000, l), eps)
    return terms.eps_mse.mean()

  integral = 0.5 * np.trapezoid(
    np.exp(base.weighting(lam)) * np.array([mse(l) for l in lam]), lam
  )
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
