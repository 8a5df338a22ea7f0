"""Grids are what they say, exactly: MATH.md 1.10b, 1.14, 5.13."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules
from diffflow_jax.sampling import grids


def sigma(grid):
  return grid.sigma / grid.alpha


def test_karras_is_the_papers_formula():
  grid = grids.karras(6, 0.01, 50.0, 5.0)
  i = np.arange(6)
  want = (50 ** (1 / 5) + i / 5 * (0.01 ** (1 / 5) - 50 ** (1 / 5))) ** 5
  np.testing.assert_allclose(sigma(grid)[:-1], want, rtol=1e-12)
  assert len(grid.logsnr) == 7 and sigma(grid)[-1] == 0.0
  ends = sigma(grids.karras(6, 0.01, 50.0, 5.0, to_zero=False))
  assert len(ends) == 7
  np.testing.assert_allclose(ends[[0, -1]], [50.0, 0.01], rtol=1e-12)


def test_given_arrays_are_used_as_they_are():
  s = np.array([3.0, 0.7, 0.1, 0.0])
  np.testing.assert_allclose(sigma(grids.from_sigma(s)), s, rtol=1e-15)
  l = np.array([-np.inf, -1.0, 0.5, np.inf])
  grid = grids.from_logsnr(l)
  assert np.array_equal(grid.logsnr, l) and grid.logsnr.dtype == np.float64
  assert grid.alpha[0] == 0.0 and grid.sigma[-1] == 0.0
  t = np.array([0.9, 0.33, 0.1])
  grid = grids.from_t(schedules.Flow(), levels.linear, t)
  np.testing.assert_allclose(grid.sigma, t, rtol=1e-15)


def test_a_power_of_flow_time():
  grid = grids.shifted_flow(4, 1.0, power=1.5)
  np.testing.assert_allclose(
    grid.sigma, (np.arange(4, -1, -1) / 4) ** 1.5, rtol=1e-12
  )
  r = np.array([1.0, 0.25, 0.0])
  grid = grids.shifted_flow(2, 3.0, power=2.0)
  np.testing.assert_allclose(grid.sigma, 3 * r / (1 + 2 * r), rtol=1e-12)


def test_stretched_flow_time_stretches_the_logsnr():
  plain = grids.shifted_flow(6, 1.0).logsnr
  grid = grids.shifted_flow(6, 1.0, stretch=1.5)
  np.testing.assert_allclose(grid.logsnr[1:-1], 1.5 * plain[1:-1], atol=1e-12)
  assert grid.sigma[0] == 1.0 and grid.sigma[-1] == 0.0


@pytest.mark.parametrize("to_zero", [False, True])
def test_ends_are_what_is_asked_for_to_the_last_digit(to_zero):
  flow, lin = schedules.Flow(), levels.linear
  for n in (2, 3, 7, 18):
    for grid, field, ends in (
      (grids.karras(n, to_zero=to_zero), "sigma", (80.0, 0.002)),
      (grids.karras(n, 0.3, 7.1, 3.0, to_zero=to_zero), "sigma", (7.1, 0.3)),
      (grids.karras(n, rho=1e308, to_zero=to_zero), "sigma", (80.0, 0.002)),
      (
        grids.uniform_logsnr(-7.3, 9.1, n, to_zero=to_zero),
        "logsnr",
        (-7.3, 9.1),
      ),
      (grids.uniform_t(flow, lin, n, 0.9, 0.1, to_zero), "sigma", (0.9, 0.1)),
      (grids.quadratic_t(flow, lin, n, 0.7, 0.1, to_zero), "sigma", (0.7, 0.1)),
    ):
      got = getattr(grid, field)
      assert len(got) == n + 1
      assert (got[0], got[-2 if to_zero else -1]) == ends, (n, ends, got)
      assert (grid.sigma[-1] == 0.0) == to_zero
  for shift in (0.1, 0.3, 1.0, 3.0, 7.7):
    alpha = grids.shifted_flow(5, shift).alpha
    assert (alpha[0], alpha[-1]) == (0.0, 1.0)
  s = np.array([3.3, 0.7, 0.1, 0.0])
  assert np.array_equal(grids.from_sigma(s).sigma, s)


def test_a_grid_is_taken_to_the_data():
  for scale in (levels.vp, levels.ve, levels.Unit(0.5)):
    part = grids.uniform_logsnr(-4.0, 3.0, 3, scale)
    grid = grids.to_data(part, scale)
    assert np.array_equal(grid.alpha[:-1], part.alpha)
    assert grid.sigma[-1] == 0.0 and np.isposinf(grid.logsnr[-1])
    want = grids.to_data(part.logsnr, scale)
    np.testing.assert_allclose(grid.alpha, want.alpha, rtol=1e-14)


def test_karras_of_a_large_rho_is_geometric():
  got = grids.karras(4, 0.01, 100.0, rho=1e308, to_zero=False).sigma
  np.testing.assert_allclose(got, np.geomspace(100.0, 0.01, 5), rtol=1e-12)


def test_shifted_flow_time():
  grid = grids.shifted_flow(4, 3.0)
  r = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
  np.testing.assert_allclose(grid.sigma, 3 * r / (1 + 2 * r), rtol=1e-15)
  plain = grids.uniform_t(schedules.Flow(), levels.linear, 4)
  inner = slice(1, -1)
  np.testing.assert_allclose(
    grid.logsnr[inner], plain.logsnr[inner] - 2 * np.log(3.0), atol=1e-12
  )
  slope = jax.grad(lambda k: grids.shifted_flow(4, k).sigma.sum())(3.0)
  h = 1e-4
  ends = [grids.shifted_flow(4, 3.0 + d).sigma.sum() for d in (h, -h)]
  np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-3)


def test_quadratic():
  grid = grids.quadratic_t(schedules.Flow(), levels.linear, 4, 1.0, 0.2)
  want = 0.2 + 0.8 * np.array([1.0, 0.75, 0.5, 0.25, 0.0]) ** 2
  np.testing.assert_allclose(grid.sigma, want, rtol=1e-15)


@pytest.mark.parametrize(
  "spacing,rows",
  [
    ("leading", np.arange(900, -1, -100)),
    ("trailing", np.arange(999, 0, -100)),
    ("linspace", np.arange(9, -1, -1) * 111.0),
  ],
)
def test_rows_of_a_table(spacing, rows):
  table = np.linspace(9.0, -10.0, 1000)  # linear, so its interpolation is too
  grid = grids.table_rows(table, 10, spacing)
  want = 9.0 - 19.0 * rows / 999
  np.testing.assert_allclose(grid.logsnr[:-1], want, atol=1e-12)
  assert grid.sigma[-1] == 0.0
  # 7 does not divide 1000: rows are not rounded, so steps are equal
  steps = np.diff(grids.table_rows(table, 7, spacing).logsnr[:-1])
  np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
  assert len(grids.table_rows(table, 7, spacing, to_zero=False).logsnr) == 7
  made = schedules.ddpm_table()  # a schedule says its rows
  grid = grids.table_rows(made, 10, spacing)
  np.testing.assert_allclose(
    grid.logsnr[:-1], np.interp(rows, np.arange(1000), made.rows), rtol=1e-6
  )


def test_reverse():
  grid = grids.karras(5)
  back = grids.reverse(grid)
  assert np.array_equal(back.logsnr, grid.logsnr[::-1])
  assert np.array_equal(grids.reverse(back).sigma, grid.sigma)


def test_grids_are_float64_on_the_host_and_traced_when_traced():
  assert grids.karras(4).alpha.dtype == np.float64
  last = lambda rho: grids.karras(4, rho=rho).logsnr[2]
  h = 1e-3
  want = (last(7.0 + h) - last(7.0 - h)) / (2 * h)
  np.testing.assert_allclose(jax.grad(last)(7.0), want, rtol=1e-3)
  assert jnp.isfinite(jax.grad(last)(7.0))


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda: grids.from_logsnr([1.0]), "needs two levels"),
    (
      lambda: grids.from_logsnr([0.0, np.nan, 2.0]),
      "level 1 of the grid is NaN",
    ),
    (
      lambda: grids.from_logsnr([0.0, 2.0, 1.0]),
      "level 1 has 2 and level 2 has",
    ),
    (lambda: grids.from_logsnr([0.0, 1.0, 1.0]), "logsnr increasing"),
    (lambda: grids.from_logsnr([]), r"needs two levels .* not shape \(0,\)"),
    (
      lambda: grids.from_sigma([[2.0, 1.0, 0.0]]),
      r"in one dimension, not shape \(1, 3\)",
    ),
    (
      lambda: grids.from_t(schedules.Flow(), levels.linear, [1.2, 0.0]),
      r"level 0 of the grid has t = 1.2, not in \[0, 1\]",
    ),
    (
      lambda: grids.from_sigma([1.0, -0.1]),
      "level 1 of the grid has sigma = -0.1",
    ),
    (lambda: grids.karras(0), "num_steps must be an integer >= 1, not 0"),
    (lambda: grids.karras(2.5), "num_steps must be an integer >= 1, not 2.5"),
    (
      lambda: grids.shifted_flow(-3),
      "num_steps must be an integer >= 1, not -3",
    ),
    (lambda: grids.shifted_flow(4, 0.0), "shift must be > 0"),
    (lambda: grids.shifted_flow(4, power=0.0), "power must be > 0"),
    (
      lambda: grids.to_data(grids.karras(4, to_zero=False)),
      "another scale than the one given: .* alpha = 1 and sigma = 80",
    ),
    (
      lambda: grids.uniform_t(schedules.Flow(), levels.vp, 4, to_zero=True),
      "t_end must be > 0, not 0",
    ),
    (
      lambda: grids.uniform_t(
        schedules.VPLinear(), levels.vp, 4, 1.5, 0.1, to_zero=True
      ),
      r"level 0 of the grid has t = 1.5, not in \[0, 1\]",
    ),
    (
      lambda: grids.uniform_logsnr(-np.inf, 8.0, 4),
      "logsnr_start must be finite .*to_zero=True ends at data.*, not -inf",
    ),
    (
      lambda: grids.uniform_logsnr(schedules.Cosine(), levels.vp, 4),
      r"along a schedule goes uniform_t, not from Cosine\(",
    ),
    (lambda: grids.table_rows([1.0, 0.0], 2, "even"), "spacing must be one of"),
  ],
)
def test_bad_grids_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
