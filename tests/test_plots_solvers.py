"""The solvers' figures show the numbers that they are of."""

import numpy as np

from diffflow_jax import plots
from diffflow_jax.plots import solvers as figures
from diffflow_jax.process import levels, schedules, targets
from diffflow_jax.sampling import grids, introspection, solvers


def test_churn_shows_the_contributions():
  grid = grids.from_logsnr(np.linspace(-4, 5, 9))
  fig = figures.churn(grid, (0.0, 1.0))
  left, right = fig.axes
  for line, eta in zip(left.lines, (0.0, 1.0), strict=False):
    table = solvers.sde_dpmpp_1(grid, eta)
    parts = introspection.contributions(table, figures.targets.v)
    np.testing.assert_allclose(line.get_ydata(), parts["kept"])
  assert len(right.lines) == 3  # two samplers, and the axis


def test_damping_and_error_figures():
  grid = grids.karras(6)
  fig = figures.damping({"ddim": solvers.ddim(grid)}, [0.1, 1.0])
  want = introspection.damping(solvers.ddim(grid), [0.1, 1.0])
  np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), want)
  curves = {"a": {"ddim": ([5, 10], [0.2, 0.1])}}
  fig = figures.error_against_evaluations(curves)
  np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), [0.2, 0.1])


def test_order_conditions_figure():
  grid = grids.from_logsnr(np.linspace(-4, 5, 30))
  table = solvers.dpmpp_2m(grid)
  fig = plots.order_conditions({"2m": table})
  want = np.abs(introspection.order_conditions(table))
  np.testing.assert_allclose(fig.axes[0].lines[0].get_ydata(), want)


def test_figures_of_solvers_are_one_call_away():
  """As `dfj.plots.churn(grid)`, of any target."""
  grid = grids.uniform_t(schedules.Cosine(), levels.vp, 9)
  for target in (targets.v, targets.u, None):
    assert len(plots.churn(grid, (0.0, 1.0), target).axes) == 2
  assert plots.contributions is figures.contributions
  assert plots.damping is figures.damping
