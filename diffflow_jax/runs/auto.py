"""The solver `auto`: a solver and a grid by the number of evaluations.

The table is what `benchmarks/advice.py` chose: at each number of evaluations
the pair whose error is the least multiple of the best pair's, on the worst of
its problems (`benchmarks/results/advice.md`).
"""

import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.sampling.candidates import most_steps

# evaluations: (solver, grid)
ADVICE = {
  5: ("unipc", "uniform_flow:stretch=1.5"),
  10: (
    "adams_bashforth:order=4,two_stage_start=True",
    "uniform_flow:power=1.5",
  ),
  20: (
    "adams_bashforth:order=4,two_stage_start=True",
    "uniform_flow:power=1.5",
  ),
  50: ("rk38:coordinate=angle", "uniform_flow:stretch=1.5"),
  100: ("deis:order=3,coordinate=flow", "uniform_flow:stretch=1.5"),
}


def is_auto(solver):
  """Whether a solver's name is auto, with settings or without."""
  return solver.partition(":")[0] == "auto"


def advised(num_evaluations):
  """(solver, grid), of the row whose evaluations are the nearest by ratio."""
  near = lambda count: abs(np.log(count / num_evaluations))
  return ADVICE[min(ADVICE, key=near)]


def tableau(make, solver, num_evaluations, name="solver"):
  """What auto stands for: the most steps that num_evaluations allow.

  Args:
    make: (solver, grid, num_steps) -> Tableau, by names.
    solver: "auto", which has no settings; name: what a Refusal calls it.
  Raises:
    Refusal: auto has settings.
  """
  if solver != "auto":
    raise Refusal(
      f"{name}: auto has no settings, as in {solver!r}; num_steps is how many "
      "evaluations there are"
    )
  pair = advised(num_evaluations)
  made = lambda num_steps: make(*pair, num_steps)
  return made(most_steps(made, int, num_evaluations))
