"""Solvers against loops written from their papers and others' formulas.

Each loop is NumPy in float64 and knows nothing of tableaus; a tableau is run by
three lines of NumPy too. The denoiser is that of a mixture, not linear.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules
from diffflow_jax.sampling import compose, files, grids, solvers as so
from tests.test_solvers import uneven

WEIGHTS, MEANS, STDS = np.array([0.3, 0.7]), np.array([-1.0, 0.8]), (0.2, 0.5)
Z = np.linspace(-2.0, 2.0, 9)


def predict(z, alpha, sigma):
  """(x̂, ε̂) of the mixture at z (n,)."""
  var = (alpha * np.array(STDS)) ** 2 + sigma**2
  delta = z[:, None] - alpha * MEANS
  logits = np.log(WEIGHTS) - 0.5 * (delta**2 / var + np.log(var))
  share = np.exp(logits - logits.max(1, keepdims=True))
  pull = share / share.sum(1, keepdims=True) * delta / var
  x_hat = share @ MEANS / share.sum(1) + alpha * pull @ np.square(STDS)
  return x_hat, sigma * pull.sum(1)


def run(table, z, noise=None):
  """A tableau as its definition says."""
  anchor, h = z, [np.zeros_like(z)] * table.num_kept
  noise = np.zeros((len(table.mix), *z.shape)) if noise is None else noise
  for i, mix in enumerate(table.mix):
    anchor, z = mix @ np.stack([anchor, z, *h, noise[i]])
    if i < len(table.target):
      lv = table.levels
      x_hat, eps_hat = predict(z, lv.alpha[i], lv.sigma[i])
      h = [table.target[i] @ np.stack([x_hat, eps_hat]), *h[:-1]]
  return anchor


def drawn(table, seed=0):
  return np.random.default_rng(seed).normal(size=(len(table.mix), len(Z)))


def close(got, want):
  np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# k-diffusion: y on ve, D(y, sigma), noise sigma/alpha
SIGMAS = np.array([9.0, 4.0, 1.7, 0.6, 0.25, 0.0])
denoise = lambda y, sigma: predict(y, 1.0, sigma)[0]
slope = lambda y, sigma: (y - denoise(y, sigma)) / sigma


def ancestral_step(one, two, eta):
  up = min(two, eta * np.sqrt(two**2 * (one**2 - two**2) / one**2))
  return np.sqrt(two**2 - up**2), up


def kd_dpm_2(y, sigmas, xi, eta=None, s_churn=0.0):
  """sample_dpm_2, and with eta sample_dpm_2_ancestral."""
  for i, (one, two) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
    hat = one * (1 + min(s_churn / (len(sigmas) - 1), np.sqrt(2) - 1))
    if eta is None:
      y = y + xi[i] * np.sqrt(hat**2 - one**2)
    down, up = ancestral_step(hat, two, eta or 0.0)
    d = slope(y, hat)
    if down == 0:
      y = y + d * (down - hat)
      continue
    mid = np.exp(0.5 * (np.log(hat) + np.log(down)))
    y = y + slope(y + d * (mid - hat), mid) * (down - hat)
    if eta is not None:
      y = y + xi[i] * up
  return y


def kd_dpmpp_2s_ancestral(y, sigmas, xi, eta):
  for i, (one, two) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
    down, up = ancestral_step(one, two, eta)
    if down == 0:
      y = y + slope(y, one) * (down - one)
      continue
    t, t_next = -np.log(one), -np.log(down)
    h, s = t_next - t, 0.5 * (t + t_next)
    x_2 = np.exp(t - s) * y - np.expm1(-0.5 * h) * denoise(y, one)
    y = np.exp(-h) * y - np.expm1(-h) * denoise(x_2, np.exp(-s))
    y = y + xi[i] * up
  return y


def kd_dpmpp_sde(y, sigmas, xi, eta, r=0.5):
  """Its noises are increments of a Brownian path in sigma."""
  for i, (one, two) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
    old = denoise(y, one)
    if two == 0:
      y = y + (y - old) / one * (two - one)
      continue
    t, t_next = -np.log(one), -np.log(two)
    mid, fac = np.exp(-(t + r * (t_next - t))), 1 / (2 * r)
    first = np.sqrt(one - mid) * xi[i][0]
    second = first + np.sqrt(mid - two) * xi[i][1]
    down, up = ancestral_step(one, mid, eta)
    x_2 = down / one * y - np.expm1(np.log(down) - np.log(one)) * old
    x_2 = x_2 + first / np.sqrt(one - mid) * up
    new = (1 - fac) * old + fac * denoise(x_2, mid)
    down, up = ancestral_step(one, two, eta)
    y = down / one * y - np.expm1(np.log(down) - np.log(one)) * new
    y = y + second / np.sqrt(one - two) * up
  return y


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_k_diffusions_two_stage_solvers(eta):
  grid, y = grids.from_sigma(SIGMAS), 9.0 * Z
  for solver, loop in (
    (so.dpm_2_ancestral, kd_dpm_2),
    (so.dpmpp_2s_ancestral, kd_dpmpp_2s_ancestral),
  ):
    table = solver(grid, eta)
    xi = drawn(table)
    # the row after a step's last evaluation draws for it
    close(run(table, y, xi), loop(y, SIGMAS, xi[2::2], eta))
  for r in (0.5, 0.3):
    table = so.dpmpp_sde(grid, eta, r)
    xi = drawn(table)
    pairs = [*zip(xi[1::2], xi[2::2], strict=False), None]
    close(run(table, y, xi), kd_dpmpp_sde(y, SIGMAS, pairs, eta, r))


def test_k_diffusions_dpm_2_and_churn_before_it():
  grid, y = grids.from_sigma(SIGMAS), 9.0 * Z
  close(run(so.dpm_2(grid), y), kd_dpm_2(y, SIGMAS, np.zeros(9)))
  for s_churn in (0.7, 50.0):
    table = so.churned(grid, so.dpm_2, s_churn)
    xi = drawn(table)  # churn is drawn before a step's first evaluation
    starts = np.searchsorted(table.step_of_row, np.arange(5))
    want = kd_dpm_2(y, SIGMAS, xi[starts], s_churn=s_churn)
    close(run(table, y, xi), want)


@pytest.mark.parametrize("s_noise", [1.0, 1.01])
def test_churn_before_heun_is_edms_sampler(s_noise):
  grid, y = grids.from_sigma(SIGMAS), 9.0 * Z
  how = dict(s_churn=2.0, s_min=0.3, s_max=5.0, s_noise=s_noise)
  one = so.edm(grid, **how)
  two = so.churned(grid, functools.partial(so.heun, coordinate="sigma"), **how)
  xi = drawn(one)
  close(run(one, y, xi), run(two, y, xi))
  np.testing.assert_array_equal(one.step_of_row, two.step_of_row)


def test_churn_keeps_the_history_where_there_is_none():
  """A multistep solver starts anew at each noise alone."""
  grid, y = grids.from_sigma(SIGMAS), 9.0 * Z
  table = so.churned(grid, so.dpmpp_2m, 1.0, s_min=1.0, s_max=2.0)
  gamma = 1.0 / 5
  xi = drawn(table)
  head = run(so.dpmpp_2m(grids.from_sigma(SIGMAS[:3])), y)
  hat = np.array([1.7 * (1 + gamma), *SIGMAS[3:]])
  head = head + xi[2] * 1.7 * np.sqrt((1 + gamma) ** 2 - 1)
  want = run(so.dpmpp_2m(grids.from_sigma(hat)), head)
  close(run(table, y, xi), want)


def kd_lms(y, sigmas, order):
  """sample_lms with linear_multistep_coeff, its integrals exact."""
  ds = []
  for i, (one, two) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
    ds = [slope(y, one), *ds][:order]
    times = sigmas[i - len(ds) + 1 : i + 1][::-1]
    for j, d in enumerate(ds):
      others = np.delete(times, j)
      basis = np.poly1d(others, True) / np.prod(times[j] - others)
      integral = basis.integ()
      y = y + (integral(two) - integral(one)) * d
  return y


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_k_diffusions_lms(order):
  sigmas = np.append(np.geomspace(9.0, 0.2, 8), 0.0)
  table = so.adams_bashforth(grids.from_sigma(sigmas), order, "sigma")
  close(run(table, 9.0 * Z), kd_lms(9.0 * Z, sigmas, order))


# diffusers and the authors' code: alpha, sigma on vp, lambda = log(alpha/sigma)
GRID = uneven(7)
ALPHA, SIGMA, LAMBDA = GRID.alpha, GRID.sigma, np.log(GRID.alpha / GRID.sigma)
VP = lambda lam: (
  1 / np.sqrt(1 + np.exp(-2 * lam)),
  1 / np.sqrt(1 + np.exp(2 * lam)),
)


def multistep(step, z, xi=None, orders=None):
  """step(i, z, h, history of (x̂, ε̂, lambda), order, xi)."""
  history = []
  for i in range(7):
    history = [(*predict(z, ALPHA[i], SIGMA[i]), LAMBDA[i]), *history][:3]
    order = min(len(history), 9 if orders is None else orders[i])
    h = LAMBDA[i + 1] - LAMBDA[i]
    z = step(i, z, h, history, order, None if xi is None else xi[i])
  return z


def dpm_solver_step(i, z, h, history, order, _, kind):
  (_, m0, l0) = history[0]
  out = ALPHA[i + 1] / ALPHA[i] * z - SIGMA[i + 1] * np.expm1(h) * m0
  if order > 1:
    _, m1, l1 = history[1]
    d1 = (m0 - m1) / ((l0 - l1) / h)
    weight = {"midpoint": 0.5 * np.expm1(h), "heun": np.expm1(h) / h - 1}[kind]
    out = out - SIGMA[i + 1] * weight * d1
  return out


def dpmpp_step(i, z, h, history, order, xi, kind, eta=0.0):
  """2M, and SDE-2M whose h and noise are those of eta."""
  m0, _, l0 = history[0]
  big = h * (1 + eta**2)
  out = SIGMA[i + 1] / SIGMA[i] * np.exp(-(eta**2) * h) * z
  out = out - ALPHA[i + 1] * np.expm1(-big) * m0
  if order > 1:
    m1, _, l1 = history[1]
    d1 = (m0 - m1) / ((l0 - l1) / h)
    by = {"midpoint": -0.5 * np.expm1(-big), "heun": np.expm1(-big) / big + 1}
    out = out + ALPHA[i + 1] * by[kind] * d1
  if eta:
    out = out + SIGMA[i + 1] * np.sqrt(-np.expm1(-2 * eta**2 * h)) * xi
  return out


def dpmpp_third(i, z, h, history, order, xi, kind="midpoint"):
  """multistep_dpm_solver_third_order_update, second steps of `kind`."""
  if order < 3:
    return dpmpp_step(i, z, h, history, order, xi, kind)
  (m0, _, l0), (m1, _, l1), (m2, _, l2) = history
  r0, r1 = (l0 - l1) / h, (l1 - l2) / h
  d0, d1 = (m0 - m1) / r0, (m1 - m2) / r1
  first = d0 + r0 / (r0 + r1) * (d0 - d1)
  second = (d0 - d1) / (r0 + r1)
  at, e = ALPHA[i + 1], np.expm1(-h)
  out = SIGMA[i + 1] / SIGMA[i] * z - at * e * m0 + at * (e / h + 1) * first
  return out - at * ((e + h) / h**2 - 0.5) * second


LOWER = [min(3, 7 - i) for i in range(7)]
MIXED = [1, 2, 1, 2, 2, 1, 2]


@pytest.mark.parametrize("kind", ["midpoint", "heun"])
@pytest.mark.parametrize(
  "how,orders",
  [
    ({}, None),
    (dict(lower_order_final=True), LOWER),
    (dict(orders=MIXED), MIXED),
  ],
)
def test_multistep_solvers_of_diffusers(kind, how, orders):
  of = lambda step, **kw: functools.partial(step, kind=kind, **kw)
  noise, data, sde = {
    "midpoint": (so.dpm_solver_2m, so.dpmpp_2m, so.sde_dpmpp_2m),
    "heun": (so.dpm_solver_2m_heun, so.dpmpp_2m_heun, so.sde_dpmpp_2m_heun),
  }[kind]
  close(
    run(noise(GRID, **how), Z), multistep(of(dpm_solver_step), Z, None, orders)
  )
  close(run(data(GRID, **how), Z), multistep(of(dpmpp_step), Z, None, orders))
  table = sde(GRID, 0.8, **how)
  xi = drawn(table)
  want = multistep(of(dpmpp_step, eta=0.8), Z, xi[1:], orders)
  close(run(table, Z, xi), want)


@pytest.mark.parametrize("lower", [False, True])
def test_third_order_as_widely_copied(lower):
  table = so.dpmpp_3m_half(GRID, lower_order_final=lower)
  close(
    run(table, Z), multistep(dpmpp_third, Z, None, LOWER if lower else None)
  )


def test_orders_of_the_other_multistep_solvers():
  """An order held down everywhere is the solver of that order."""
  kept = dict(orders=[2] * 7)
  for one, two in (
    (so.dpmpp_3m(GRID, **kept), so.dpmpp_2m_heun(GRID)),
    (so.sde_dpmpp_3m(GRID, 0.0, **kept), so.dpmpp_2m_heun(GRID)),
    (so.unip(GRID, 3, **kept), so.unip(GRID, 2)),
    (so.unipc(GRID, 3, **kept), so.unipc(GRID, 2)),
    (so.deis(GRID, 3, **kept), so.deis(GRID, 2)),
    (
      so.deis(GRID, 3, coordinate="flow", **kept),
      so.deis(GRID, 2, coordinate="flow"),
    ),
    (so.adams_bashforth(GRID, 4, **kept), so.adams_bashforth(GRID, 2)),
    (so.dpmpp_2m(GRID, orders=[1] * 7), so.ddim(GRID)),
    (
      so.unipc(GRID, 3, lower_order_final=True),
      so.unipc(GRID, 3, orders=LOWER),
    ),
    (
      so.dpmpp_3m(GRID, True, lower_order_final=True),
      so.dpmpp_3m(GRID, True, orders=LOWER),
    ),
  ):
    close(run(one, Z), run(two, Z))


def single_step(z, kind, r1, r2=None):
  """singlestep_dpm_solver_second_update, …_third_update, of the data form."""
  for i in range(7):
    h = LAMBDA[i + 1] - LAMBDA[i]
    m_s, _ = predict(z, ALPHA[i], SIGMA[i])
    a1, s1 = VP(LAMBDA[i] + r1 * h)
    z_1 = s1 / SIGMA[i] * z - a1 * np.expm1(-r1 * h) * m_s
    m_1, _ = predict(z_1, a1, s1)
    at, e = ALPHA[i + 1], np.expm1(-h)
    ddim = SIGMA[i + 1] / SIGMA[i] * z - at * e * m_s
    if r2 is None:
      by = {"midpoint": -0.5 * e, "heun": e / h + 1}[kind]
      z = ddim + by / r1 * at * (m_1 - m_s)
      continue
    a2, s2 = VP(LAMBDA[i] + r2 * h)
    z_2 = s2 / SIGMA[i] * z - a2 * np.expm1(-r2 * h) * m_s
    z_2 = z_2 + r2 / r1 * a2 * (np.expm1(-r2 * h) / (r2 * h) + 1) * (m_1 - m_s)
    m_2, _ = predict(z_2, a2, s2)
    phi_2 = e / h + 1
    phi_3 = phi_2 / h - 0.5
    if kind == "midpoint":
      z = ddim + 1 / r2 * at * phi_2 * (m_2 - m_s)
      continue
    d0, d1 = (m_1 - m_s) / r1, (m_2 - m_s) / r2
    first = (r2 * d0 - r1 * d1) / (r2 - r1)
    z = ddim + at * phi_2 * first - at * phi_3 * 2 * (d1 - d0) / (r2 - r1)
  return z


@pytest.mark.parametrize("r1,r2", [(1 / 3, 2 / 3), (0.5, None), (0.2, 0.7)])
def test_singlestep_solvers_with_any_stages(r1, r2):
  for kind, two, three in (
    ("midpoint", so.dpmpp_2s, so.dpmpp_3s),
    ("heun", so.dpmpp_2s_heun, so.dpmpp_3s_heun),
  ):
    table = two(GRID, r1) if r2 is None else three(GRID, r1, r2)
    close(run(table, Z), single_step(Z, kind, r1, r2))


# SiT: alpha = 1 - t, sigma = t, w = ½ e²
FLOW = grids.uniform_t(schedules.Flow(), levels.linear, 6, t_start=0.9)
TIMES = np.linspace(0.9, 0.0, 7)


def sit(z, xi, e, heun, last):
  """transport.integrators.sde and its last step; e: (step, t) -> diffusion."""

  def drift(z, t, e):
    x_hat, eps_hat = predict(z, 1 - t, t)
    return eps_hat - x_hat + 0.5 * e**2 * eps_hat / t

  for i, (s, t) in enumerate(zip(TIMES[:-1], TIMES[1:], strict=True)):
    if i == 5:
      x_hat, eps_hat = predict(z, 1 - s, s)
      return {
        "mean": z + (t - s) * drift(z, s, e(i, s)),
        "tweedie": (z - s * eps_hat) / (1 - s),
        "euler": z + (t - s) * (eps_hat - x_hat),
      }[last]
    w = xi[i] * e(i, s) * np.sqrt(s - t)
    if heun:
      z = z + w
      k_1 = drift(z, s, e(i, s))
      k_2 = drift(z + (t - s) * k_1, t, e(i, t))
      z = z + 0.5 * (t - s) * (k_1 + k_2)
    else:
      z = z + (t - s) * drift(z, s, e(i, s)) + w
  raise AssertionError


ETAS = np.array([0.0, 0.5, 1.0, 1.3, 0.2, 0.9])


@pytest.mark.parametrize("last", ["euler", "mean", "tweedie"])
@pytest.mark.parametrize("heun", [False, True])
def test_sits_solvers_and_last_steps(heun, last):
  g = lambda t: np.sqrt(2 * t / (1 - t))
  solver = so.stochastic_heun if heun else so.euler_maruyama
  for how, e in (
    (dict(), lambda i, t: g(t)),
    (dict(eta=ETAS), lambda i, t: ETAS[i] * g(t)),
    (dict(epsilon=0.7), lambda i, t: 0.7),
    (dict(epsilon=lambda lv: lv.sigma), lambda i, t: TIMES[i]),
  ):
    table = solver(FLOW, last_step=last, **how)
    xi = drawn(table)
    drew = xi[0::2] if heun else xi[1:]  # Heun's noise comes first
    close(run(table, Z, xi), sit(Z, drew, e, heun, last))


def test_the_last_step_of_another_path():
  """On the angle "euler" is not x̂, and "tweedie" is."""
  grid = grids.uniform_t(schedules.Cosine(), levels.vp, 5, t_start=0.9)
  for solver in (so.euler_maruyama, so.stochastic_heun):
    table = solver(grid, coordinate="angle", last_step="tweedie")
    np.testing.assert_allclose(table.mix[-1, 0, :3], [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(table.target[-1], [1.0, 0.0], atol=1e-15)
    euler = solver(grid, coordinate="angle", last_step="euler")
    assert np.abs(run(euler, Z) - run(table, Z)).max() > 1e-3


@pytest.mark.parametrize("by", ["array", "function"])
def test_noise_by_step(by):
  """DDIM, ancestral, SDE and DDPM steps written out, each with its own eta."""
  etas = np.array([1.0, 0.0, 0.3, 0.9, 0.0, 0.5, 0.7])
  eta = etas if by == "array" else lambda lv: 0.8 * (lv.sigma > 0.5)
  each = etas if by == "array" else 0.8 * (SIGMA[:-1] > 0.5)
  h = np.diff(LAMBDA)
  fresh = -np.expm1(-2 * h)

  def steps(xi, keep, noise):
    z = Z
    for i in range(7):
      x_hat, eps_hat = predict(z, ALPHA[i], SIGMA[i])
      z = ALPHA[i + 1] * x_hat + SIGMA[i + 1] * (
        keep[i] * eps_hat + noise[i] * xi[i]
      )
    return z

  for solver, keep, noise in (
    (so.ddim, np.sqrt(1 - each**2 * fresh), each * np.sqrt(fresh)),
    (
      so.sde_dpmpp_1,
      np.exp(-(each**2) * h),
      np.sqrt(-np.expm1(-2 * each**2 * h)),
    ),
    (
      so.ddpm,
      np.exp(-h),
      (SIGMA[:-1] / SIGMA[1:]) ** each * np.sqrt(fresh),
    ),
  ):
    table = solver(GRID, eta)
    xi = drawn(table)
    close(run(table, Z, xi), steps(xi[1:], keep, noise))
  sigmas = SIGMAS[:-1]
  grid = grids.from_sigma(sigmas)
  eta = each[:4] if by == "array" else lambda lv: 0.4 * (lv.sigma > 1.0)
  each = each[:4] if by == "array" else 0.4 * (sigmas[:-1] > 1.0)
  table = so.dpm_2_ancestral(grid, eta)
  xi, y = drawn(table), 9.0 * Z
  want = y
  for i in range(4):
    want = kd_dpm_2(want, sigmas[i : i + 2], xi[2 * i + 2 :], each[i])
  close(run(table, y, xi), want)


@pytest.mark.parametrize(
  "solver",
  [
    so.ddim, so.euler_ancestral, so.ddpm, so.sde_dpmpp_1, so.sde_dpmpp_2m,
    so.sde_dpmpp_2m_heun, so.sde_dpmpp_3m, so.euler_maruyama,
    so.stochastic_heun, so.dpm_2_ancestral, so.dpmpp_2s_ancestral,
    so.dpmpp_sde, so.edm, functools.partial(so.langevin, 1, 0.1),
    lambda l, c: so.churned(l, "heun", c),
  ],
)  # fmt: skip
def test_one_number_is_the_same_for_each_step(solver):
  if isinstance(solver, functools.partial):
    solver = lambda l, e: so.langevin(l, 1, 0.1, e)
  one, *others = (
    solver(GRID, e) for e in (0.7, [0.7] * 7, lambda lv: 0.7 + 0.0 * lv.alpha)
  )
  for other in others:
    np.testing.assert_allclose(one.mix, other.mix, rtol=1e-14)
    np.testing.assert_allclose(one.target, other.target, rtol=1e-14)


def test_which_step_an_evaluation_belongs_to(tmp_path):
  """It survives padding, joining, restarts, and a file."""
  grid = grids.from_sigma(SIGMAS)
  steps = lambda table: np.asarray(table.step_of_row).tolist()
  heun = [0, 0, 1, 1, 2, 2, 3, 3, 4]
  assert steps(so.edm(grid)) == heun
  assert steps(so.ddim(grid)) == [0, 1, 2, 3, 4]
  assert steps(so.dpmpp_3s(grid))[-4:] == [3, 3, 3, 4]
  assert steps(so.adams_bashforth(grid, two_stage_start=True))[:3] == [0, 0, 1]
  assert steps(so.rk4(grid)) == np.repeat(range(5), 4).tolist()
  # corrections at the level where a step arrives are its own
  assert steps(so.langevin(grid, 2))[:5] == [0, 0, 0, 1, 1]
  assert steps(compose.pad(so.edm(grid), 11, 2)) == [*heun, 4, 4]
  both = compose.join(so.edm(grid[:4]), so.ddim(grid[3:]))
  assert steps(both) == [0, 0, 1, 1, 2, 2, 3, 4]
  again = compose.restart(grid, so.ddim, 1, 3, times=2)
  assert steps(again) == list(range(5 + 2 * 2))
  files.save(tmp_path / "table.npz", both)
  assert steps(files.load(tmp_path / "table.npz")) == steps(both)
  unknown = so.ddim(grid[:4]).replace(step_of_row=None)
  assert compose.join(unknown, so.ddim(grid[3:])).step_of_row is None
  files.save(tmp_path / "table.npz", unknown)
  assert files.load(tmp_path / "table.npz").step_of_row is None


BAD = [
  (lambda l: so.runge_kutta(l, [[]], [0.5]), "b must sum to 1, not 0.5"),
  (lambda l: so.runge_kutta(l, [[], [1, 1]], [0.5, 0.5]), "row 1 of a must"),
  (lambda l: so.runge_kutta(l, [[], [2]], [0.5, 0.5]), "rows of a must sum"),
  (lambda l: so.runge_kutta(l, [[]], [0.5, 0.5]), "a must have one row for"),
  (
    lambda l: so.runge_kutta(l, [[], [1]], [0.5, 0.5], c=[0, 0.5]),
    "c must be the sums of the rows",
  ),
  (lambda l: so.runge_kutta(l, [[], [np.nan]], [0, 1]), "row 1 of a must be"),
  (lambda l: so.runge_kutta(l, [[], ["x"]], [0, 1]), "row 1 of a must be fin"),
  (lambda l: so.runge_kutta(l, 2, [0, 1]), "numbers of b, .* not 2 alone"),
  (lambda l: so.runge_kutta(l, [[]], [1j]), "b must be finite numbers"),
  (lambda l: so.runge_kutta(l, [], []), "at least one, not 0"),
  (lambda l: so.ddim(l, lambda lv: np.ones(3)), "not float64 of shape .3,"),
  (lambda l: jax.jit(so.ddim)(l, jnp.ones(1)), "each of the 5 steps, not"),
  (
    lambda l: so.dpmpp_2m(l, lower_order_final="no"),
    "lower_order_final must be True or False, not 'no'",
  ),
  (
    lambda l: so.dpmpp_3m(l, two_stage_start="no"),
    "two_stage_start must be True or False, not 'no'",
  ),
  (
    lambda l: so.euler_maruyama(l, eta=0.5, epsilon=0.1),
    "give eta or epsilon, not both: eta is 0.5 and epsilon 0.1",
  ),
  (
    lambda l: so.stochastic_heun(l, 0.5, 0.1),
    "give eta or epsilon, not both",
  ),
  (lambda l: so.ddim(l, [0.1, 0.2]), "one number for each of the 5 steps"),
  (lambda l: so.ddim(l, [0.1, 0.2, -1, 0, 0]), "eta of step 2 must be finite"),
  (lambda l: so.sde_dpmpp_2m(l, lambda lv: -lv.sigma), "eta of step 0 must be"),
  (lambda l: so.ddim(l, [0, 9.0, 0, 0, 0]), "on this grid in step 1, not 9"),
  (lambda l: so.dpmpp_2m(l, orders=[1, 2]), "one integer for each of the 5"),
  (lambda l: so.dpmpp_2m(l, orders=[3] * 5), "orders must be 1 to 2"),
  (lambda l: so.unipc(l, orders=[0] * 5), "orders must be 1 to 2"),
  (
    lambda l: so.adams_bashforth(l, 5),
    "order must be one of 1, 2, 3, 4, not 5",
  ),
  (
    lambda l: so.euler_maruyama(l, last_step="Mean"),
    "last_step must be one of",
  ),
  (lambda l: so.dpmpp_3s_heun(l, 0.5, 0.5), "r1 and r2 must differ"),
  (lambda l: so.dpmpp_3s(l, 0.0), r"r1 must be in \(0, 1\]"),
  (lambda l: so.dpmpp_sde(l, r=1.0), r"r must be in \(0, 1\)"),
  (lambda l: so.churned(l, "dpm"), "solver is .dpm.; known: "),
  (lambda l: so.churned(l, "heun", -1.0), "s_churn must be finite"),
]


@pytest.mark.parametrize("make,message", BAD)
def test_bad_arguments_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make(grids.from_logsnr(np.linspace(-3, 3, 6)))


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda b: so.runge_kutta(FLOW, [[]], b), "b of a Butcher table must be"),
    (lambda o: so.dpmpp_2m(FLOW, orders=o), "orders must be concrete"),
  ],
)
def test_what_shapes_a_table_is_not_traced(make, message):
  with pytest.raises(TypeError, match=message):
    jax.jit(make)(jnp.ones(1))


def test_a_full_matrix_is_the_same_table():
  full = [[0, 0, 0], [0.5, 0, 0], [0, 0.75, 0]]
  one = so.runge_kutta(FLOW, full, [2 / 9, 1 / 3, 4 / 9], c=[0, 0.5, 0.75])
  np.testing.assert_array_equal(one.mix, so.bogacki_shampine(FLOW).mix)
