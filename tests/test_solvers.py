"""Every solver through the same properties: MATH.md 5 and 9."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import (
  compose,
  grids,
  introspection,
  solvers as so,
  tableau,
)
from tests.tables import SCALES, mix1d

KEY = jax.random.key(0)
COSINE_VP = (schedules.Cosine(), levels.vp)
FLOW_VP = (schedules.Flow(), levels.vp)


def with_(solver, **kwargs):
  return functools.partial(solver, **kwargs)


# name: (solver, order, evaluations of N steps from alpha = 0 to sigma = 0 or
# None where that start is refused, exact if x̂ is constant)
ONE = lambda n: n
DETERMINISTIC = {
  "ddim": (so.ddim, 1, ONE, True),
  "euler": (so.euler, 1, ONE, True),
  "euler_angle": (with_(so.euler, coordinate="angle"), 1, ONE, False),
  "euler_sigma": (with_(so.euler, coordinate="sigma"), 1, None, True),
  "euler_u": (with_(so.euler, coordinate=FLOW_VP), 1, ONE, False),
  "heun": (so.heun, 2, lambda n: 2 * n, True),
  "heun_angle": (
    with_(so.heun, coordinate=COSINE_VP),
    2,
    lambda n: 2 * n,
    False,
  ),
  "heun_sigma": (with_(so.heun, coordinate="sigma"), 2, None, True),
  "midpoint": (so.midpoint, 2, lambda n: 2 * n, True),
  "ralston": (so.ralston, 2, lambda n: 2 * n, True),
  "bogacki_shampine": (so.bogacki_shampine, 3, lambda n: 3 * n, True),
  "rk4": (so.rk4, 4, lambda n: 4 * n, True),
  "rk4_u": (with_(so.rk4, coordinate=FLOW_VP), 4, lambda n: 4 * n, False),
  "rk38": (so.rk38, 4, lambda n: 4 * n, True),
  "kutta_3": (  # a table of one's own
    with_(so.runge_kutta, a=[[], [1 / 2], [-1, 2]], b=[1 / 6, 2 / 3, 1 / 6]),
    3,
    lambda n: 3 * n,
    True,
  ),
  "edm": (so.edm, 2, None, True),
  "dpmpp_2s": (so.dpmpp_2s, 2, lambda n: 2 * n - 2, True),
  "dpmpp_2s_third": (with_(so.dpmpp_2s, r=1 / 3), 2, lambda n: 2 * n - 2, True),
  "dpmpp_2s_heun": (so.dpmpp_2s_heun, 2, lambda n: 2 * n - 2, True),
  "dpmpp_3s": (so.dpmpp_3s, 3, lambda n: 3 * n - 4, True),
  "dpmpp_3s_heun": (
    with_(so.dpmpp_3s_heun, r1=0.5),
    3,
    lambda n: 3 * n - 4,
    True,
  ),
  "dpmpp_3s_elsewhere": (  # order 3 needs r2 = 2/3
    with_(so.dpmpp_3s, r1=0.4, r2=0.9),
    2,
    lambda n: 3 * n - 4,
    True,
  ),
  "dpm_2": (so.dpm_2, 2, lambda n: 2 * n - 2, True),
  "dpm_solver_2m": (so.dpm_solver_2m, 2, ONE, True),
  "dpm_solver_2m_heun": (so.dpm_solver_2m_heun, 2, ONE, True),
  "dpmpp_2m": (so.dpmpp_2m, 2, ONE, True),
  "dpmpp_2m_started": (
    with_(so.dpmpp_2m, two_stage_start=True),
    2,
    None,
    True,
  ),
  "dpmpp_2m_heun": (so.dpmpp_2m_heun, 2, ONE, True),
  "dpmpp_3m": (with_(so.dpmpp_3m, two_stage_start=True), 3, None, True),
  "dpmpp_3m_half": (
    with_(so.dpmpp_3m_half, two_stage_start=True),
    2,
    None,
    True,
  ),
  "unip_2": (with_(so.unip, order=2), 2, ONE, True),
  "unip_2_bh1": (with_(so.unip, order=2, variant="bh1"), 2, ONE, True),
  "unipc_1": (with_(so.unipc, order=1), 2, ONE, True),
  "unipc_2": (with_(so.unipc, order=2), 3, ONE, True),
  "unipc_2_bh1": (with_(so.unipc, order=2, variant="bh1"), 3, ONE, True),
  "deis_2": (with_(so.deis, order=2), 2, ONE, True),
  "deis_3": (with_(so.deis, order=3, two_stage_start=True), 3, None, True),
  "deis_2_flow": (with_(so.deis, order=2, coordinate="flow"), 2, ONE, True),
  "deis_3_angle": (
    with_(so.deis, order=3, coordinate="angle", two_stage_start=True),
    3,
    None,
    True,
  ),
  "ab_2": (so.adams_bashforth, 2, ONE, True),
  "ab_3": (
    with_(so.adams_bashforth, order=3, two_stage_start=True),
    3,
    lambda n: n + 1,
    True,
  ),
  "ab_4": (
    with_(so.adams_bashforth, order=4, two_stage_start=True),
    4,
    lambda n: n + 1,
    True,
  ),
  "lms_2": (with_(so.adams_bashforth, coordinate="sigma"), 2, None, True),
  "ab_2_angle": (
    with_(so.adams_bashforth, coordinate="angle"),
    2,
    ONE,
    False,
  ),
}
# the order that a first step leaves; its share of the error may still be small
FIRST_STEP = {"ab_4": 3}
# what limits these to a lower or higher slope is said in their docstrings
STARTED_LOW = {
  "dpmpp_3m_ramp": so.dpmpp_3m,
  "unip_3": so.unip,
  "unipc_3": with_(so.unipc, order=3),
  "deis_3_ramp": so.deis,
  "ab_3_ramp": with_(so.adams_bashforth, order=3),
  "ab_4_ramp": with_(so.adams_bashforth, order=4),
}
# steps at which the leading term of the error is alone: the half-weighted 3M's
# error constant is small, and the angle's nodes crowd at both ends
SLOWLY = {"dpmpp_3m_half": (320, 640, 1280), "deis_3_angle": (160, 320, 640)}
# name: (solver of eta, the etas, order of the variance)
STOCHASTIC = {
  "ddim": (so.ddim, (0.5, 1.0), 1),
  "ddpm": (lambda l, v: so.ddpm(l, v), (0.0, 0.3, 1.0), 1),
  "edm": (lambda l, c: so.edm(l, s_churn=c), (1.0, 10.0), 2),
  "churned": (
    lambda l, c: so.churned(l, so.dpm_2, s_churn=c),
    (1.0, 10.0),
    2,
  ),
  "sde_dpmpp_1": (so.sde_dpmpp_1, (0.5, 1.0, 1.5), 1),
  "sde_dpmpp_2m": (so.sde_dpmpp_2m, (0.5, 1.0, 1.5), 2),
  "sde_dpmpp_2m_heun": (so.sde_dpmpp_2m_heun, (0.5, 1.0), 2),
  "sde_dpmpp_3m": (so.sde_dpmpp_3m, (0.5, 1.0), 2),
  "dpm_2_ancestral": (so.dpm_2_ancestral, (0.5, 1.0), 2),
  "dpmpp_2s_ancestral": (so.dpmpp_2s_ancestral, (0.5, 1.0), 2),
  "dpmpp_sde": (so.dpmpp_sde, (0.5, 1.0), 2),
  "euler_maruyama": (so.euler_maruyama, (0.5, 1.0), 1),
  "euler_maruyama_epsilon": (
    lambda l, e: so.euler_maruyama(l, epsilon=e, coordinate=COSINE_VP),
    (0.5, 1.0),
    1,
  ),
  "stochastic_heun": (so.stochastic_heun, (0.5, 1.0), 1),
}
ALL = {
  **{name: entry[0] for name, entry in DETERMINISTIC.items()},
  **STARTED_LOW,
  **{
    f"{name}_{eta:g}": functools.partial(lambda l, f, e: f(l, e), f=f, e=eta)
    for name, (f, etas, _) in STOCHASTIC.items()
    for eta in etas
  },
  "consistency": so.consistency,
  "adjusted_ddim": so.adjusted_ddim,
  "langevin": with_(so.langevin, num_corrections=2),
}


@functools.cache
def uneven(n, start=-4.0, end=5.0, scale="vp"):
  u = np.linspace(0, 1, n + 1)
  l = start + (end - start) * (u + 0.5 * np.sin(np.pi * u) ** 2 / np.pi)
  return grids.from_logsnr(l, SCALES[scale])


Z = np.linspace(-2, 2, 41)[:, None]


@functools.cache
def reference(start, end, scale="vp"):
  grid = uneven(1, start, end, scale)
  return np.asarray(mix1d().flow(Z * grid.sigma[0], grid[0], grid[-1]))


def run(table, start=None):
  """Through the padded form: one compilation for the whole file."""
  z = jnp.asarray(Z * table.start.sigma if start is None else start)
  padded = compose.pad(table, 1300, 4)
  return np.asarray(tableau.sample(mix1d(), padded, KEY, z.shape, z=z))


def slopes(solver, counts=(80, 160, 320)):
  errors = [
    np.abs(run(solver(uneven(n))) - reference(-4.0, 5.0)).max() for n in counts
  ]
  return np.log2(np.array(errors[:-1]) / errors[1:]), errors


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order(name, x64):
  """Slope of log-error against the exact nonlinear flow, MATH 9.4."""
  solver, order, *_ = DETERMINISTIC[name]
  counts = SLOWLY.get(name, (80, 160, 320))
  got, errors = slopes(solver, counts)
  assert np.all(np.abs(got - order) < 0.15), (errors, got)


# the solvers that take both exact ends as ordinary steps, and their order
WHOLE_WAY = {
  "heun": (so.heun, 2),
  "midpoint": (so.midpoint, 2),
  "ralston": (so.ralston, 2),
  "kutta_3": (DETERMINISTIC["kutta_3"][0], 3),
  "bogacki_shampine": (so.bogacki_shampine, 3),
  "rk4": (so.rk4, 4),
  "rk38": (so.rk38, 4),
  "ab_2": (so.adams_bashforth, 2),
  "ab_3": (DETERMINISTIC["ab_3"][0], 3),
}


@pytest.mark.parametrize(
  "coordinate,schedule,scale",
  [("flow", schedules.Flow(), "linear"), ("angle", schedules.Cosine(), "vp")],
)
@pytest.mark.parametrize("name", WHOLE_WAY)
def test_order_over_the_whole_way(name, coordinate, schedule, scale, x64):
  """From alpha = 0 to sigma = 0, and nothing is evaluated at sigma = 0."""
  solver, order = WHOLE_WAY[name]
  errors = []
  for n in (80, 160, 320):
    grid = grids.uniform_t(schedule, SCALES[scale], n)
    table = solver(grid, coordinate=coordinate)
    assert table.levels.sigma.min() > 0.0
    goal = np.asarray(mix1d().flow(Z, grid[0], grid[-1]))
    errors.append(np.abs(run(table) - goal).max())
  got = np.log2(np.array(errors[:-1]) / errors[1:])
  assert np.all(np.abs(got - order) < 0.2), (errors, got)


@pytest.mark.parametrize("name", WHOLE_WAY)
def test_a_data_point_is_reached_exactly_at_the_end(name, x64):
  """The velocity at sigma = 0 would leave noise there: see `butcher`."""
  solver, _ = WHOLE_WAY[name]
  grid = grids.uniform_t(schedules.Flow(), levels.linear, 6)
  out = introspection.gaussian_map(solver(grid), 0.7, 0.0)
  np.testing.assert_allclose([out["gain"], out["offset"]], [0, 0.7], atol=1e-12)


@pytest.mark.parametrize("name", STARTED_LOW)
def test_order_with_a_short_history_at_first(name, x64):
  """Between the first step's order 2 and the solver's own."""
  got, errors = slopes(STARTED_LOW[name], (160, 640))
  assert got[0] / 2 > 1.7 and errors[-1] < 3e-6, (errors, got)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_quadrature_order_conditions(name, x64):
  """The table alone shows the order: x̂ = r^k is integrated to order p."""
  solver, order, *_ = DETERMINISTIC[name]
  order = min(order, FIRST_STEP.get(name, order))
  few, many = (
    np.abs(introspection.order_conditions(solver(uneven(n)), 3))
    for n in (60, 120)
  )
  small = many < 1e-12
  assert np.all(small | (few / many > 2 ** (order - 0.25))), (few, many)


@pytest.mark.parametrize("name", ALL)
def test_the_sample_does_not_depend_on_the_grids_scale(name, x64):
  got = {}
  for scale in ("vp", "ve", "linear"):
    grid = uneven(12, scale=scale)
    out = run(ALL[name](grid))
    got[scale] = out / np.hypot(grid.alpha[-1], grid.sigma[-1])
  np.testing.assert_allclose(got["ve"], got["vp"], rtol=1e-9, atol=1e-9)
  np.testing.assert_allclose(got["linear"], got["vp"], rtol=1e-9, atol=1e-9)


def test_euler_on_u_depends_on_the_paths_scale(x64):
  """As MATH 5.1 says: only DDIM-type steps are free of it."""
  one, two = (
    run(so.euler(uneven(12), (schedules.Flow(), scale)))
    for scale in (levels.vp, levels.linear)
  )
  assert np.abs(one - two).max() > 1e-2


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_both_exact_ends(name, x64):
  """From alpha = 0 to sigma = 0: finite, accurate, and NFE is the rows."""
  solver, _, nfe, _ = DETERMINISTIC[name]
  n = 64
  for schedule, scale in ((schedules.Flow(), "linear"), COSINE_VP):
    scale = SCALES.get(scale, scale) if isinstance(scale, str) else scale
    grid = grids.uniform_t(schedule, scale, n)
    assert grid.alpha[0] == 0.0 and grid.sigma[-1] == 0.0
    if nfe is None:
      with pytest.raises(ValueError, match="alpha = 0"):
        solver(grid)
      grid = grids.uniform_t(schedule, scale, n, t_start=0.999)
    table = solver(grid)
    if nfe is not None:
      assert table.num_evaluations == nfe(n)
    assert all(np.isfinite(leaf).all() for leaf in (table.mix, table.target))
    mean, var = introspection.gaussian_moments(table, 0.4, 0.6)
    np.testing.assert_allclose(mean, 0.4, atol=0.02)
    np.testing.assert_allclose(np.sqrt(var), 0.6, atol=0.03)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_exact_for_constant_x_hat(name, x64):
  """A point mass is reached on any grid, or is not, as the table says."""
  solver, _, _, exact = DETERMINISTIC[name]
  grid = uneven(7)
  table = solver(grid)
  out = introspection.gaussian_map(table, 0.7, 0.0)
  gain = grid.sigma[-1] / grid.sigma[0]
  want = gain, grid.alpha[-1] * 0.7 - gain * grid.alpha[0] * 0.7
  error = np.abs(np.array([out["gain"], out["offset"]]) - want).max()
  assert error < 1e-12 if exact else error > 1e-6, error


@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_keep_the_moments_of_a_gaussian(name, x64):
  """Mean and variance by the linear recursion: no Monte-Carlo error."""
  solver, etas, order = STOCHASTIC[name]
  m, s = 0.4, 0.6
  for eta in etas:
    errors = []
    for n in (200, 400, 800):
      grid = grids.from_logsnr(np.linspace(-5, 6, n + 1))
      table = solver(grid, eta)
      assert np.abs(introspection.contributions(table)["noise"]).sum() > 0.01
      mean, var = introspection.gaussian_moments(table, m, s)
      want = (grid.alpha[-1] * s) ** 2 + grid.sigma[-1] ** 2
      errors.append([abs(mean / (grid.alpha[-1] * m) - 1), abs(var / want - 1)])
    errors = np.array(errors)
    if name in (
      "edm",
      "churned",
    ):  # churn of s_churn/N is eta² h with eta fixed
      assert np.isfinite(errors).all()
    got = np.log2(errors[:-1, 1] / errors[1:, 1])
    assert np.all(np.abs(got - order) < 0.15), (eta, errors, got)
    assert errors[-1].max() < 0.02, (eta, errors)


def test_more_noise_forgets_the_start(x64):
  grid = grids.from_logsnr(np.linspace(-5, 6, 101))
  start = [
    abs(introspection.gaussian_map(so.sde_dpmpp_1(grid, e), 0.0, 0.6)["gain"])
    for e in (0.0, 0.5, 1.0, 2.0)
  ]
  assert np.all(np.diff(start) < 0) and start[-1] < 0.1 * start[0]


@pytest.mark.parametrize("schedule", [schedules.Flow(), schedules.Cosine()])
def test_stochastic_solvers_at_both_exact_ends(schedule, x64):
  grid = grids.uniform_t(schedule, levels.linear, 400)
  for name, (solver, etas, _) in STOCHASTIC.items():
    if name == "edm":
      continue
    table = solver(grid, etas[-1])
    assert np.isfinite(table.mix).all() and np.isfinite(table.target).all()
    assert np.all(table.mix[-1, :, -1] == 0.0), name  # no noise in the data
    mean, var = introspection.gaussian_moments(table, 0.4, 0.6)
    np.testing.assert_allclose(mean, 0.4, atol=0.03, err_msg=name)
    np.testing.assert_allclose(np.sqrt(var), 0.6, atol=0.03, err_msg=name)


def test_stochastic_samples_have_those_moments():
  """The same by sampling: the noise that the scan draws is N(0, I)."""
  mix = closed_form.gaussian([0.4], 0.6)
  grid = grids.uniform_t(schedules.Cosine(), levels.vp, 100)
  n = 20000
  for table in (so.ddim(grid, 1.0), so.sde_dpmpp_2m(grid, 0.7)):
    mean, var = introspection.gaussian_moments(table, 0.4, 0.6)
    x = tableau.sample(mix, table, KEY, (n, 1))
    assert abs(float(x.mean()) - mean) < 4 * np.sqrt(var / n)
    assert abs(float(x.var()) - var) < 4 * var * np.sqrt(2 / n)


RK4 = [[], [0.5], [0, 0.5], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]


def test_identities_between_solvers(x64):
  """MATH 5.1, 5.4, 5.8, 5.9: solvers that are one and the same."""
  grid = uneven(9)
  weights = lambda table: np.concatenate(
    [np.atleast_1d(v) for v in introspection.contributions(table).values()]
  )
  same = [
    (so.ddim(grid), so.euler(grid)),
    (so.ddim(grid), so.euler(grid, "sigma")),
    (so.ddim(grid), so.sde_dpmpp_1(grid, 0.0)),
    (so.ddim(grid), so.unip(grid, 1)),
    (so.ddim(grid), so.deis(grid, 1)),
    (so.ddim(grid, 1.0), so.ddpm(grid, 0.0)),
    (so.dpmpp_2m(grid), so.unip(grid, 2)),
    (so.dpmpp_2m(grid), so.sde_dpmpp_2m(grid, 0.0)),
    (so.dpmpp_3m(grid), so.sde_dpmpp_3m(grid, 0.0)),
    (so.edm(grid), so.heun(grid, "sigma")),
    (so.churned(grid, "rk4"), so.rk4(grid)),
    (so.dpm_solver_2m_heun(grid), so.deis(grid, 2)),
    (so.dpmpp_2m_heun(grid), so.sde_dpmpp_2m_heun(grid, 0.0)),
    (so.dpmpp_2s(grid), so.dpmpp_2s_ancestral(grid, 0.0)),
    (so.dpmpp_2s(grid), so.dpmpp_sde(grid, 0.0)),
    (so.rk4(grid), so.runge_kutta(grid, *RK4)),
    (so.euler_maruyama(grid, 0.0), so.euler(grid)),
    (so.stochastic_heun(grid, 0.0), so.heun(grid)),
    (so.langevin(grid, 0), so.ddim(grid)),
    (so.adjusted_ddim(grid, 0.0), so.ddim(grid)),
  ]
  for i, (one, two) in enumerate(same):
    np.testing.assert_allclose(
      weights(one), weights(two), rtol=1e-9, atol=1e-11, err_msg=str(i)
    )
  # small-variance DDPM is DDIM over twice the log-SNR, then noise (MATH 5.4)
  table = so.ddpm(grids.from_logsnr([-1.0, 1.0]))
  far = so.ddim(grids.from_logsnr([-1.0, 3.0]))
  back = np.sqrt(1 / (1 + np.exp(-1.0))) / np.sqrt(1 / (1 + np.exp(-3.0)))
  one, two = (introspection.contributions(t) for t in (table, far))
  for part in ("start", "kept"):
    np.testing.assert_allclose(one[part], back * two[part])


def test_unipc_3_after_its_start_is_the_papers_step(x64):
  """One UniPC-3 row by the paper's own linear system (MATH 5.9), no moments."""
  grid = uneven(6)
  table = so.unipc(grid, 3, "bh1")
  ell = grid.logsnr / 2
  i = 3  # the step 3 -> 4 corrected, then 4 -> 5 predicted: row 5
  h = ell[i + 1] - ell[i]
  y, big = -h, -h  # bh1
  r = (ell[[i - 1, i - 2]] - ell[i]) / h
  r = np.append(r, 1.0)
  phi = [np.expm1(y) / y]
  for k in range(1, 4):
    phi.append((phi[-1] - 1 / [1, 1, 2, 6][k]) / y)
  b = [[1, 1, 2, 6][k] * y * phi[k] / big for k in (1, 2, 3)]
  a = np.linalg.solve(np.array([r**k for k in range(3)]), b)
  at, ratio = grid.alpha[i + 1], grid.sigma[i + 1] / grid.sigma[i]
  slope = -at * big * a / r  # of x̂_{-1}, x̂_{-2}, x̂_t
  base = -at * np.expm1(y) - slope.sum()
  want = [ratio, 0.0, slope[2], base, slope[0], slope[1], 0.0]
  np.testing.assert_allclose(table.mix[i + 2, 0], want, rtol=1e-9, atol=1e-12)


