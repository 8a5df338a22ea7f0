"""Samplers and grids by name, as configs and `sample` write them."""

import dataclasses
import inspect

import numpy as np

from diffflow_jax.cli import Refusal, parse_spec, unknown
from diffflow_jax.process import levels, ranges, schedules, ways
from diffflow_jax.runs import auto, methods
from diffflow_jax.runs.settings import MOST_STEPS
from diffflow_jax.sampling import compose, files, grids, solvers


def _to_data(objective, make, num_steps):
  """make(num_steps), or a step less and then sigma = 0 where it stops short."""
  grid = make(num_steps)
  if grid.sigma[-1] == 0.0 or num_steps == 1:
    return grid
  return grids.to_data(make(num_steps - 1).logsnr, objective.scale)


def uniform_t(objective, num_steps):
  """Uniform in the objective's own time, down to sigma = 0."""
  make = lambda n: grids.uniform_t(objective.schedule, objective.scale, n)
  return _to_data(objective, make, num_steps)


def uniform_flow(objective, num_steps, shift=1.0, power=1.0, stretch=1.0):
  """Uniform in flow time, or its `shifted_flow`, whatever the training was."""
  return grids.shifted_flow(num_steps, shift, objective.scale, power, stretch)


def uniform_cosine(objective, num_steps):
  """Uniform in the angle atan(sigma/alpha), whatever the training was."""
  return grids.uniform_t(schedules.Cosine(), objective.scale, num_steps)


def uniform_logsnr(objective, num_steps, start=-10.0, end=8.0):
  """Uniform in logsnr between two levels, and a last step to sigma = 0."""
  return grids.uniform_logsnr(start, end, num_steps, objective.scale, True)


