"""SDE and ODE view: MATH.md 0.2, 0.3, 4.1 to 4.6, 6.1 to 6.3."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules, sde, targets
from diffflow_jax.sampling import solvers
from diffflow_jax.sampling.introspection import contributions
from tests.tables import SCALES, SCHEDULES

T = np.linspace(0.05, 0.95, 10)
Z = np.linspace(-2.0, 2.0, 9)[:, None]
MIX = dict(weights=[0.3, 0.7], means=[[-1.0], [1.2]], stds=[0.3, 0.5])


def _beta(t):
  return 0.1 + 19.9 * t


def test_f_and_g2_are_the_papers(x64):
  """MATH 6.3: VP beta, cosine π tan(πt/2), FM 2t/(1-t), VE 2 σ dσ."""
  at = lambda s, scale: sde.drift_diffusion(levels.level(s, scale, T))
  f, g2 = at(schedules.VPLinear(), levels.vp)
  np.testing.assert_allclose(f, -_beta(T) / 2, rtol=1e-10)
  np.testing.assert_allclose(g2, _beta(T), rtol=1e-10)
  f, g2 = at(schedules.Cosine(), levels.vp)
  np.testing.assert_allclose(g2, np.pi * np.tan(np.pi * T / 2), rtol=1e-10)
  f, g2 = at(schedules.Flow(), levels.linear)
  np.testing.assert_allclose(f, -1 / (1 - T), rtol=1e-12)
  np.testing.assert_allclose(g2, 2 * T / (1 - T), rtol=1e-12)
  f, g2 = at(schedules.Geometric(), levels.ve)
  sigma = 0.01 * 5000.0**T
  np.testing.assert_allclose(f, 0.0, atol=1e-12)
  np.testing.assert_allclose(g2, 2 * sigma**2 * np.log(5000.0), rtol=1e-10)


def _sigmoid(y):
  return 1.0 / (1.0 + np.exp(-y))


@pytest.mark.parametrize("scale", ["vp", "ve"])
def test_f_and_g2_at_the_data_are_the_papers(scale, x64):
  """Where sigma = 0 and its slope is infinite: sigma dsigma is not."""
  a, b, tau = -3.0, 3.0, 0.9  # alpha² of Sigmoid, its slope at both ends
  slope = lambda y: (b - a) / tau * _sigmoid(y) * _sigmoid(-y)
  whole = _sigmoid(b / tau) - _sigmoid(a / tau)
  theta = 0.5 * np.pi * 0.008 / 1.008
  for schedule, g2 in (
    (schedules.VPLinear(), 0.1),
    (schedules.OffsetCosine(), np.pi / 1.008 * np.tan(theta)),
    (schedules.Sigmoid(), slope(a / tau) / whole),
    (schedules.Cosine(), 0.0),
  ):
    got = sde.drift_diffusion(levels.level(schedule, SCALES[scale], 0.0))
    f = -0.5 * g2 if scale == "vp" else 0.0
    np.testing.assert_allclose(got, (f, g2), rtol=1e-9, atol=1e-20)
  end = levels.level(schedules.Sigmoid(), levels.vp, 1.0)
  want = 0.5 * slope(b / tau) / whole  # sigma = √(1 - alpha²), alpha = 0
  np.testing.assert_allclose(end.dsigma, want, rtol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_g2_is_minus_sigma2_times_the_slope_of_logsnr(scale, x64):
  """MATH 0.2 on every scale, with d(sigma²)/dt by finite differences."""
  s, c, h = schedules.Cosine(), SCALES[scale], 1e-6
  lv = levels.level(s, c, T)
  f, g2 = sde.drift_diffusion(lv)
  _, slope = jax.jvp(s.logsnr, (jnp.asarray(T),), (jnp.ones(len(T)),))
  np.testing.assert_allclose(g2, -(lv.sigma**2) * slope, rtol=1e-9)
  var = lambda t: levels.level(s, c, t).sigma ** 2
  dvar = (var(T + h) - var(T - h)) / (2 * h)
  np.testing.assert_allclose(g2, dvar - 2 * f * lv.sigma**2, rtol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_alpha_and_sigma_come_back_from_f_and_g(eta, x64):
  """MATH 6.1 forth and back, eta included."""
  alpha, sigma = sde.from_sde(lambda t: -_beta(t) / 2, _beta, jnp.asarray(T))
  lv = levels.level(schedules.VPLinear(), levels.vp, T)
  np.testing.assert_allclose(alpha, lv.alpha, rtol=1e-10)
  np.testing.assert_allclose(sigma, lv.sigma, rtol=1e-10)
  e = sde.noise_rate(lv, eta)
  np.testing.assert_allclose(sde.stochasticity(lv, e), eta, atol=1e-12)
  np.testing.assert_allclose(e**2, eta**2 * _beta(T), rtol=1e-9, atol=1e-12)
  # flow matching, whose g² grows without bound, and a noisy start
  f, g2 = lambda t: -1 / (1 - t), lambda t: 2 * t / (1 - t)
  got = sde.from_sde(f, g2, jnp.asarray(T[:-1]), start=0.2)
  np.testing.assert_allclose(got[0], 1 - T[:-1], rtol=1e-9)
  want = (1 - T[:-1]) * np.sqrt(0.04 + (T[:-1] / (1 - T[:-1])) ** 2)
  np.testing.assert_allclose(got[1], want, rtol=1e-8)


@pytest.mark.parametrize("scale", ["vp", "linear", "ve"])
def test_velocity_and_score_are_one_prediction(scale, x64):
  """MATH 4.3: u = f z - ½ g² s and back; in the lecture's time, MATH 4.6."""
  mix = closed_form.mixture(**MIX)
  lv = levels.level(schedules.Cosine(), SCALES[scale], 0.4)
  s = mix.score(Z, lv)
  u = targets.convert(s, Z, lv, targets.score, targets.u)
  f, g2 = sde.drift_diffusion(lv)
  np.testing.assert_allclose(u, f * Z - 0.5 * g2 * s, atol=1e-12)
  np.testing.assert_allclose(
    targets.convert(u, Z, lv, targets.u, targets.score), s, atol=1e-11
  )
  lec = levels.lecture_level(schedules.Cosine(), SCALES[scale], 0.6)
  u_lec = targets.convert(s, Z, lec, targets.score, targets.u)
  a, b, da, db = lec.alpha, lec.sigma, lec.dalpha, lec.dsigma
  want = (b**2 * da / a - db * b) * s + da / a * Z
  np.testing.assert_allclose(u_lec, want, atol=1e-12)
  np.testing.assert_allclose(u_lec, -u, atol=1e-12)


