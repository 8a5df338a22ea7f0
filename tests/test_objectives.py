"""Densities, weightings and losses: MATH.md 3.1 to 3.6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import densities, losses, objectives, weightings
from diffflow_jax.process import (
  closed_form,
  gaussians,
  levels,
  schedules,
  targets,
)
from tests.test_densities import DENSITIES

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


_T = np.array([0.1, 0.5, 0.9])


def _iddpm_logsnr(t, num=4000):
  """Nichol & Dhariwal eq. 17, betas clipped at 0.999, row k at k/(T - 1)."""
  bar = np.cos((np.arange(num + 1) / num + 0.008) / 1.008 * np.pi / 2) ** 2
  alpha_bar = np.cumprod(1 - np.minimum(1 - bar[1:] / bar[:-1], 0.999))
  rows = np.log(alpha_bar) - np.log1p(-alpha_bar)
  return np.interp(t * (num - 1), np.arange(num), rows)


def _truncated(t, image_size=64):
  low, high = (np.arctan(np.exp(s * 7.5)) for s in (-1, 1))
  shift = 2 * np.log(64 / image_size)
  return -2 * np.log(np.tan(low + t * (high - low))) + shift


def _normal(x, mean, std):
  return np.exp(-0.5 * ((x - mean) / std) ** 2) / std / np.sqrt(2 * np.pi)


_BETA = lambda t: 0.1 * t + 0.5 * 19.9 * t**2
_ANGLE = 2 / np.pi * (np.arctan(np.exp(7.5)) - np.arctan(np.exp(-7.5)))
_COSINE = lambda l: 1 / np.cosh(l / 2) / (2 * np.pi)
_SIG = lambda y: 1 / (1 + np.exp(-y))
_VP = lambda l: (np.sqrt(_SIG(l)), np.sqrt(_SIG(-l)))
_EPS = lambda a, s: (0 * a, 1 + 0 * a)
_V = lambda a, s: (-s, a)


def _cosine(t):
  return -2 * np.log(np.tan(np.pi / 2 * t))


def _flow(t):
  return 2 * np.log((1 - t) / t)


def _linear(l):
  return _SIG(l / 2), _SIG(-l / 2)


def _vp_sde_p(l):
  return _SIG(-l) / np.sqrt(0.01 + 2 * 19.9 * np.logaddexp(0, -l))


def _edm_scale(l):
  a = np.ones_like(l)
  norm = np.sqrt(0.25 + np.exp(-l))
  return a / norm, np.exp(-l / 2) / norm


def _edm_row(a, s):  # 1/c_out (x - c_skip y) on y = z/alpha
  sig, sd = s / a, 0.5
  c_skip, c_out = sd**2 / (sig**2 + sd**2), sig * sd / np.hypot(sig, sd)
  return (1 - c_skip) / c_out, -c_skip * sig / c_out


_EDM_P = lambda l: _normal(l, 2.4, 2.4)
# by the papers and MATH 1, 2 and 3.4: λ(t), (alpha, sigma) and row at a λ, p, w
PAPERS = {
  "vp_sde": (
    lambda t: -np.log(np.expm1(_BETA(t))),
    _VP, _EPS, _vp_sde_p, lambda l: 2 * _vp_sde_p(l),
  ),
  "iddpm": (_iddpm_logsnr, _VP, _EPS, None, None),
  "vdm": (
    lambda t: 13.3 - 18.3 * t,
    _VP, _EPS, lambda l: 1 / 18.3 + 0 * l, lambda l: 1 + 0 * l,
  ),
  "simple_diffusion": (
    _truncated, _VP, _V,
    lambda l: _COSINE(l) / _ANGLE, lambda l: 2 * _COSINE(l) / _ANGLE,
  ),
  "edm": (
    lambda t: -14 * np.log(
      0.002 ** (1 / 7) + t * (80 ** (1 / 7) - 0.002 ** (1 / 7))
    ),
    _edm_scale, _edm_row, _EDM_P,
    lambda l: 2 * _EDM_P(l) * (np.exp(-l) + 0.25) / 0.25,
  ),
  "v_diffusion": (
    _cosine, _VP, _V, _COSINE, lambda l: 2 / np.pi * np.exp(-l / 2),
  ),
  "stochastic_interpolant": (
    _cosine, _VP, lambda a, s: (-np.pi / 2 * s, np.pi / 2 * a), _COSINE,
    lambda l: np.pi / 2 * np.exp(-l / 2),
  ),
  "ve": (
    lambda t: -2 * np.log(0.01 * 5000**t),
    lambda l: (1 + 0 * l, np.exp(-l / 2)), _EPS,
    lambda l: 1 / (2 * np.log(5000)) + 0 * l,
    lambda l: 1 / np.log(5000) + 0 * l,
  ),
  "flow_matching": (
    _flow, _linear, lambda a, s: (-1 + 0 * a, 1 + 0 * a),
    lambda l: 1 / np.cosh(l / 4) ** 2 / 8, lambda l: np.exp(-l / 2),
  ),
  "sd3": (
    _flow, _linear, lambda a, s: (-1 + 0 * a, 1 + 0 * a),
    lambda l: _normal(l, 0, 2),
    lambda l: 2 * _normal(l, 0, 2) * (1 + np.exp(-l / 2)) ** 2,
  ),
  "sid2": (
    lambda t: _truncated(t) + 2 * ((1 - t) * np.log(0.5) + t * np.log(1 / 16)),
    _VP, _V, None, lambda l: _SIG(-3 - l),
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_recipes_have_their_papers_numbers(name, x64):
  """Every default number of a recipe, in five curves written from its paper."""
  logsnr, scale, row, p, w = PAPERS[name]
  o = RECIPES[name]()
  lam = logsnr(_T)
  np.testing.assert_allclose(o.schedule.logsnr(jnp.asarray(_T)), lam, atol=1e-8)
  lv = levels.at_logsnr(o.scale, jnp.asarray(lam), o.schedule)
  a, s = scale(lam)
  np.testing.assert_allclose([lv.alpha, lv.sigma], [a, s], rtol=1e-9)
  np.testing.assert_allclose(o.target(lv), row(a, s), rtol=1e-8, atol=1e-15)
  log_p, log_w = o.density.log_prob(lam), o.weighting(lam)
  if p is None:  # |dt/dλ|
    h = 1e-6
    p = lambda l: 2 * h / (logsnr(_T - h) - logsnr(_T + h))
  w = w or (lambda l: 2 * p(l))
  np.testing.assert_allclose(np.exp(log_p), p(lam), rtol=1e-6)
  np.testing.assert_allclose(np.exp(log_w), w(lam), rtol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_nan_at_exact_ends_and_beyond(name):
  """alpha = 0, sigma = 0 and |logsnr| = 200, in gain, weighting, factor, terms;
  and levels that a recipe never draws have weight 0."""
  o = RECIPES[name]()
  lam = jnp.array([-jnp.inf, -200.0, -60.0, 60.0, 200.0, jnp.inf])
  gain = weightings.log_gain(o.target, o.scale, lam, o.schedule)
  log_w, log_f = o.weighting(lam), losses.log_factor(o, lam)
  for said in (gain, log_w, log_f):
    assert not np.isnan(said).any()
  assert np.all(log_f < 80) and np.isfinite(gain).all()
  x = jnp.linspace(-1.0, 1.0, 6)[:, None]
  apply = lambda params, z, logsnr, cond: jnp.tanh(z)
  terms = losses.terms_at(o, apply, {}, x, lam, 0.7 + x)
  assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(terms))
  if name == "vdm":
    assert np.all(np.isneginf(log_f))


@pytest.mark.parametrize("name", ["edm", "flow_matching", "sid2"])
def test_float32_factors_with_another_density(name):
  """Combined factors at ±30 of a recipe, output and a density not its own: to
  1e-5, and to the rounding of log w and log p where these are far tails."""
  lam = np.float32([-30.0, -12.0, 0.3, 12.0, 30.0])
  laws = [
    densities.log_normal(),
    densities.logit_normal(),
    densities.uniform(-40.0, 40.0),
  ]
  rows = [targets.eps, targets.u, targets.F(0.5)]

  @jax.jit
  def said(o, laws, lam):
    others = [o.replace(target=y, density=p) for y in rows for p in laws]
    log_f = jnp.stack([losses.log_factor(other, lam) for other in others])
    log_p = jnp.stack([p.log_prob(lam) for _ in rows for p in laws])
    return log_f, o.weighting(lam), log_p

  wide = lambda d: jax.tree.map(lambda x: np.asarray(x, d), (o, laws, lam))
  o = RECIPES[name]()
  got, *_ = said(*wide(np.float32))
  with jax.enable_x64(True):
    want, log_w, log_p = said(*wide(np.float64))
  size = 1e-5 + 4e-7 * (np.abs(log_w) + np.abs(log_p))
  assert np.isfinite(want).all() and np.all(np.abs(got - want) < size)


def test_another_schedule_takes_the_uniform_times_along():
  """on_schedule: the clock and uniform times move, what is minimised does not,
  and a density that has no schedule stays."""
  learned = schedules.learned(jax.random.key(0), 4)
  o = objectives.on_schedule(objectives.vdm(), learned)
  assert o.schedule is learned and o.density.schedule is learned
  lam = jnp.array([-3.0, 0.0, 9.0])
  np.testing.assert_array_equal(o.weighting(lam), 0.0)
  edm = objectives.edm()
  o = objectives.on_schedule(edm, schedules.Flow())
  assert o.density == edm.density
  np.testing.assert_allclose(o.weighting(lam), edm.weighting(lam))


def test_a_learned_schedule_follows_the_bound_and_the_variance(x64):
  """MATH 1.16b: dL/dλmax = ½ E‖eps - ε̂‖² at that end, dL/d(inside) = 0, and
  descent on `losses.variance` between the ends leaves the bound and takes the
  variance down."""
  g, eps = gaussians.gaussian([0.4], [[0.36]]), jnp.ones((512, 1))
  x = jnp.full((512, 1), 1.1)
  u = (jnp.arange(512) + 0.5) / 512

  def apply(params, z, logsnr, cond):
    return g(z, levels.at_logsnr(levels.vp, logsnr))[1]

  def terms(schedule):
    """Both signs of eps: E‖eps - ε̂‖² is exact for a Gaussian."""
    o = objectives.on_schedule(objectives.vdm(), schedule)
    lam = o.density.logsnr(u)
    both = [losses.terms_at(o, apply, {}, x, lam, s * eps) for s in (1.0, -1.0)]
    return jax.tree.map(lambda a, b: 0.5 * (a + b), *both)

  start = schedules.learned(jax.random.key(0), 8)
  start = jax.tree.map(np.float64, start).replace(
    raw_out=jnp.linspace(-2, 1, 8)
  )

  @jax.jit
  def said(s):
    """The bound, its gradient, and the estimator's variance."""
    bound, grad = jax.value_and_grad(lambda s: terms(s).loss.mean())(s)
    return bound, grad, losses.variance(terms(s)) - bound**2

  bound, grad, spread = said(start)
  ends = [g.eps_mse(x[:1], jnp.array([l]))[0] for l in (13.3, -5.0)]
  np.testing.assert_allclose(grad.logsnr_max, 0.5 * ends[0], rtol=2e-3)
  np.testing.assert_allclose(grad.logsnr_min, -0.5 * ends[1], atol=2e-3)
  for leaf in (grad.raw_gain, grad.shift, grad.raw_out):
    np.testing.assert_allclose(leaf, 0.0, atol=2e-3)

  @jax.jit
  def step(s):
    g = jax.grad(lambda s: losses.variance(terms(s)))(s)
    inside = dict(raw_gain=g.raw_gain, shift=g.shift, raw_out=g.raw_out)
    return s.replace(
      **{name: getattr(s, name) - 0.05 * d for name, d in inside.items()}
    )

  end = jax.tree.map(jnp.asarray, start)
  for _ in range(80):
    end = step(end)
  after, _, less = said(end)
  np.testing.assert_allclose(after, bound, rtol=2e-3)
  assert less < 0.6 * spread
  assert (end.logsnr_min, end.logsnr_max) == (
    start.logsnr_min,
    start.logsnr_max,
  )


