"""Weightings: MATH.md 3.2, 3.4, 3.5, 3.7 and 3.12."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import (
  densities,
  losses,
  objectives,
  omegas,
  uncertainty,
  weightings,
)
from diffflow_jax.process import gaussians, levels, schedules, targets

LAMBDA = np.linspace(-7.0, 9.0, 33)
FLOW, COSINE, VP = schedules.Flow(), schedules.Cosine(), schedules.VPLinear()
FM = objectives.flow_matching()


def _mse(target, schedule, scale=levels.vp, density=None, log_omega=None):
  density = densities.UniformTime(schedule) if density is None else density
  log_omega = weightings.elbo if log_omega is None else log_omega
  return weightings.TargetMSE(schedule, density, target, scale, log_omega)


def _sig(y):
  return 1 / (1 + np.exp(-y))


def _sech(y):
  return 1 / np.cosh(y)


def _root(lam):
  return np.sqrt(0.01 + 2 * 19.9 * np.logaddexp(0, -lam))


def _normal(x, mean, std):
  return np.exp(-0.5 * ((x - mean) / std) ** 2) / std / np.sqrt(2 * np.pi)


def _edm(lam, p_mean=-1.2, p_std=1.2, sd=0.5):
  p = _normal(lam, -2 * p_mean, 2 * p_std)
  return 2 * p * (np.exp(-lam) + sd**2) / sd**2


def _monotonic(*numbers):
  """EDM's above its peak, its maximum below."""
  fine = np.linspace(-20, 12, 320001)
  w = _edm(fine, *numbers)
  return np.where(LAMBDA > fine[w.argmax()], _edm(LAMBDA, *numbers), w.max())