def test_the_marginal_field_moves_the_density(x64):
  """MATH 4.1: dp/dt + d(p u)/dz = 0, for the mixture, by differentiation."""
  mix, flow = closed_form.mixture(**MIX), schedules.Flow()

  def p(z, t):
    lv = levels.level(flow, levels.linear, t)
    return jnp.exp(mix.log_prob(z[None, None], lv))[0]

  def flux(z, t):
    lv = levels.level(flow, levels.linear, t)
    x_hat, eps_hat = mix(z[None, None], lv)
    return p(z, t) * targets.from_x_eps(targets.u, x_hat, eps_hat, lv)[0, 0]

  z, t = jnp.asarray(Z[:, 0]), 0.4
  dp = jax.jit(jax.vmap(jax.grad(p, 1), (0, None)))(z, t)
  dflux = jax.jit(jax.vmap(jax.grad(flux, 0), (0, None)))(z, t)
  np.testing.assert_allclose(dp, -dflux, atol=1e-12)


@pytest.mark.parametrize("noising", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("schedule", ["vp_linear", "flow", "cosine"])
def test_marginals_are_kept_for_every_eta(schedule, eta, noising, x64):
  """MATH 4.4 by moment equations: with dz = (A z + b) dt + e dw the Gaussian's
  variance has dV/dt = 2 A V ± e², and its mean dm/dt = A m + b."""
  g = closed_form.gaussian([0.4], 0.6)
  s, t, h = SCHEDULES[schedule], 0.4, 1e-6
  lv = levels.level(s, levels.vp, t)
  e = sde.noise_rate(lv, eta)
  move = lambda z: sde.drift(*g(z[None, None], lv), lv, e, noising)[0, 0]
  offset, slope = jax.value_and_grad(move)(jnp.zeros(()))
  up, down = (levels.level(s, levels.vp, t + d) for d in (h, -h))
  mean = lambda lv: lv.alpha * 0.4
  var = lambda lv: lv.alpha**2 * 0.36 + lv.sigma**2
  dmean = (mean(up) - mean(down)) / (2 * h)
  dvar = (var(up) - var(down)) / (2 * h)
  np.testing.assert_allclose(slope * mean(lv) + offset, dmean, atol=1e-7)
  # generation runs with dt < 0, so its noise counts as -e²
  noise = e**2 if noising else -(e**2)
  np.testing.assert_allclose(2 * slope * var(lv) + noise, dvar, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("schedule", ["vp_linear", "flow"])
def test_generation_in_the_lectures_time_keeps_the_marginals(
  schedule, eta, x64
):
  """MATH 4.4, third line, by moment equations in tau: dX = (u_lec + ½e²s) dtau
  + e dW has dV/dtau = 2 A V + e² and dm/dtau = A m + b, tau rising."""
  g = closed_form.gaussian([0.4], 0.6)
  s, tau, h = SCHEDULES[schedule], 0.6, 1e-6
  at = lambda tau: levels.level(s, levels.vp, 1 - tau)
  lv = at(tau)
  e = sde.noise_rate(lv, eta)
  move = lambda z: sde.lecture_drift(
    *g(z[None, None], lv), s, levels.vp, tau, e
  )[0, 0]
  offset, slope = jax.value_and_grad(move)(jnp.zeros(()))
  mean = lambda tau: at(tau).alpha * 0.4
  var = lambda tau: at(tau).alpha ** 2 * 0.36 + at(tau).sigma ** 2
  dmean = (mean(tau + h) - mean(tau - h)) / (2 * h)
  dvar = (var(tau + h) - var(tau - h)) / (2 * h)
  np.testing.assert_allclose(slope * mean(tau) + offset, dmean, atol=1e-7)
  np.testing.assert_allclose(2 * slope * var(tau) + e**2, dvar, atol=1e-6)
  # and term by term, u_lec from the lecture's own level
  lec = levels.lecture_level(s, levels.vp, tau)
  x_hat, eps_hat = g(jnp.asarray(Z), lv)
  u_lec = targets.from_x_eps(targets.u, x_hat, eps_hat, lec)
  want = u_lec + 0.5 * e**2 * g.score(jnp.asarray(Z), lv)
  got = sde.lecture_drift(x_hat, eps_hat, s, levels.vp, tau, e)
  np.testing.assert_allclose(got, want, atol=1e-12)


def test_eta_one_is_the_reverse_of_the_forward_process(x64):
  """drift = f z - ½ (1 + eta²) g² s of MATH 4.4; noising eta = 1 is f z."""
  mix = closed_form.mixture(**MIX)
  lv = levels.level(schedules.VPLinear(), levels.vp, 0.4)
  f, g2 = sde.drift_diffusion(lv)
  s, both = mix.score(Z, lv), mix(Z, lv)
  for eta in (0.0, 0.5, 1.0):
    got = sde.drift(*both, lv, sde.noise_rate(lv, eta))
    want = f * Z - 0.5 * (1 + eta**2) * g2 * s
    np.testing.assert_allclose(got, want, atol=1e-11)
  forward = sde.drift(*both, lv, sde.noise_rate(lv, 1.0), noising=True)
  np.testing.assert_allclose(forward, f * Z, atol=1e-11)


def test_conditional_fields_are_the_papers(x64):
  """MATH 4.5 in the lecture's time: VE, VP, CondOT, and alpha-beta form."""
  tau, x = 0.6, 0.7
  t = 1 - tau
  at = lambda s, scale: sde.conditional_field(
    Z, x, levels.lecture_level(s, scale, tau)
  )
  # VE: -(σ̇/σ)(y - x) at 1 - tau, and log-uniform has σ̇/σ = log(5000)
  np.testing.assert_allclose(
    at(schedules.Geometric(), levels.ve), -np.log(5000.0) * (Z - x), rtol=1e-12
  )
  # VP: (α̇/(1 - α²))(α y - x), all at 1 - tau
  alpha = np.exp(-0.5 * (0.1 * t + 0.5 * 19.9 * t * t))
  dalpha = -0.5 * _beta(t) * alpha
  np.testing.assert_allclose(
    at(schedules.VPLinear(), levels.vp),
    dalpha / (1 - alpha**2) * (alpha * Z - x),
    rtol=1e-10,
  )
  sm = 0.05
  np.testing.assert_allclose(
    at(schedules.Flow(sm), levels.CondOT(sm)),
    (x - (1 - sm) * Z) / (1 - (1 - sm) * tau),
    rtol=1e-12,
  )
  # (α̇ - (β̇/β) α) x + (β̇/β) y, and it is u at z = alpha x + sigma eps
  lec = levels.lecture_level(schedules.Cosine(), levels.vp, tau)
  rate = lec.dsigma / lec.sigma
  want = (lec.dalpha - rate * lec.alpha) * x + rate * Z
  got = sde.conditional_field(Z, x, lec)
  np.testing.assert_allclose(got, want, atol=1e-12)
  eps = (Z - lec.alpha * x) / lec.sigma
  np.testing.assert_allclose(got, lec.dalpha * x + lec.dsigma * eps, atol=1e-12)


def test_kappa_eta_and_churn_are_one_dial(x64):
  """MATH 6.2 and 0.3: a step of kappa = eta² h is DDIM to ell_t + kappa and the
  forward transition back to ell_t, σ²_{s|t} = σ_s² (1 - e^-2κ); it undoes the
  share c = κ/(h + κ), eta² = c/(1 - c); EDM's churn has gamma = e^κ - 1."""
  h, ell = 0.3, np.array([-0.4, -0.1])
  grid = levels.at_logsnr(levels.vp, 2 * jnp.asarray(ell))
  for share in (0.2, 0.5):  # ½ is DDPM
    eta = np.sqrt(share / (1 - share))
    kappa = share / (1 - share) * h
    over = levels.at_logsnr(levels.vp, 2 * (ell[1] + kappa))
    back = grid.alpha[1] / over.alpha
    said = contributions(solvers.sde_dpmpp_1(grid, eta))
    start = back * over.sigma / grid.sigma[0]  # DDIM at a constant x̂
    np.testing.assert_allclose(said["start"], start, rtol=1e-9)
    var = grid.sigma[1] ** 2 - (back * over.sigma) ** 2
    np.testing.assert_allclose(np.sum(said["noise"] ** 2), var, rtol=1e-9)
    forward = grid.sigma[1] ** 2 * -np.expm1(-2 * kappa)
    np.testing.assert_allclose(var, forward, rtol=1e-9)
  noisier = levels.at_logsnr(levels.ve, 2 * (ell[0] - h)).sigma
  gamma = np.expm1(h)
  np.testing.assert_allclose(noisier, (1 + gamma) * np.exp(-ell[0]))