def test_a_users_functions_enter_jit_as_arguments():
  """Bare functions and plain objects: constants of the trace."""

  class Laplace:
    def logsnr(self, u):
      return -2.0 * jnp.sign(u - 0.5) * jnp.log(1 - 2 * jnp.abs(u - 0.5))

    def log_prob(self, logsnr):
      return -jnp.abs(logsnr) / 2.0 - jnp.log(4.0)

  traces, law = [], Laplace()
  midtones = lambda logsnr: -0.5 * (logsnr / 3.0) ** 2
  row = lambda lv: (
    0.5 * jnp.ones_like(lv.alpha),
    -0.5 * jnp.ones_like(lv.alpha),
  )

  @jax.jit
  def f(o, lam):
    traces.append(1)
    return losses.log_factor(o, lam)

  for sigma_min in (0.01, 0.02):
    o = objectives.flow_matching(sigma_min).replace(
      weighting=midtones, target=row, density=law
    )
    got = f(o, jnp.array([0.3]))
    want = midtones(0.3) - jnp.log(2.0) - law.log_prob(0.3)
    want += weightings.log_gain(row, o.scale, jnp.array([0.3]))
    np.testing.assert_allclose(got, want, rtol=1e-5)
  assert len(traces) == 1


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


# recipes of plain numbers, built inside of the trace
TRACED = {
  "ve": lambda c: objectives.ve(0.01 * c, 50.0),
  "vp_sde": lambda c: objectives.vp_sde(0.1 * c, 20.0 * c),
  "vdm": lambda c: objectives.vdm(-5.0 * c, 13.0 * c),
  "edm": lambda c: objectives.edm(0.5 * c, -1.2 * c, 1.2 * c),
  "flow_matching": lambda c: objectives.flow_matching(0.1 * c),
  "sd3": lambda c: objectives.sd3(c, c, 3.0 * c),
  "simple_diffusion": lambda c: objectives.simple_diffusion(64.0 * c, 64),
  "sid2": lambda c: objectives.sid2(64.0 * c, -3.0 * c),
}