_P = _sech(LAMBDA / 2) / (2 * np.pi)  # uniform t on cosine
_E = np.exp(-LAMBDA)
_T_VP = (_root(LAMBDA) - 0.1) / 19.9  # t(λ), from the row of λ̇ in 1.3
# name: (weighting, w as MATH 3.4 prints it, falling in logsnr)
IMPLIED = {
  "elbo": (weightings.elbo, np.ones(33), True),
  "eps vp_linear": (
    _mse(targets.eps, VP),
    2 * _sig(-LAMBDA) / _root(LAMBDA),
    False,
  ),
  "eps cosine": (_mse(targets.eps, COSINE), _sech(LAMBDA / 2) / np.pi, False),
  "eps flow": (_mse(targets.eps, FLOW), _sech(LAMBDA / 4) ** 2 / 4, False),
  "x cosine": (_mse(targets.x, COSINE), _E * _sech(LAMBDA / 2) / np.pi, True),
  "x flow": (_mse(targets.x, FLOW), _E * _sech(LAMBDA / 4) ** 2 / 4, True),
  "v cosine": (
    _mse(targets.v, COSINE),
    2 / np.pi * np.exp(-LAMBDA / 2),
    True,
  ),
  "v vp_linear": (_mse(targets.v, VP), 2 * _E / _root(LAMBDA), True),
  "u flow": (
    _mse(targets.u, FLOW, levels.linear),
    np.exp(-LAMBDA / 2),
    True,
  ),
  "u cosine": (
    _mse(targets.u, COSINE),
    np.pi / 2 * np.exp(-LAMBDA / 2),
    True,
  ),
  "u vp_linear": (_mse(targets.u, VP), (0.1 + 19.9 * _T_VP) / 2, True),
  "u sd3": (
    _mse(targets.u, FLOW, levels.linear, densities.logit_normal(0.3, 0.8)),
    2 * _normal(LAMBDA, -0.6, 1.6) * (1 + np.exp(-LAMBDA / 2)) ** 2,
    False,
  ),
  "u sd3 shifted": (
    _mse(targets.u, FLOW, levels.linear, densities.logit_normal(0.3, 0.8, 3.0)),
    2
    * _normal(LAMBDA, -0.6 - 2 * np.log(3), 1.6)
    * (1 + np.exp(-LAMBDA / 2)) ** 2,
    False,
  ),
  "u cosmap": (
    _mse(targets.u, FLOW, levels.linear, densities.cosmap()),
    _sech(LAMBDA / 2) / np.pi * (1 + np.exp(-LAMBDA / 2)) ** 2,
    True,
  ),
  "score flow": (
    _mse(targets.score, FLOW, levels.linear),
    2 * (_sech(LAMBDA / 4) ** 2 / 8) * (1 + np.exp(LAMBDA / 2)) ** 2,
    False,
  ),
  "F edm": (objectives.edm().weighting, _edm(LAMBDA), False),
  "F edm 2": (
    objectives.edm(0.7, -0.9, 1.4).weighting,
    _edm(LAMBDA, -0.9, 1.4, 0.7),
    False,
  ),
  "min_snr": (
    _mse(targets.eps, COSINE, log_omega=omegas.MinSNR(5.0)),
    2 * _P * np.minimum(1, 5 * _E),
    False,
  ),
  "soft_min_snr": (
    _mse(targets.eps, COSINE, log_omega=omegas.soft_min_snr(5.0)),
    2 * _P * 5 / (5 + 1 / _E),
    False,
  ),
  "soft_min_snr 2": (
    _mse(targets.eps, COSINE, log_omega=omegas.soft_min_snr(2.0)),
    2 * _P * 2 / (2 + 1 / _E),
    False,
  ),
  "p2": (
    _mse(targets.eps, COSINE, log_omega=omegas.P2(1.0, 0.5)),
    2 * _P * (1 + 1 / _E) ** -0.5,
    False,
  ),
  "p2 of k = 3": (
    _mse(targets.eps, COSINE, log_omega=omegas.P2(3.0, 0.7)),
    2 * _P * (3 + 1 / _E) ** -0.7,
    False,
  ),
  "truncated_snr": (
    _mse(targets.eps, COSINE, log_omega=omegas.TruncatedSNR()),
    2 * _P * np.maximum(1, _E),
    True,
  ),
  "snr_plus_one": (
    _mse(targets.eps, COSINE, log_omega=omegas.SNRPlusOne()),
    2 * _P * (1 + _E),
    True,
  ),
  "sigmoid": (weightings.Sigmoid(2.0), _sig(2.0 - LAMBDA), True),
  "edm monotonic": (
    weightings.Monotonic(objectives.edm().weighting),
    _monotonic(),
    True,
  ),
  "edm 2 monotonic": (
    weightings.Monotonic(objectives.edm(0.7, -0.9, 1.4).weighting),
    _monotonic(-0.9, 1.4, 0.7),
    True,
  ),
}
ALL = pytest.mark.parametrize("name", IMPLIED)


@ALL
def test_implied_weightings_are_their_closed_forms(name, x64):
  """MATH 3.2 and 3.4, constants included, and which are monotone."""
  weighting, want, falls = IMPLIED[name]
  log_w = np.asarray(weighting(jnp.asarray(LAMBDA)))
  np.testing.assert_allclose(np.exp(log_w), want, rtol=1e-8)
  assert bool(np.all(np.diff(log_w) <= 1e-12)) == falls


@pytest.mark.parametrize("target", targets.TARGETS)
@pytest.mark.parametrize("schedule", ["cosine", "flow"])
def test_the_gain_is_the_ratio_of_errors(schedule, target, x64):
  """MATH 3.2's table: ‖y - ŷ‖² = D²/alpha² ‖eps - ε̂‖², by moving x̂."""
  s = schedules.SCHEDULES[schedule]()
  row = targets.TARGETS[target]
  lv = levels.at_logsnr(levels.linear, LAMBDA, s)
  x, eps, off = 0.4, -0.7, 0.3
  z = lv.alpha * x + lv.sigma * eps
  eps_hat = (z - lv.alpha * (x + off)) / lv.sigma
  a, b = row(lv)
  dy = a * off + b * (eps_hat - eps)
  gain = weightings.log_gain(row, levels.linear, jnp.asarray(LAMBDA), s)
  np.testing.assert_allclose(
    np.exp(gain), (eps_hat - eps) ** 2 / dy**2, rtol=1e-9
  )


