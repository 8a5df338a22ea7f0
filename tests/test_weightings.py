"""Weightings: MATH.md 3.2, 3.4, 3.5, 3.7 and 3.12."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import (
  densities,
  losses,
  objectives,
  uncertainty,
  weightings,
)
from diffflow_jax.process import levels, schedules, targets

LAMBDA = np.linspace(-7.0, 9.0, 33)
FLOW, COSINE, VP = schedules.Flow(), schedules.Cosine(), schedules.VPLinear()


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
  "min_snr": (
    _mse(targets.eps, COSINE, log_omega=weightings.MinSNR(5.0)),
    2 * _P * np.minimum(1, 5 * _E),
    False,
  ),
  "soft_min_snr": (
    _mse(targets.eps, COSINE, log_omega=weightings.SoftMinSNR(5.0)),
    2 * _P * 5 / (5 + 1 / _E),
    False,
  ),
  "p2": (
    _mse(targets.eps, COSINE, log_omega=weightings.P2(1.0, 0.5)),
    2 * _P * (1 + 1 / _E) ** -0.5,
    False,
  ),
  "truncated_snr": (
    _mse(targets.eps, COSINE, log_omega=weightings.TruncatedSNR()),
    2 * _P * np.maximum(1, _E),
    True,
  ),
  "snr_plus_one": (
    _mse(targets.eps, COSINE, log_omega=weightings.SNRPlusOne()),
    2 * _P * (1 + _E),
    True,
  ),
  "sigmoid": (weightings.Sigmoid(2.0), _sig(2.0 - LAMBDA), True),
  "edm monotonic": (
    weightings.Monotonic(objectives.edm().weighting),
    None,
    True,
  ),
}
ALL = pytest.mark.parametrize("name", IMPLIED)


@ALL
def test_implied_weightings_are_their_closed_forms(name, x64):
  """MATH 3.2 and 3.4, constants included, and which are monotone."""
  weighting, want, falls = IMPLIED[name]
  log_w = np.asarray(weighting(jnp.asarray(LAMBDA)))
  if want is None:  # EDM above its peak, its maximum below
    fine = np.linspace(-20, 12, 320001)
    peak = _edm(fine).argmax()
    want = np.where(LAMBDA > fine[peak], _edm(LAMBDA), _edm(fine[peak]))
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
  """MATH 3.5: L_w = w(λmax) L(0) + ∫ dw/dt L(t) dt, on a Gaussian."""
  w = lambda l: np.exp(-l / 2)
  lam = np.linspace(-6.0, 7.0, 20001)
  mse = 0.36 * np.exp(lam) / (1 + 0.36 * np.exp(lam))  # mmse of eps
  step = lam[1] - lam[0]
  mid = 0.5 * (mse[1:] + mse[:-1])
  bound = np.concatenate([[0.0], 0.5 * np.cumsum(mid) * step])  # L at λ
  want = 0.5 * np.trapezoid(w(lam) * mse, lam)
  # dw/dt dt = dw over levels, from noise up: -w'(λ) dλ >= 0
  got = w(7.0) * bound[-1] + np.trapezoid(bound * 0.5 * w(lam), lam)
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_the_best_density_follows_the_second_moment(x64):
  """MATH 3.7: the estimator's variance is least at p ∝ w √E‖·‖⁴, and 3.1's
  mean does not move."""
  lam = np.linspace(-6, 6, 4001)
  step = lam[1] - lam[0]
  w, second = np.exp(-lam / 2), np.exp(-0.3 * (lam - 1) ** 2)
  moment = lambda p: np.sum((w / (2 * p)) ** 2 * second * p) * step
  norm = lambda p: p / (p.sum() * step)
  best = norm(w * np.sqrt(second))
  for other in (
    np.ones_like(lam),
    w,
    np.sqrt(second),
    best * (1 + 0.1 * lam**2),
  ):
    assert moment(best) < moment(norm(other))


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


def test_one_trace_and_gradients_through_weightings():
  """Every number of a weighting is a leaf; grad and vmap go through."""
  for make in (
    weightings.Sigmoid,
    weightings.MinSNR,
    weightings.SoftMinSNR,
    lambda c: weightings.P2(c, 0.5 * c),
    lambda c: weightings.Monotonic(_mse(
      targets.eps, COSINE, density=densities.Normal(c, 2.0)
    )),
    lambda c: _mse(targets.u, schedules.Flow(0.01 * c), levels.linear),
  ):  # fmt: skip
    traces = []

    def f(c, make=make, traces=traces):
      traces.append(1)
      return make(c)(jnp.array(2.7))

    g = jax.jit(jax.vmap(jax.value_and_grad(f)))
    value, slope = g(jnp.array([1.5, 1.51, 1.49]))
    g(jnp.array([1.1, 1.2, 1.3]))
    assert len(traces) == 1
    want = (value[1] - value[2]) / 0.02
    np.testing.assert_allclose(slope[0], want, rtol=0.02, atol=2e-4)


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
    (lambda: weightings.make("minsnr"), "unknown weighting 'minsnr': known"),
    (lambda: weightings.make("min_snr", g=5.0), "takes no 'g': its arguments"),
  ],
)
def test_bad_names_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