@pytest.mark.parametrize("name", TRACED)
def test_a_recipes_own_numbers_do_not_retrace(name, x64):
  """jit, vmap and grad through the factory: one trace, and built outside of
  jit the recipe is an argument whose numbers are all leaves."""
  traces, make = [], TRACED[name]

  def loss(o):
    traces.append(1)
    x, eps = jnp.array([[0.4]]), jnp.array([[-0.7]])
    apply = lambda params, z, logsnr, cond: 0.3 * z
    terms = losses.terms_at(o, apply, {}, x, jnp.array([0.7]), eps)
    return terms.loss[0] + o.weighting(jnp.array(0.7))

  g = jax.jit(jax.vmap(jax.value_and_grad(lambda c: loss(make(c)))))
  value, slope = g(jnp.array([1.0, 1.0 + 1e-5, 1.0 - 1e-5]))
  g(jnp.array([1.1, 1.2, 1.3]))
  assert len(traces) == 1
  want = (value[1] - value[2]) / 2e-5
  np.testing.assert_allclose(slope[0], want, rtol=1e-3, atol=1e-6)
  outside = jax.jit(loss)
  got = [outside(make(c)) for c in (1.0, 1.1)]
  np.testing.assert_allclose(got[0], value[0], rtol=1e-9)
  assert len(traces) == 2 and got[0] != got[1]


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
  """MATH 3.1: E_p[w/(2p) E‖eps - ε̂‖²] = ½ ∫ w E‖eps - ε̂‖² dλ for every density
  of the library, by quadrature over its u, on a Gaussian's closed form; over
  the levels that all of them draw."""
  g, x = gaussians.gaussian([0.4], [[0.36]]), jnp.array([[1.1]])
  low, high = -4.0, 5.5
  base = objectives.v_diffusion()
  mse = jax.vmap(lambda l: g.eps_mse(x, l[None])[0])
  nodes, weights = np.polynomial.legendre.leggauss(100)
  lam = jnp.asarray(low + 0.5 * (high - low) * (nodes + 1))
  want = (
    0.25 * (high - low) * weights @ (np.exp(base.weighting(lam)) * mse(lam))
  )
  u = (jnp.arange(60000) + 0.5) / 60000

  @jax.jit
  def expected(o):
    lam = o.density.logsnr(u)
    gain = weightings.log_gain(o.target, o.scale, lam, o.schedule)
    factor = jnp.exp(losses.log_factor(o, lam) - gain)
    inside = (lam > low) & (lam < high)
    # where a density changes by row, its last draws inside may be half a node
    return jnp.mean(jnp.where(inside, factor * mse(lam), 0.0))

  for name, density in DENSITIES.items():
    got = expected(base.replace(density=jax.tree.map(np.float64, density)))
    np.testing.assert_allclose(got, want, rtol=2e-3, err_msg=name)


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


@pytest.mark.parametrize(
  "part,value,message",
  [
    (
      "density",
      object(),
      r"density must have log_prob\(logsnr\), which object",
    ),
    ("weighting", lambda logsnr: None, "weighting must return a number"),
  ],
)
def test_a_users_density_and_weighting_say_what_they_lack(part, value, message):
  mine = objectives.vdm().replace(**{part: value})
  with pytest.raises(TypeError, match=message):
    losses.log_factor(mine, jnp.zeros(3))