# name: (numbers, the same as IMPLIED has it by hand), of the v_diffusion recipe
BY_NAME = {
  "elbo": ({}, "elbo"),
  "sigmoid": ({"bias": 2.0}, "sigmoid"),
  "edm": ({"sigma_data": 0.7, "p_mean": -0.9, "p_std": 1.4}, "F edm 2"),
  "edm_monotonic": (
    {"sigma_data": 0.7, "p_mean": -0.9, "p_std": 1.4},
    "edm 2 monotonic",
  ),
  "sd3": ({"mean": 0.3, "std": 0.8, "shift": 3.0}, "u sd3 shifted"),
  "x_mse": ({}, "x cosine"),
  "eps_mse": ({}, "eps cosine"),
  "v_mse": ({}, "v cosine"),
  "own_mse": ({}, "v cosine"),  # it predicts v
  "u_mse": ({}, "u cosine"),
  "min_snr": ({"gamma": 5.0}, "min_snr"),
  "soft_min_snr": ({"gamma": 2.0}, "soft_min_snr 2"),
  "p2": ({"k": 3.0, "gamma": 0.7}, "p2 of k = 3"),
  "truncated_snr": ({}, "truncated_snr"),
  "snr_plus_one": ({}, "snr_plus_one"),
  "monotonic": ({}, "v cosine"),  # which falls
  "uncertainty": ({"num_channels": 8}, "v cosine"),  # where it starts
}


@pytest.mark.parametrize("name", weightings.WEIGHTINGS)
def test_weightings_by_name_are_their_closed_forms(name, x64):
  """Every name of the table, with the numbers that its signature says."""
  recipe = objectives.v_diffusion()
  if name not in BY_NAME:  # the other rows of MATH 3.2, by their determinants
    got = np.exp(weightings.make(name, recipe)(jnp.asarray(LAMBDA)))
    sigma2 = _sig(-LAMBDA)
    ratio = {"score": 1 / sigma2, "F": (0.25 + _E) / 0.25}[name[:-4]]
    np.testing.assert_allclose(got, 2 * _P * ratio, rtol=1e-8)
    return
  numbers, same = BY_NAME[name]
  taken = inspect.signature(weightings.WEIGHTINGS[name]).parameters
  assert set(numbers) <= set(taken)
  got = weightings.make(name, recipe, **numbers)(jnp.asarray(LAMBDA))
  want = np.log(IMPLIED[same][1])
  # a monotone one is flat within 1e-6 of its maximum
  np.testing.assert_allclose(got, want, atol=2e-6 if "mono" in name else 1e-8)


def test_the_numbers_that_are_not_said():
  """Hang et al.'s gamma = 5 is the default of both, and EDM2's 128 channels."""
  recipe = objectives.v_diffusion()
  made = lambda name, **numbers: weightings.make(name, recipe, **numbers)
  for name in ("min_snr", "soft_min_snr"):
    got, want = made(name)(LAMBDA), made(name, gamma=5.0)(LAMBDA)
    np.testing.assert_array_equal(got, want)
  assert made("uncertainty").weights.shape == (128,)
  assert made("uncertainty", num_channels=8).weights.shape == (8,)


def test_flow_matching_weighs_as_v_and_cosine(x64):
  """The identity of the field: w is the same up to π/2."""
  flow = objectives.flow_matching().weighting(LAMBDA)
  v = objectives.v_diffusion().weighting(LAMBDA)
  np.testing.assert_allclose(flow - v, np.log(np.pi / 2), atol=1e-10)


def test_min_snr_is_one_weighting_for_x_eps_and_v(x64):
  """x·min(SNR, γ) = eps·min(1, γ/SNR) = v·min(SNR, γ)/(SNR + 1)."""
  snr, gamma = lambda l: jnp.exp(l), 5.0
  capped = lambda l: jnp.log(jnp.minimum(snr(l), gamma))
  as_x = _mse(targets.x, COSINE, log_omega=capped)
  as_v = _mse(
    targets.v, COSINE, log_omega=lambda l: capped(l) - jnp.log(snr(l) + 1)
  )
  as_eps = IMPLIED["min_snr"][0]
  np.testing.assert_allclose(as_x(LAMBDA), as_eps(LAMBDA), atol=1e-11)
  np.testing.assert_allclose(as_v(LAMBDA), as_eps(LAMBDA), atol=1e-11)


