"""The probability-flow ODE in flow time, solved with adaptive steps.

    dz/dt = ε̂ - x̂   on alpha = 1 - t, sigma = t        finite at both ends

whatever the schedule of the predictor. Needs the extra `ode` (diffrax).
"""

import jax
import jax.numpy as jnp

from diffflow_jax.process import levels as levels_lib, schedules
from diffflow_jax.sampling import checks

FLOW = schedules.Flow()
EVALUATIONS = 6  # of Dopri5 a step: the seventh is the next step's first
MAX_STEPS = 100_000  # after which a solve gives up
LEAST_STEP = 1e-9  # in flow time, below which it does: what is NaN shrinks it


def _diffrax():
  try:
    import diffrax
  except ImportError as e:
    raise ImportError("adaptive steps need diffrax: pip install diffrax") from e
  return diffrax


def velocity(predict, t, z, cond):
  """dz/dt of a batch at one time t ()."""
  lv = levels_lib.level(FLOW, levels_lib.linear, t)
  lv = jax.tree.map(lambda c: c.astype(z.dtype), lv)
  x_hat, eps_hat = checks.prediction(predict(z, lv, cond), z)
  return eps_hat - x_hat


def solve(field, y, t0, t1, rtol, atol, args=None):
  """(y at t1, number of evaluations) by Dopri5 and a PI controller."""
  diffrax = _diffrax()
  out = diffrax.diffeqsolve(
    diffrax.ODETerm(field),
    diffrax.Dopri5(),
    t0,
    t1,
    dt0=None,
    y0=y,
    args=args,
    stepsize_controller=diffrax.PIDController(
      rtol=rtol,
      atol=atol,
      pcoeff=0.3,
      icoeff=0.4,
      dtmin=LEAST_STEP,
      force_dtmin=False,
    ),
    max_steps=MAX_STEPS,
  )
  y = jax.tree.map(lambda leaf: leaf[-1], out.ys)
  return y, 1 + EVALUATIONS * out.stats["num_steps"]


def flow_time(lv):
  """Flow time sigma/(alpha + sigma) of a Level; and its norm alpha + sigma."""
  norm = lv.alpha + lv.sigma
  return jnp.asarray(lv.sigma / norm, jnp.result_type(float)), norm
