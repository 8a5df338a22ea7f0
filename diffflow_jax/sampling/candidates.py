"""Hand-made solvers and grids between two levels, to compare and to start from.

One table for all that asks which solver is best: `learned` starts from its
winners, and the benchmark of errors against evaluations draws them all.
"""

import functools

import numpy as np

from diffflow_jax.process import levels as levels_lib, schedules
from diffflow_jax.sampling import grids, solvers

POWERS = (1.25, 1.5)
CANDIDATES = {
  "ddim": solvers.ddim,
  "heun_flow": solvers.heun,
  "heun_sigma": functools.partial(solvers.heun, coordinate="sigma"),
  "heun_angle": functools.partial(solvers.heun, coordinate="angle"),
  "midpoint_flow": solvers.midpoint,
  "rk4_flow": solvers.rk4,
  "rk38_flow": solvers.rk38,
  "dpmpp_2s": solvers.dpmpp_2s,
  "dpmpp_3s": solvers.dpmpp_3s,
  "dpmpp_2m": solvers.dpmpp_2m,
  "dpmpp_3m": solvers.dpmpp_3m,
  "unipc_2": solvers.unipc,
  "unipc_3": functools.partial(solvers.unipc, order=3),
  "deis_2": functools.partial(solvers.deis, order=2),
  "deis_3": solvers.deis,
  "ab_2_flow": solvers.adams_bashforth,
  "ab_3_flow": functools.partial(solvers.adams_bashforth, order=3),
  "ab_2_angle": functools.partial(solvers.adams_bashforth, coordinate="angle"),
  "ab_4_flow": functools.partial(
    solvers.adams_bashforth, order=4, two_stage_start=True
  ),
  "ab_4_angle": functools.partial(
    solvers.adams_bashforth, order=4, coordinate="angle"
  ),
  "lms_2": functools.partial(solvers.adams_bashforth, coordinate="sigma"),
}


def candidate_grids(start, end, num_steps):
  """Grids between two levels, each uniform in a clock of its own.

  Flow time (shifted, to a power, stretched), the angle, logsnr, sigma.

  Where the end is sigma = 0, logsnr and sigma go to logsnr = 10 and then there.

  Returns:
    {name: grid} on vp.
  """
  flow = schedules.Flow()
  ends = np.array([start.logsnr, end.logsnr], np.float64)
  times = lambda clock: grids.on_host(lambda s, l: s.t(l), clock, ends)
  clocks = {
    "flow": flow,
    "flow_shift_3": schedules.Shift(flow, 3.0),
    "cosine": schedules.Cosine(),
  }
  made = {
    name: grids.uniform_t(clock, levels_lib.vp, num_steps, *times(clock))
    for name, clock in clocks.items()
  }
  made |= {
    f"flow_power_{p:g}": _power(times(flow), num_steps, p) for p in POWERS
  }
  made["flow_stretch_1.5"] = _stretched(start, end, num_steps, 1.5)
  lo, clean = max(float(start.logsnr), -12.0), np.isinf(end.logsnr)
  hi, num = 10.0 if clean else float(end.logsnr), num_steps + 1 - clean
  inner = {"logsnr": np.linspace(lo, hi, num)}
  for rho in (3.0, 7.0):
    root = np.linspace(np.exp(-lo / 2 / rho), np.exp(-hi / 2 / rho), num)
    inner[f"karras_{rho:g}"] = -2.0 * rho * np.log(root)
  for name, logsnr in inner.items():
    logsnr = np.append(logsnr, np.inf) if clean else logsnr
    logsnr[0], logsnr[-1] = start.logsnr, end.logsnr  # to the last digit
    made[name] = grids.from_logsnr(logsnr, levels_lib.vp)
  return made


def _power(times, num_steps, power):
  """Flow times uniform in their (1/power)-th power: denser at the data."""
  first, last = times
  root = np.linspace(first ** (1 / power), last ** (1 / power), num_steps + 1)
  t = root**power
  t[0], t[-1] = first, last
  return grids.from_t(schedules.Flow(), levels_lib.vp, t)


def _stretched(start, end, num_steps, stretch):
  """Flow time of log-SNR over stretch, uniform: denser at both ends."""
  ends = np.array([start.logsnr, end.logsnr], np.float64)
  flow = lambda s, l: s.t(l)
  first, last = grids.on_host(flow, schedules.Flow(), ends / stretch)
  r = np.linspace(first, last, num_steps + 1)
  with np.errstate(divide="ignore"):
    logsnr = 2.0 * stretch * (np.log1p(-r) - np.log(r))
  logsnr[0], logsnr[-1] = ends
  return grids.from_logsnr(logsnr, levels_lib.vp)


def most_steps(solver, grid, num_evaluations):
  """The most steps of grid(steps) that fit, or 0."""
  steps = num_evaluations
  while steps > 0:
    cost = solver(grid(steps)).num_evaluations
    if cost <= num_evaluations:
      return steps
    steps = min(steps - 1, steps * num_evaluations // cost + 1)
  return 0


def hand_made(start, end, num_evaluations):
  """Every candidate with at most num_evaluations, {(solver, grid): Tableau}.

  Solvers whose coordinate is infinite at the start are left out.
  """
  made = functools.cache(lambda steps: candidate_grids(start, end, steps))
  tables = {}
  for name, solver in CANDIDATES.items():
    try:
      steps = most_steps(solver, lambda n: made(n)["flow"], num_evaluations)
    except ValueError:
      continue
    if steps:
      tables |= {(name, g): solver(grid) for g, grid in made(steps).items()}
  return tables