def test_sigmoid_on_x_is_sid2s(x64):
  """e^b sig(λ - b) on x is sig(b - λ) on eps; truncated SNR is max(SNR, 1)."""
  on_x = np.exp(2.0) * _sig(LAMBDA - 2.0) * np.exp(-LAMBDA)
  np.testing.assert_allclose(
    np.exp(weightings.Sigmoid(2.0)(LAMBDA)), on_x, rtol=1e-12
  )
  as_x = _mse(
    targets.x, COSINE, log_omega=lambda l: jnp.log(jnp.maximum(jnp.exp(l), 1.0))
  )
  np.testing.assert_allclose(
    as_x(LAMBDA), IMPLIED["truncated_snr"][0](LAMBDA), atol=1e-11
  )


def test_u_mse_is_half_g_squared_and_likelihood_weighting(x64):
  """MATH 3.2: u with uniform t gives g²/2; score with omega = g²/2 gives 1."""
  from diffflow_jax.process import sde

  for s in (VP, FLOW, COSINE):
    lv = levels.at_logsnr(levels.vp, LAMBDA, s)
    half = sde.drift_diffusion(lv)[1] / 2
    w = np.exp(_mse(targets.u, s)(LAMBDA))
    np.testing.assert_allclose(w, half, rtol=1e-9)
    w = _mse(targets.score, s)(LAMBDA) + np.log(half)
    np.testing.assert_allclose(w, 0.0, atol=1e-9)


def test_a_falling_weighting_is_an_average_of_bounds(x64):
  """MATH 3.5 on a Gaussian: L_w = w(λmax) L(0) + ∫ dw(λ_t)/dt L(t) dt, with L
  the path KL of `Gaussian.path_kl` and dw/dλ of the library's weightings."""
  g = gaussians.gaussian([0.4], [[0.36]])
  x, low, high = jnp.array([[1.1]]), -6.0, 7.0
  nodes, weights = np.polynomial.legendre.leggauss(120)
  lam = jnp.asarray(low + 0.5 * (high - low) * (nodes + 1))
  weights = 0.5 * (high - low) * weights
  mse = jax.jit(jax.vmap(lambda l: g.eps_mse(x, l[None])[0]))(lam)
  path = lambda l: g.path_kl(x, low, l)[0]

  @jax.jit
  def both(weighting):
    w = lambda l: jnp.exp(weighting(l))
    dw = jax.vmap(jax.grad(w))(lam)  # from noise up in t: dw/dt dt = -dw/dλ dλ
    bounds = weights @ (-dw * jax.vmap(path)(lam))
    bounds += w(jnp.asarray(high)) * path(high)
    return 0.5 * weights @ (w(lam) * mse), bounds, dw

  for weighting in (_mse(targets.v, COSINE), weightings.Sigmoid(1.0)):
    loss, bounds, dw = both(weighting)
    assert np.all(dw < 0)
    np.testing.assert_allclose(loss, bounds, rtol=1e-9)


def test_the_best_density_follows_the_second_moment(x64):
  """MATH 3.7: of all densities the second moment E_p[factor² E‖·‖⁴] is least at
  p ∝ w √E‖·‖⁴, and 3.1's mean is the same for all: the error as a function of
  λ is given, the factor is the library's."""
  base, error = objectives.flow_matching(), lambda l: jnp.exp(-0.15 * (l - 1))
  spread = lambda l: error(l) * (1 + 0.5 * jnp.sin(l))  # √E‖·‖⁴ > mean or not
  fine = jnp.linspace(-8.95, 8.95, 180)
  # ‖eps - ε̂‖² is e^gain ‖y - ŷ‖²
  gain = lambda l: weightings.log_gain(base.target, base.scale, l, FLOW)
  best = densities.adaptive(180, -9.0, 9.0, floor=1e-9)
  share = jnp.exp(base.weighting(fine)) * spread(fine)
  best = best.replace(total=share, weight=jnp.ones(180))
  nodes = (np.arange(40000) + 0.5) / 40000

  def moments(density):
    o, lam = base.replace(density=density), density.logsnr(jnp.asarray(nodes))
    log_f = losses.log_factor(o, lam) - gain(lam)
    inside = jnp.abs(lam) < 8.9
    first = jnp.where(inside, jnp.exp(log_f) * error(lam), 0.0)
    second = jnp.where(inside, (jnp.exp(log_f) * spread(lam)) ** 2, 0.0)
    return float(first.mean()), float(second.mean())

  mean, least = moments(best)
  for other in (
    densities.uniform(-9.0, 9.0),
    densities.UniformTime(FLOW),
    densities.Normal(0.0, 4.0),
    best.replace(total=share * (1 + 0.1 * fine**2)),
  ):
    m, second = moments(other)
    np.testing.assert_allclose(m, mean, rtol=0.01)
    assert second > 1.001 * least