def karras(objective, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
  """EDM's grid, arXiv:2206.00364 eq. 5."""
  return grids.karras(num_steps, sigma_min, sigma_max, rho, objective.scale)


def quadratic(objective, num_steps):
  """Steps in the objective's time that shorten towards the data."""
  make = lambda n: grids.quadratic_t(objective.schedule, objective.scale, n)
  return _to_data(objective, make, num_steps)


def table_rows(objective, num_steps, spacing="trailing", rows=1000):
  """Rows of a discrete table, "leading", "trailing" or "linspace".

  Row k of a table is t = k/(rows - 1) of the objective's schedule. A last step
  to sigma = 0 follows where row 0 is not that already.
  """
  row = grids.spaced_rows(rows, num_steps, spacing)
  t = row / (rows - 1)
  logsnr = grids.on_host(lambda s, t: s.logsnr(t), objective.schedule, t)
  clean = np.isposinf(logsnr[-1])
  return (grids.from_logsnr if clean else grids.to_data)(
    logsnr, objective.scale
  )


def file(objective, num_steps, path="", kind="logsnr"):
  """The levels in a .npy or text file, as they are; num_steps is not used.

  kind says what the numbers are: "logsnr", increasing; "sigma", which is
  sigma/alpha, or "t" of the objective's schedule, decreasing.
  """
  make = {
    "logsnr": lambda a: grids.from_logsnr(a, objective.scale),
    "sigma": lambda a: grids.from_sigma(a, objective.scale),
    "t": lambda a: grids.from_t(objective.schedule, objective.scale, a),
  }
  if kind not in make:
    raise ValueError(f"kind must be one of {sorted(make)}, not {kind!r}")
  try:
    npy = str(path).endswith(".npy")
    numbers = np.load(path) if npy else np.loadtxt(path, ndmin=1)
  except (OSError, ValueError) as error:
    raise ValueError(f"path={path} is no file of levels: {error}") from error
  try:
    return make[kind](np.asarray(numbers, np.float64))
  except ValueError as error:
    raise ValueError(f"path={path}: {error}") from error


GRIDS = {
  f.__name__: f
  for f in (
    uniform_t,
    uniform_flow,
    uniform_cosine,
    uniform_logsnr,
    karras,
    quadratic,
    table_rows,
    file,
  )
}


def call(field, spec, table, *args):
  """table[name](*args, **settings) of "name:setting=value", or a Refusal."""
  name, settings = parse_spec(spec, field)
  if name not in table:
    known = unknown(name, table, where=solvers.LIST)  # no other is as long
    raise Refusal(f"{field} is {name!r}; {known}")
  known = list(inspect.signature(table[name]).parameters)[len(args) :]
  for key, value in settings.items():
    if key not in known:
      raise Refusal(
        f"{field}: {name} has no setting {key!r}; it has: "
        f"{', '.join(known) or 'none'}"
      )
    if isinstance(value, int) and abs(value) > MOST_STEPS:
      raise Refusal(f"{field}: {key} must be at most {MOST_STEPS}, not {value}")
  try:
    return table[name](*args, **settings)
  except (TypeError, ValueError, OverflowError) as error:
    raise Refusal(f"{field}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """The probability-flow ODE from the grid's first level to its last one.

  Attributes:
    start, end: Levels (); rtol, atol: of a step of every sample.
  """

  start: levels.Level
  end: levels.Level
  rtol: float = 1e-5
  atol: float = 1e-5


@ranges.checked(rtol="> 0", atol="> 0")
def adaptive(grid, rtol=1e-5, atol=1e-5):
  """`Adaptive` between the ends of a grid, whose inner levels do not count."""
  return Adaptive(grid[0], grid[-1], rtol, atol)


# auto is never called: it is a name to be offered
OTHERS = {"adaptive": adaptive, "auto": auto.tableau}


def make_tableau(
  objective,
  solver,
  grid,
  num_steps,
  names=("solver", "grid", "restart"),
  restart=None,
):
  """The sampler of a solver and a grid by name.

  Args:
    solver: a name in SOLVERS with settings; "adaptive" with settings; the .npz
      file of learned tableaus, which bring their grids, of which num_steps is
      the number of evaluations, None for the most; or "auto", which chooses
      both by num_steps, then the number of evaluations, too (`runs.auto`).
    names: what a Refusal calls solver, grid and restart.
    restart: (high, low, times) of `compose.restart`, or None.
  Returns:
    A Tableau, or `Adaptive`.
  Raises:
    Refusal: unknown names or settings, or ones that do not fit.
  """
  if restart is not None:
    again = max(0, restart[1] - restart[0]) * max(0, restart[2])
    if num_steps + again > MOST_STEPS:
      raise Refusal(
        f"{names[2]} adds {again} steps to {num_steps}: a sampler takes at "
        f"most {MOST_STEPS}"
      )
  if auto.is_auto(solver):
    make = lambda *pair: make_tableau(objective, *pair)
    return auto.tableau(make, solver, num_steps, names[0])
  levels = lambda: call(names[1], grid, GRIDS, objective, num_steps)
  make = lambda grid: call(names[0], solver, solvers.SOLVERS | OTHERS, grid)
  if solver.endswith(".npz"):
    try:
      return files.load(solver, num_steps)
    except ValueError as error:
      raise Refusal(f"{names[0]}: {error}") from error
  if restart is None:
    return make(levels())
  try:
    return compose.restart(levels(), make, *restart)
  except ValueError as error:
    raise Refusal(f"{names[2]}: {error}") from error


def check_way(config, objective, step, levels):
  """Refuses levels between which a network was never taught to go.

  A student of progressive distillation knows the steps of its stage alone.

  Args:
    step: how far it was trained; levels: of a Tableau, or an adaptive start.
  Raises:
    ValueError: it says what to do instead.
  """
  known = methods.reaches(config)
  ways.check(known or "any", levels, objective.schedule)
  if known != "other":
    return
  num, name = methods.steps_of_student(config, step), config.teacher.grid
  grid = call("config.teacher.grid", name, GRIDS, objective, num).logsnr
  same = lambda one, two: (
    np.shape(one) == np.shape(two) and np.allclose(one, two, 1e-4, 1e-4)
  )
  if not (same(levels.logsnr, grid[:-1]) and same(levels.to, grid[1:])):
    raise ValueError(
      f"this student was taught the {num} steps of the grid {name} alone: take "
      "num_steps and grid so, or another stage's checkpoint"
    )
