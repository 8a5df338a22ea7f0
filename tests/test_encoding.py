"""From data to noise: every deterministic solver, on the grid reversed."""

import numpy as np
import pytest

from diffflow_jax.process import levels, schedules
from diffflow_jax.sampling import grids, introspection, solvers as so
from tests.tables import mix1d
from tests.test_solvers import ALL, DETERMINISTIC, Z, run, uneven

FINE = 320
# the error that a solver of each order has on this grid, with room
ALLOWED = {1: 0.1, 2: 3e-3, 3: 3e-4, 4: 1e-6}
BY_SIGMA = "dpmpp dpm_2 unip adjusted sde".split()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_encode_then_back(name, x64):
  """The encoding is the exact flow's, and the way back returns the data."""
  solver, order, *_ = DETERMINISTIC[name]
  grid = uneven(FINE)
  x = Z * np.hypot(grid.alpha[-1] * 0.9, grid.sigma[-1])
  z = run(solver(grids.reverse(grid)), x)
  want = np.asarray(mix1d().flow(x, grid[-1], grid[0]))
  np.testing.assert_allclose(z, want, atol=ALLOWED[order])
  np.testing.assert_allclose(run(solver(grid), z), x, atol=ALLOWED[order])


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_encoding_between_the_exact_ends(name, x64):
  """N(0.4, 0.6²) becomes N(0, 1), or a sentence says what else to take."""
  solver, order, pure, _ = DETERMINISTIC[name]
  grid = grids.reverse(grids.uniform_t(schedules.Flow(), levels.linear, 64))
  assert grid.sigma[0] == 0.0 and grid.alpha[-1] == 0.0
  if pure is None or name.startswith(tuple(BY_SIGMA)):
    with pytest.raises(ValueError, match="from sigma = 0|at alpha = 0"):
      solver(grid)
    return
  mean, var = introspection.gaussian_moments(solver(grid), 0.4, 0.6)
  atol = 0.05 if order == 1 else 5e-3
  np.testing.assert_allclose([mean, var], [0.0, 1.0], atol=atol)


@pytest.mark.parametrize(
  "make",
  [
    so.ddpm,
    so.consistency,
    so.euler_ancestral,
    so.euler_maruyama,
    so.langevin,
    so.sde_dpmpp_1,
    so.sde_dpmpp_2m,
    so.sde_dpmpp_3m,
    lambda l: so.ddim(l, 0.1),
    lambda l: so.edm(l, 1.0),
    lambda l: so.euler_maruyama(l, epsilon=0.1),
  ],
)
def test_encoding_takes_no_noise(make):
  with pytest.raises(ValueError, match="from data to noise takes no noise"):
    make(grids.reverse(uneven(5)))


@pytest.mark.parametrize(
  "make",
  [
    so.sde_dpmpp_1,
    so.sde_dpmpp_2m,
    so.sde_dpmpp_3m,
    so.euler_maruyama,
    so.euler_ancestral,
  ],
)
def test_without_noise_stochastic_solvers_encode(make, x64):
  grid = uneven(FINE)
  x = Z * np.hypot(grid.alpha[-1] * 0.9, grid.sigma[-1])
  z = run(make(grids.reverse(grid), eta=0.0), x)
  want = np.asarray(mix1d().flow(x, grid[-1], grid[0]))
  np.testing.assert_allclose(z, want, atol=ALLOWED[1])


@pytest.mark.parametrize("name", ALL)
def test_levels_that_are_no_grid_are_refused(name):
  """Not only by `grids`: a Level may be made by hand."""
  at = levels.at_logsnr
  for logsnr, message in (
    ([0.0, 1.0, 1.0, 2.0], "level 1 has 1 and level 2 has 1"),
    ([0.0, np.nan, 1.0], "level 1 of the grid is NaN"),
    ([0.0, 2.0, 1.0], "level 1 has 2 and level 2 has 1"),
    ([2.0, 1.0, 1.0], "logsnr increasing"),
  ):
    grid = grids.on_host(lambda l: at(levels.vp, l), np.array(logsnr))
    with pytest.raises(ValueError, match=message):
      ALL[name](grid)
  pure = grids.on_host(
    lambda l: at(levels.ve, l), np.array([-np.inf, 0.0, 1.0])
  )
  with pytest.raises(ValueError, match="sigma = inf: its scale has no logsnr"):
    ALL[name](pure)