@ALL
def test_float32_weightings_to_high_and_low_noise(name):
  """|logsnr| = 30 and beyond: log w to 1e-5, nothing NaN."""
  weighting = IMPLIED[name][0]
  lam = np.float32([-60.0, -30.0, -12.0, -3.0, 0.3, 4.0, 12.0, 30.0, 60.0])
  wide = lambda d: jax.tree.map(lambda x: np.asarray(x, d), weighting)
  got = np.asarray(wide(np.float32)(jnp.asarray(lam)))
  with jax.enable_x64(True):
    want = np.asarray(wide(np.float64)(jnp.asarray(lam, np.float64)))
  assert not np.isnan(got).any()
  np.testing.assert_allclose(got, want, rtol=5e-7, atol=1e-5)


# of one number near 1, for every name of both tables that has numbers
BY_NUMBER = {
  "sigmoid": weightings.Sigmoid,
  "edm": lambda c: weightings.edm(0.5 * c, -1.2 * c, c),
  "edm_monotonic": lambda c: weightings.edm_monotonic(0.5 * c, -1.2 * c, c),
  "sd3": lambda c: weightings.sd3(c, c, 3.0 * c),
  "monotonic": lambda c: weightings.make("monotonic", objectives.edm(c)),
  "uncertainty": lambda c: uncertainty.Uncertainty(
    weightings.Sigmoid(c), c * jnp.linspace(-1.0, 1.0, 8)
  ),
  "p2": lambda c: weightings.make("p2", FM, k=c, gamma=0.5 * c),
  **{
    name: lambda c, name=name: weightings.make(name, FM, gamma=c)
    for name in ("min_snr", "soft_min_snr")
  },
  # those without numbers of their own: the recipe's
  **{
    name: lambda c, name=name: weightings.make(name, _recipe(c))
    for name in (
      "x_mse", "eps_mse", "v_mse", "u_mse", "score_mse", "truncated_snr",
      "snr_plus_one",
    )
  },
  "F_mse": lambda c: weightings.mse(_recipe(c), targets.F(c)),
  "own_mse": lambda c: weightings.make("own_mse", _recipe(c)),
  "elbo": None,
}  # fmt: skip


def _recipe(c):
  return objectives.flow_matching(0.01 * c)


@pytest.mark.parametrize("name", weightings.WEIGHTINGS)
def test_one_trace_and_gradients_through_weightings(name, x64):
  """Every number of a weighting is a leaf; grad and vmap go through."""
  make, traces = BY_NUMBER[name], []
  if make is None:  # w = 1
    return

  def f(c):
    traces.append(1)
    return make(c)(jnp.array(2.7))

  g = jax.jit(jax.vmap(jax.value_and_grad(f)))
  value, slope = g(jnp.array([1.0, 1.0 + 1e-5, 1.0 - 1e-5]))
  g(jnp.array([1.1, 1.2, 1.3]))
  assert len(traces) == 1
  want = (value[1] - value[2]) / 2e-5
  np.testing.assert_allclose(slope[0], want, rtol=1e-3, atol=1e-6)


