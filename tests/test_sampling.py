"""Tableaus, solvers, grids and the scan: MATH.md 5 and 9.4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import grids, guidance, solvers, tableau
from tests.tables import SCALES

# name: (solver, order, evaluations of N steps ending at sigma = 0)
SOLVERS = {
  "ddim": (solvers.ddim, 1, lambda n: n),
  "heun": (solvers.heun, 2, lambda n: 2 * n - 1),
  "dpmpp_2m": (solvers.dpmpp_2m, 2, lambda n: n),
}
ALL = pytest.mark.parametrize("name", SOLVERS)
KEY = jax.random.key(0)


def mix1d():
  return closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5])


def uneven_logsnr(n, start=-4.0, end=5.0):
  u = np.linspace(0, 1, n + 1)
  return start + (end - start) * (u + 0.5 * np.sin(np.pi * u) ** 2 / np.pi)


@ALL
@pytest.mark.parametrize("scale", ["vp", "linear"])
def test_order(name, scale, x64):
  """Slope of log-error against the exact nonlinear flow, MATH 9.4."""
  solver, order, _ = SOLVERS[name]
  mix, errors = mix1d(), []
  for n in (80, 160, 320):
    grid = grids.from_logsnr(uneven_logsnr(n), SCALES[scale])
    z = jnp.linspace(-2, 2, 41)[:, None] * grid.sigma[0]
    got = tableau.sample(mix, solver(grid), KEY, z.shape, z=z)
    errors.append(np.abs(got - mix.flow(z, grid[0], grid[-1])).max())
  slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
  assert np.all(np.abs(slopes - order) < 0.15), (errors, slopes)


@ALL
def test_the_sample_does_not_depend_on_the_scale(name, x64):
  mix, got = mix1d(), {}
  for scale in ("vp", "ve", "linear"):
    grid = grids.from_logsnr(uneven_logsnr(12), SCALES[scale])
    z = jnp.linspace(-2, 2, 41)[:, None] * grid.sigma[0]
    out = tableau.sample(mix, SOLVERS[name][0](grid), KEY, z.shape, z=z)
    got[scale] = out / np.hypot(grid.alpha[-1], grid.sigma[-1])
  np.testing.assert_allclose(got["ve"], got["vp"], rtol=1e-12, atol=1e-12)
  np.testing.assert_allclose(got["linear"], got["vp"], rtol=1e-12, atol=1e-12)


@ALL
@pytest.mark.parametrize("schedule", [schedules.Flow(), schedules.Cosine()])
@pytest.mark.parametrize("scale", ["vp", "linear"])
def test_both_exact_ends(name, schedule, scale, x64):
  """From alpha = 0 to sigma = 0: finite, accurate, and NFE is the rows."""
  solver, _, nfe = SOLVERS[name]
  mix = closed_form.gaussian([0.4], 0.6)
  grid = grids.uniform_t(schedule, SCALES[scale], 64)
  assert grid.alpha[0] == 0.0 and grid.sigma[-1] == 0.0
  table = solver(grid)
  assert table.num_evaluations == nfe(64)
  assert all(np.isfinite(leaf).all() for leaf in (table.mix, table.target))
  z = jnp.linspace(-2, 2, 9)[:, None]
  got = tableau.sample(mix, table, KEY, z.shape, z=z)
  np.testing.assert_allclose(got, 0.4 + 0.6 * z, atol=0.06)


@ALL
def test_exact_for_constant_x_hat(name, x64):
  """A point mass is reached whatever the grid."""
  point = lambda z, lv, cond: (
    jnp.full_like(z, 0.7),
    (z - lv.alpha * 0.7) / lv.sigma,
  )
  grid = grids.from_logsnr(uneven_logsnr(7))
  z = jnp.linspace(-2, 2, 9)[:, None]
  got = tableau.sample(point, SOLVERS[name][0](grid), KEY, z.shape, z=z)
  eps = (z - grid.alpha[0] * 0.7) / grid.sigma[0]
  np.testing.assert_allclose(
    got, grid.alpha[-1] * 0.7 + grid.sigma[-1] * eps, atol=1e-12
  )


def test_ddim_coefficients_are_the_papers(x64):
  """MATH 5.2, written with √(sigma_t² - s²) ε̂."""
  grid = grids.from_logsnr([-1.0, 2.0])
  for eta in (0.0, 0.6, 1.0):
    table = solvers.ddim(grid, eta)
    z, x_hat = 0.3, -0.8
    eps_hat = (z - grid.alpha[0] * x_hat) / grid.sigma[0]
    s = eta * grid.sigma[1] * np.sqrt(1 - np.exp(-3.0))
    want = grid.alpha[1] * x_hat + np.sqrt(grid.sigma[1] ** 2 - s**2) * eps_hat
    _, a, b, noise = table.mix[1, 0]
    np.testing.assert_allclose(a * z + b * x_hat, want, atol=1e-14)
    np.testing.assert_allclose(noise, s, atol=1e-14)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_stochastic_ddim_keeps_the_moments_of_a_gaussian(eta, x64):
  """Mean and variance by the linear recursion: no Monte-Carlo error."""
  m, c = 0.4, 0.36
  errors = []
  for n in (100, 200):
    grid = grids.from_logsnr(np.linspace(-12, 10, n + 1))
    table = solvers.ddim(grid, eta)
    mean = grid.alpha[0] * m
    var = grid.alpha[0] ** 2 * c + grid.sigma[0] ** 2
    for i in range(n):
      _, a, b, noise = table.mix[i + 1, 0]
      al, si = grid.alpha[i], grid.sigma[i]
      gain = al * c / (al**2 * c + si**2)  # x̂ = m + gain (z - al m)
      mean = a * mean + b * (m + gain * (mean - al * m))
      var = (a + b * gain) ** 2 * var + noise**2
    want = grid.alpha[-1] ** 2 * c + grid.sigma[-1] ** 2
    np.testing.assert_allclose(mean, grid.alpha[-1] * m, rtol=1e-10)
    errors.append(abs(var - want) / want)
  assert errors[1] < 0.1 and 1.7 < errors[0] / errors[1] < 2.3, errors


def test_stochastic_samples_have_those_moments():
  mix = closed_form.gaussian([0.4], 0.6)
  grid = grids.uniform_t(schedules.Cosine(), levels.vp, 200)
  n = 20000
  x = tableau.sample(mix, solvers.ddim(grid, 1.0), KEY, (n, 1))
  assert abs(float(x.mean()) - 0.4) < 4 * 0.6 / np.sqrt(n) + 2e-3
  assert abs(float(x.std()) - 0.6) < 4 * 0.6 / np.sqrt(2 * n) + 6e-3


def test_sample_i_does_not_depend_on_the_batch():
  mix = closed_form.gaussian([0.4, 0.1], 0.6)
  grid = grids.uniform_t(schedules.Flow(), levels.linear, 8)
  table = solvers.ddim(grid, 0.5)
  whole = tableau.sample(mix, table, KEY, (64, 2))
  one = tableau.sample(mix, table, KEY, (1, 2), first=5)
  seven = tableau.sample(mix, table, KEY, (7, 2), first=3)
  np.testing.assert_allclose(one[0], whole[5], atol=1e-6)
  np.testing.assert_allclose(seven, whole[3:10], atol=1e-6)
  assert len(np.unique(np.asarray(whole)[:, 0])) == 64


def test_one_trace_while_solver_grid_eta_and_guidance_change():
  traces = []

  def network(z, lv, cond):
    traces.append(1)
    return closed_form.gaussian([0.4], 0.6)(z, lv)

  predict = jax.tree_util.Partial(network)
  run = lambda table, w: tableau.sample(
    guidance.Guided(predict, 10, w), table, KEY, (4, 1), cond=jnp.arange(4)
  )
  flow = grids.uniform_t(schedules.Flow(), levels.linear, 9)
  cosine = grids.uniform_t(schedules.Cosine(), levels.vp, 9)
  outs = [
    run(solvers.ddim(flow), 1.0),
    run(solvers.ddim(flow, 0.7), 1.0),
    run(solvers.ddim(cosine, 0.2), 3.0),
  ]
  assert len(traces) == 1
  five = grids.uniform_t(schedules.Flow(), levels.linear, 5)
  outs += [run(solvers.dpmpp_2m(flow), 1.0), run(solvers.heun(five), 2.0)]
  assert len(traces) == 2  # both have N = 9, K = 2
  assert len({float(o[0, 0]) for o in outs}) == 5


def test_a_deterministic_tableau_draws_no_noise():
  """Without a draw, what the keys are cannot matter to the compiled program's
  time; here, that the branch for the draw is a branch."""
  mix = closed_form.gaussian([0.4], 0.6)
  table = solvers.ddim(grids.from_logsnr(uneven_logsnr(4)))
  table = jax.tree.map(jnp.asarray, table)
  keys = jax.random.split(KEY, 3)
  jaxpr = str(
    jax.make_jaxpr(tableau._run)(mix, table, keys, jnp.zeros((3, 1)), None)
  )
  outside, _, inside = jaxpr.partition("cond[")
  assert inside and "random_bits" in inside and "random_bits" not in outside


@ALL
def test_contributions_reproduce_the_sample(name, x64):
  """start z + Σ kept h + Σ noise xi is what the scan returns."""
  mix = mix1d()
  grid = grids.from_logsnr(uneven_logsnr(6))
  eta = dict(eta=0.8) if name == "ddim" else {}
  table = SOLVERS[name][0](grid, **eta)
  z = jnp.linspace(-2, 2, 5)[:, None]
  seen = []

  def spy(z, lv, cond):
    x_hat, eps_hat = mix(z, lv)
    jax.debug.callback(lambda *v: seen.append(v), x_hat, eps_hat)
    return x_hat, eps_hat

  got = tableau.sample(spy, table, KEY, z.shape, z=z)
  jax.effects_barrier()
  parts = tableau.contributions(table)
  want = parts["start"] * z
  for w, (a, b), (x_hat, eps_hat) in zip(
    parts["kept"], table.target, seen, strict=True
  ):
    want = want + w * (a * x_hat + b * eps_hat)
  for i, w in enumerate(parts["noise"]):
    draw = lambda j, i=i: jax.random.normal(
      jax.random.fold_in(jax.random.fold_in(KEY, j), i + 1), (1,)
    )
    want = want + w * jnp.stack([draw(j) for j in range(5)])
  np.testing.assert_allclose(got, want, atol=1e-12)


def test_ddim_contributions_are_the_closed_form(x64):
  """MATH 5.12: h_i = sigma_0 (e^ell_{i+1} - e^ell_i)."""
  grid = grids.from_logsnr(uneven_logsnr(6))
  kept = tableau.contributions(solvers.ddim(grid))["kept"]
  want = grid.sigma[-1] * np.diff(np.exp(grid.logsnr / 2))
  np.testing.assert_allclose(kept, want, rtol=1e-12)


@ALL
def test_traced_grids_give_the_same_tableau_and_gradients(name, x64):
  solver = SOLVERS[name][0]
  logsnr = jnp.asarray(np.append(uneven_logsnr(5), np.inf))
  make = lambda l: solver(grids.from_logsnr(l)).mix
  want = solver(grids.from_logsnr(np.asarray(logsnr))).mix
  np.testing.assert_allclose(jax.jit(make)(logsnr), want, atol=1e-12)
  slope = jax.grad(lambda l: make(jnp.append(l, jnp.inf))[1:].sum())(
    logsnr[:-1]
  )
  assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_guidance_is_linear_and_free_of_the_scale(x64):
  a, b = closed_form.gaussian([0.4], 0.6), closed_form.gaussian([-1.0], 0.9)

  def predict(z, lv, cond):
    pick = (cond == 9)[:, None]
    return tuple(
      jnp.where(pick, n, c) for n, c in zip(b(z, lv), a(z, lv), strict=True)
    )

  z = jnp.array([[0.3], [-0.2]])
  lv = levels.at_logsnr(levels.vp, 0.4)
  guided = guidance.Guided(predict, 9, 2.5)
  got = guided(z, lv, jnp.array([0, 1]))
  for g, c, n in zip(got, a(z, lv), b(z, lv), strict=True):
    np.testing.assert_allclose(g, n + 2.5 * (c - n), atol=1e-14)
  per_sample = guidance.Guided(predict, 9, jnp.array([1.0, 0.0]))
  got = per_sample(z, lv, jnp.array([0, 1]))
  np.testing.assert_allclose(got[0][0], a(z, lv)[0][0], atol=1e-14)
  np.testing.assert_allclose(got[0][1], b(z, lv)[0][1], atol=1e-14)


@pytest.mark.parametrize(
  "logsnr,message",
  [
    ([1.0], "needs two levels"),
    ([0.0, np.nan, 2.0], "level 1 of the grid is NaN"),
    ([0.0, 2.0, 1.0], "level 1 has 2 and level 2 has 1"),
    ([0.0, 1.0, 1.0], "logsnr increasing"),
  ],
)
def test_bad_grids_are_refused(logsnr, message):
  with pytest.raises(ValueError, match=message):
    grids.from_logsnr(logsnr)


@pytest.mark.parametrize("num_steps", [0, -3, 2.5])
def test_bad_step_counts_are_refused(num_steps):
  with pytest.raises(ValueError, match="num_steps must be an integer >= 1"):
    grids.uniform_t(schedules.Flow(), levels.vp, num_steps)


@pytest.mark.parametrize("eta", [-0.1, 1.5])
def test_bad_eta_is_refused(eta):
  grid = grids.uniform_t(schedules.Flow(), levels.vp, 4)
  with pytest.raises(ValueError, match="eta must be between 0 and 1 on this"):
    solvers.ddim(grid, eta)
