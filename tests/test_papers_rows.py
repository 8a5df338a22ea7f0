"""Rows of single solvers against their papers' lines, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form
from diffflow_jax.sampling import (
  compose,
  grids,
  introspection,
  noise,
  solvers as so,
  tableau,
)
from diffflow_jax.sampling.solvers import coordinates
from tests.test_solvers import ALL, uneven

KEY = jax.random.key(0)


def test_adjusted_ddim(x64):
  """MATH 5.17: α_t x̂ + √(σ_t² + (α_t - α_s σ_t/σ_s)² v/(2 + SNR_s)) ε̂."""
  grid = grids.from_logsnr([-1.0, 0.5, 2.5])
  for v in (0.1, 0.3):
    table = so.adjusted_ddim(grid, v)
    for i in range(2):
      (a_s, a_t), (s_s, s_t) = (f[i : i + 2] for f in (grid.alpha, grid.sigma))
      b = a_t - a_s * s_t / s_s
      wide = np.sqrt(s_t**2 + b**2 * v / (2 + np.exp(grid.logsnr[i])))
      np.testing.assert_allclose(table.target[i], [a_t, wide])
      np.testing.assert_allclose(table.mix[i + 1], [[0, 0, 1, 0]] * 2)


def test_consistency():
  """arXiv:2303.01469 Alg. 1: α_t x̂ + σ_t ξ."""
  grid = uneven(3)
  table = so.consistency(grid)
  for i in range(3):
    row = [0, 0, 1, grid.sigma[i + 1]]
    np.testing.assert_allclose(table.mix[i + 1], [row, row])
    np.testing.assert_allclose(table.target[i], [grid.alpha[i + 1], 0.0])


@pytest.mark.parametrize("eta", [0.4, 1.2])
@pytest.mark.parametrize(
  "solver", [so.sde_dpmpp_1, so.sde_dpmpp_2m, so.sde_dpmpp_3m]
)
def test_sde_dpmpp_noise(solver, eta):
  """MATH 5.8: σ_t √(1 - e^{-2 eta² h}) in every one, whatever its order."""
  grid = uneven(5)
  h = np.diff(grid.logsnr) / 2
  want = grid.sigma[1:] * np.sqrt(1 - np.exp(-2 * eta**2 * h))
  np.testing.assert_allclose(solver(grid, eta).mix[1:, 0, -1], want)


@pytest.mark.parametrize(
  "coordinate,square,slopes",
  [
    ("flow", lambda t: 2 * t / (1 - t), lambda t: (-1.0, 1.0)),
    (
      "angle",
      lambda t: np.pi * np.tan(np.pi * t / 2),
      lambda t: (
        -np.pi / 2 * np.sin(np.pi * t / 2),
        np.pi / 2 * np.cos(np.pi * t / 2),
      ),
    ),
    ("sigma", lambda t: 2 * t, lambda t: (0.0, 1.0)),
  ],
)
def test_euler_maruyama(coordinate, square, slopes, x64):
  """z + (α̇ x̂ + σ̇ ε̂ + ½ e² ε̂/σ) dt + e √|dt| ξ, e = eta g, g² of MATH 6.3."""
  _, scale = coordinates.resolve(coordinate)
  grid = grids.from_logsnr(np.linspace(-3.0, 4.0, 6), scale)
  time = coordinates.times(grid, coordinate)
  for eta in (0.6, 1.0):
    table = so.euler_maruyama(grid, eta, coordinate=coordinate)
    for i, dt in enumerate(np.diff(time)):
      e2 = eta**2 * square(time[i])
      row = [0.0, 1.0, dt, np.sqrt(e2 * -dt)]
      np.testing.assert_allclose(table.mix[i + 1], [row, row], rtol=1e-9)
      dalpha, dsigma = slopes(time[i])
      want = [dalpha, dsigma + 0.5 * e2 / grid.sigma[i]]
      np.testing.assert_allclose(table.target[i], want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.2])
@pytest.mark.parametrize(
  "solver", [so.sde_dpmpp_1, so.sde_dpmpp_2m, so.sde_dpmpp_3m]
)
def test_sde_dpmpp_from_pure_noise_is_the_limit(solver, eta, x64):
  """With noise the start is forgotten, as it is from ever noisier levels."""
  tail = [-3.0, 0.0, 2.0, 5.0]
  pure, noisy = (
    introspection.contributions(solver(grids.from_logsnr([first, *tail]), eta))
    for first in (-np.inf, -200.0)
  )
  # the slopes of 2M and 3M vanish as slowly as 1/h
  for part in ("start", "noise", *["kept"] * (solver is so.sde_dpmpp_1)):
    np.testing.assert_allclose(pure[part], noisy[part], rtol=1e-9, atol=1e-10)


def test_langevin_corrections_keep_the_law(x64):
  """z - step σ ε̂ + √(2 step) σ ξ; 400 of them forget all but their own law.

  On N(m, s²) a correction is affine with the fixed variance
  V/(1 - step σ²/(2 V)), V = α² s² + σ²: the law's, but for O(step).
  """
  grid = grids.from_logsnr([-1.0, 0.3, 2.0])
  al, si = grid.alpha[1], grid.sigma[1]
  v = (al * 0.6) ** 2 + si**2
  for step in (0.1, 0.02):
    row = so.langevin(grid, 1, step).mix[2, 0]
    np.testing.assert_allclose(row, [0, 1, -step * si, np.sqrt(2 * step) * si])
    table = so.langevin(grid, 400, step)
    short = table.replace(  # the step to level 1, and the corrections there
      mix=table.mix[:402],
      target=table.target[:401],
      levels=table.levels[:401],
      end=grid[1],
    )
    mean, var = introspection.gaussian_moments(short, 0.4, 0.6)
    np.testing.assert_allclose(mean, al * 0.4, rtol=1e-5)
    np.testing.assert_allclose(var, v / (1 - step * si**2 / (2 * v)), rtol=1e-5)


def edm_by_hand(sigma, m, s, s_churn, s_min, s_max, s_noise):
  """arXiv:2206.00364 Alg. 2 on N(m, s²): y as weights of (1, y_0, noises)."""
  n = len(sigma) - 1
  basis = np.eye(n + 2)
  denoise = lambda y, t: (s**2 * y + t**2 * m * basis[0]) / (s**2 + t**2)
  y = basis[1]
  for i in range(n):
    churned = s_min <= sigma[i] <= s_max
    gamma = min(s_churn / n, np.sqrt(2) - 1) if churned else 0.0
    hat = sigma[i] + gamma * sigma[i]
    y = y + np.sqrt(hat**2 - sigma[i] ** 2) * s_noise * basis[2 + i]
    d = (y - denoise(y, hat)) / hat
    new = y + (sigma[i + 1] - hat) * d
    if sigma[i + 1] != 0:
      d2 = (new - denoise(new, sigma[i + 1])) / sigma[i + 1]
      new = y + (sigma[i + 1] - hat) * (d / 2 + d2 / 2)
    y = new
  return y


@pytest.mark.parametrize(
  "churn",
  [
    dict(s_churn=1.0),
    dict(s_churn=90.0),  # gamma is capped at √2 - 1
    dict(s_churn=2.0, s_min=0.5),
    dict(s_churn=2.0, s_max=1.5),
    dict(s_churn=2.0, s_min=0.6, s_max=1.4),  # both are levels: inside
    dict(s_churn=2.0, s_noise=1.1),
  ],
)
def test_edm_with_churn(churn, x64):
  full = dict(s_min=0.0, s_max=np.inf, s_noise=1.0) | churn
  sigma = np.array([3.0, 1.4, 0.6, 0.2, 0.0])
  table = so.edm(grids.from_sigma(sigma), **full)
  got = introspection.gaussian_map(table, 0.4, 0.6)
  want = edm_by_hand(sigma, 0.4, 0.6, **full)
  np.testing.assert_allclose([got["offset"], got["gain"]], want[:2], rtol=1e-12)
  drawn = got["noise"][np.flatnonzero(got["noise"])]
  np.testing.assert_allclose(drawn, want[2:][want[2:] != 0], rtol=1e-12)


def test_large_ddpm_is_exact_on_the_standard_normal(x64):
  """arXiv:2006.11239 §3.2: beta for x ~ N(0, I), the small one for a point."""
  grid = grids.from_logsnr(np.linspace(-8, 10, 9))
  moments = lambda v, s: introspection.gaussian_moments(so.ddpm(grid, v), 0, s)
  np.testing.assert_allclose(moments(1.0, 1.0)[1], 1.0, rtol=1e-12)
  end = grid.sigma[-1] ** 2
  np.testing.assert_allclose(moments(0.0, 0.0)[1], end, rtol=1e-12)
  assert moments(0.0, 1.0)[1] < 0.9 and moments(1.0, 0.0)[1] > 1.1 * end


@pytest.mark.parametrize(
  "solver,coordinate",
  [
    *((s, None) for s in (so.dpmpp_2m, so.dpmpp_2m_heun, so.dpmpp_3m)),
    *((s, None) for s in (so.dpmpp_3m_half, so.deis)),
    (so.adams_bashforth, "flow"),
  ],
)
def test_the_stage_of_a_first_step_is_in_its_middle(solver, coordinate, x64):
  """In log-SNR, or in the time that the solver steps in."""
  grid = uneven(4)
  times = lambda lv: (
    lv.logsnr if coordinate is None else coordinates.times(lv, coordinate)
  )
  want = np.insert(times(grid)[:-1], 1, np.mean(times(grid)[:2]))
  got = times(solver(grid, two_stage_start=True).levels)
  np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_single_differences_of_unip_have_half_of_b(variant, x64):
  """MATH 5.9: UniP-2 and UniC-1 with a = ½; B = -h (bh1), expm1(-h) (bh2)."""
  grid = uneven(4)
  ell, i = grid.logsnr / 2, 1
  h = ell[i + 1] - ell[i]
  big = {"bh1": -h, "bh2": np.expm1(-h)}[variant]
  at, ratio = grid.alpha[i + 1], grid.sigma[i + 1] / grid.sigma[i]
  base = -at * np.expm1(-h)
  r = (ell[i - 1] - ell[i]) / h
  slope = -at * big * 0.5 / r  # of x̂_{-1} - x̂_0
  got = so.unip(grid, 2, variant).mix[i + 1, 0]
  np.testing.assert_allclose(got, [0, ratio, base - slope, slope, 0])
  slope = -at * big * 0.5  # of x̂(result) - x̂_0, r = 1
  got = so.unipc(grid, 1, variant).mix[i + 2, 0]
  np.testing.assert_allclose(got, [ratio, 0, slope, base - slope, 0])


@pytest.mark.parametrize("order", [2, 3])
def test_deis_in_any_clock(order, x64):
  """arXiv:2204.13902 eq. 15: C_j = ∫ L_j(ψ) dρ by fine quadrature in t."""
  grid = uneven(6)
  kept = lambda t: introspection.contributions(t)["kept"]
  one = so.deis(grid, order, coordinate="sigma")
  two = so.adams_bashforth(grid, order, "sigma")  # ψ = ρ is ρAB
  np.testing.assert_allclose(kept(one), kept(two), rtol=1e-9, atol=1e-12)
  for name, psi in (
    ("flow", lambda rho: rho / (1 + rho)),
    ("angle", lambda rho: np.arctan(rho)),
    (None, np.log),
  ):
    table = so.deis(grid, order, coordinate=name)
    rho = grid.sigma / grid.alpha
    i, x = 4, np.linspace(rho[4], rho[5], 20001)
    nodes = psi(rho[[i - j for j in range(order)]])
    ratio = grid.alpha[i + 1] / grid.alpha[i]
    np.testing.assert_allclose(table.mix[i + 1, 0, 1], ratio)
    for j in range(order):
      others = np.delete(nodes, j)
      basis = np.prod([(psi(x) - o) / (nodes[j] - o) for o in others], axis=0)
      want = grid.alpha[i + 1] * np.trapezoid(basis, x)
      np.testing.assert_allclose(table.mix[i + 1, 0, 2 + j], want, rtol=1e-6)


def test_every_solver_calls_the_network_as_often_as_it_says(x64):
  """NFE by counting the calls, through one padded program."""
  calls = []

  def network(z, lv, cond):
    jax.debug.callback(lambda _: calls.append(1), lv.logsnr)
    return closed_form.gaussian([0.4], 0.6)(z, lv)

  predict = jax.tree_util.Partial(network)
  for name, solver in ALL.items():
    table = solver(uneven(5))
    calls.clear()
    tableau.sample(predict, compose.pad(table, 40, 4), KEY, (1, 1))
    jax.effects_barrier()
    assert len(calls) == table.num_evaluations, name


def test_start_rows_and_brownian_path_draw_apart():
  """No two of them share a key: correlations within 4/√n."""
  n = 4000
  keys = noise.keys(KEY, 0, n)
  draws = [noise.initial(keys, jnp.ones(()), (1,), jnp.float32)]
  draws += [noise.draw(keys, i, (1,), jnp.float32) for i in range(3)]
  clock = jnp.array([1.0, 0.0])
  draws.append(noise.draw(keys, 0, (1,), jnp.float32, clock))
  cov = np.corrcoef(np.stack(draws)[..., 0])
  assert np.all(np.abs(cov - np.eye(len(draws))) < 4 / np.sqrt(n)), cov
