"""The tables that the page runs: solvers on grids, at several numbers of steps.

All are on the scale vp. A table goes into the page as it is: mix, target, and
the alpha and sigma of every evaluation.
"""

from diffflow_jax.explorer.world import SCHEDULES
from diffflow_jax.process import levels
from diffflow_jax.sampling import grids, solvers

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 14, 20, 28, 40)
FINE = 120  # steps of the solution that errors are against
DIALS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _churned(grid, dial):
  num = len(grid.logsnr) - 1
  return solvers.churned(grid, "ddim", s_churn=dial * 0.41 * num)


# name: (grid, dial) -> Tableau, and what the dial is; None where there is none
SOLVERS = {
  "ddim": (lambda g, d: solvers.ddim(g, eta=d), "eta"),
  "euler on the VP angle": (
    lambda g, d: solvers.euler(g, coordinate="angle"),
    None,
  ),
  "heun": (lambda g, d: solvers.heun(g), None),
  "midpoint": (lambda g, d: solvers.midpoint(g), None),
  "rk4": (lambda g, d: solvers.rk4(g), None),
  "dpmpp_2m": (lambda g, d: solvers.dpmpp_2m(g), None),
  "dpmpp_3m": (lambda g, d: solvers.dpmpp_3m(g), None),
  "unipc": (lambda g, d: solvers.unipc(g), None),
  "deis": (lambda g, d: solvers.deis(g), None),
  "sde_dpmpp_2m": (lambda g, d: solvers.sde_dpmpp_2m(g, eta=d), "eta"),
  "ddim with churn": (_churned, "churn"),
}


def grid_of(name, num_steps):
  """Equal steps in a schedule's time; Karras' ends with a step to the data."""
  if name.startswith("Karras"):
    return grids.karras(num_steps, scale=levels.vp)
  return grids.uniform_t(SCHEDULES[name](), levels.vp, num_steps)


def as_numbers(table):
  """What the page needs of a tableau."""
  return {
    "mix": table.mix,
    "target": table.target,
    "alpha": table.levels.alpha,
    "sigma": table.levels.sigma,
    "start": [table.start.alpha, table.start.sigma],
  }


def describe():
  """{"solvers": {name: dial}, "tables": {grid: {solver: [per dial [...]]}}}."""
  made = {}
  for grid_name in SCHEDULES:
    grids_of_it = [grid_of(grid_name, n) for n in STEPS]
    made[grid_name] = {
      name: [
        [as_numbers(make(grid, dial)) for grid in grids_of_it]
        for dial in (DIALS if what else DIALS[:1])
      ]
      for name, (make, what) in SOLVERS.items()
    }
    fine = solvers.rk38(grid_of(grid_name, FINE))
    made[grid_name]["fine"] = as_numbers(fine)
  return {
    "steps": STEPS,
    "dials": DIALS,
    "solvers": {name: what for name, (_, what) in SOLVERS.items()},
    "tables": made,
  }