def test_3m_by_the_papers_differences(x64):
  """The corrected and the copied 3M as MATH 5.7 writes them."""
  grid = uneven(5)
  ell, i = grid.logsnr / 2, 3
  h = np.diff(ell)
  r0, r1 = h[i - 1] / h[i], h[i - 2] / h[i]
  phi2 = 1 + np.expm1(-h[i]) / h[i]
  phi3 = phi2 / h[i] - 0.5
  e0, e1 = np.array([1, -1, 0]) / r0, np.array([0, 1, -1]) / r1
  d1, d2 = e0 + r0 / (r0 + r1) * (e0 - e1), (e0 - e1) / (r0 + r1)
  at = grid.alpha[i + 1]
  base = at * -np.expm1(-h[i]) * np.array([1, 0, 0])
  for solver, factor in ((so.dpmpp_3m, 2.0), (so.dpmpp_3m_half, 1.0)):
    want = base + at * phi2 * d1 - factor * at * phi3 * d2
    got = solver(grid).mix[i + 1, 0, 2:5]
    np.testing.assert_allclose(got, want, rtol=1e-9)


BAD = [
  (lambda l: so.ddim(l, -0.1), "eta must be finite and >= 0, not -0.1"),
  (lambda l: so.sde_dpmpp_1(l, -1.0), "eta must be finite and >= 0, not -1"),
  (
    lambda l: so.euler_maruyama(l, epsilon=-1.0),
    "epsilon must be finite and >= 0, not -1",
  ),
  (lambda l: so.ddpm(l, 1.2), "variance must be between 0 and 1, not 1.2"),
  (lambda l: so.deis(l, 4), "order must be one of"),
  (lambda l: so.unipc(l, 5), "order must be one of"),
  (lambda l: so.unipc(l, 2, "bh3"), "variant must be 'bh1' or 'bh2'"),
  (lambda l: so.heun(l, "time"), "coordinate must be one of"),
  (lambda l: so.edm(l, -1.0), "s_churn must be finite and >= 0"),
  (lambda l: so.langevin(l, 1, 0.0), "step must be in"),
  (lambda l: so.langevin(l, -1), "num_corrections must be an integer >= 0"),
  (
    lambda l: so.named("dpmp")(l),
    "solver is 'dpmp'; known: .*more in dfj.solvers.SOLVERS; did you",
  ),
  (lambda l: compose.pad(so.dpmpp_2m(l), 3, 2), "does not fit in"),
  (lambda l: compose.pad(so.dpmpp_2m(l), 9, 1), "does not fit in"),
  (
    lambda l: compose.restart(l, so.ddim, 3, 2),
    "restart needs 0 <= high < low",
  ),
]


@pytest.mark.parametrize("make,message", BAD)
def test_bad_arguments_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make(grids.from_logsnr(np.linspace(-3, 3, 6)))


def test_names():
  grid = grids.uniform_t(schedules.Flow(), levels.linear, 4, t_start=0.99)
  for name in so.SOLVERS:
    assert so.named(name)(grid).num_evaluations >= 4