def test_learned_uncertainty_finds_the_log_of_the_loss(x64):
  """MATH 3.12: the optimum of e^-u L + u is u = log L(λ), and then every
  level has the loss 1 + u and the weight 1/L."""
  log_loss = lambda l: 0.5 * jnp.sin(0.3 * l) - 0.2
  lam = jnp.linspace(-8.0, 8.0, 257)

  def mean_loss(weights):
    u = uncertainty.Uncertainty(weightings.elbo, weights).penalty(lam)
    return jnp.mean(jnp.exp(log_loss(lam) - u) + u)

  w = jnp.zeros(64)
  newton = jax.jit(
    lambda w: w - jnp.linalg.lstsq(
      jax.hessian(mean_loss)(w) + 1e-9 * jnp.eye(64), jax.grad(mean_loss)(w)
    )[0]
  )  # fmt: skip
  for _ in range(12):
    w = newton(w)
  learned = uncertainty.Uncertainty(weightings.elbo, w)
  np.testing.assert_allclose(learned.penalty(lam), log_loss(lam), atol=2e-3)
  np.testing.assert_allclose(learned(lam), -log_loss(lam), atol=2e-3)
  # one channel: √(2/num) cos(2π (f c_noise + phase)) of c_noise = -λ/8
  from scipy.special import ndtri

  one = uncertainty.Uncertainty(weightings.elbo, jnp.eye(4)[3])
  angle = ndtri(3.5 / 4) * -lam / 8 + (3 * 0.5 * (np.sqrt(5) - 1)) % 1
  want = np.sqrt(2 / 4) * np.cos(2 * np.pi * angle)
  np.testing.assert_allclose(one.penalty(lam), want, atol=1e-12)
  start = uncertainty.uncertainty(weightings.Sigmoid(1.0))
  np.testing.assert_allclose(start(lam), weightings.Sigmoid(1.0)(lam))


def test_the_penalty_is_in_the_loss_and_trains():
  """Through the objective: loss = e^-u (base loss) + u, with a gradient."""
  base = objectives.flow_matching()
  apply = lambda params, z, logsnr, cond: 0.5 * z
  x = jnp.array([[0.4], [-0.9], [1.1]])
  eps, lam = x[::-1] * 0.7, jnp.array([-2.0, 0.5, 3.0])
  plain = losses.terms_at(base, apply, {}, x, lam, eps)

  def loss(weighting):
    o = base.replace(weighting=weighting)
    return losses.terms_at(o, apply, {}, x, lam, eps).loss

  learned = uncertainty.uncertainty(base.weighting, 16)
  np.testing.assert_allclose(loss(learned), plain.loss, rtol=1e-6)
  moved = learned.replace(weights=jnp.linspace(-1.0, 1.0, 16))
  u = moved.penalty(lam)
  np.testing.assert_allclose(
    loss(moved), np.exp(-u) * plain.loss + u, rtol=1e-5
  )
  grad = jax.grad(lambda w: loss(w).mean())(moved).weights
  bump = 1e-2 * jnp.eye(16)[3]
  up, down = (moved.replace(weights=moved.weights + d) for d in (bump, -bump))
  want = (loss(up).mean() - loss(down).mean()) / 2e-2
  np.testing.assert_allclose(grad[3], want, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda: weightings.make("min_snr", gamma=5.0), "is one of a recipe: make"),
    (
      lambda: weightings.make("min_snr", FM, gamma=-1.0),
      "gamma must be > 0",
    ),
    (lambda: weightings.make("p2", FM, k=-1.0), "k must be > 0, not -1.0"),
    (
      lambda: FM.replace(weighting=omegas.MinSNR(5.0)),
      "MinSNR is a factor",
    ),
    (lambda: weightings.make("minsnr"), "unknown weighting 'minsnr': known"),
    (
      lambda: weightings.make("uncertainty", FM, num_channels=0),
      "num_channels must be an integer >= 1, not 0",
    ),
    (
      lambda: FM.replace(weighting="elbo"),
      r"weighting must be what make\('elbo'\) of its module gives, not the",
    ),
    (
      lambda: objectives.on_schedule(FM, schedules.Shift(FLOW, -1.0)),
      "Shift: factor must be > 0, not -1.0",
    ),
    (
      lambda: weightings.make("min_snr", FM, g=5.0),
      "takes no 'g': its arguments",
    ),
  ],
)
def test_bad_names_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
