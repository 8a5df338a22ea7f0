"""Grids: the N + 1 levels from noise to data at which a solver stops.

A grid is a Level whose fields have shape (N+1,), logsnr increasing. Concrete
grids are made in float64 on the host, whatever the default dtype; grids of
traced values are traced, and differentiable. The ends are what is asked for:
t = 1 of `Flow` is alpha = 0, t = 0 is sigma = 0, exactly.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels as levels_lib


def is_traced(tree):
  """Whether any leaf is a tracer, so that its values cannot be looked at."""
  return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def on_host(fn, *args):
  """fn(*args) as float64 NumPy arrays, or traced where an argument is."""
  if is_traced(args):
    return fn(*args)
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.ensure_compile_time_eval())
    stack.enter_context(jax.enable_x64(True))
    return jax.tree.map(np.asarray, fn(*jax.tree.map(_as_float64, args)))


def _as_float64(x):
  return np.asarray(x, np.float64) if hasattr(x, "dtype") else x


def _check_steps(num_steps):
  if int(num_steps) != num_steps or num_steps < 1:
    raise ValueError(f"num_steps must be an integer >= 1, not {num_steps!r}")


def from_t(schedule, scale, t):
  """The levels of a schedule at the times t, (N+1,), decreasing."""
  return check(
    on_host(lambda s, t: levels_lib.level(s, scale, t), schedule, jnp_or_np(t))
  )


def from_logsnr(logsnr, scale=levels_lib.vp):
  """A grid at exactly these logsnr, (N+1,), increasing; ±inf are the ends."""
  return check(
    on_host(lambda l: levels_lib.at_logsnr(scale, l), jnp_or_np(logsnr))
  )


def uniform_t(schedule, scale, num_steps, t_start=1.0, t_end=0.0):
  """num_steps equal steps in the schedule's time: t_i = t_start … t_end."""
  _check_steps(num_steps)
  return from_t(schedule, scale, np.linspace(t_start, t_end, num_steps + 1))


def uniform_logsnr(logsnr_start, logsnr_end, num_steps, scale=levels_lib.vp):
  """num_steps equal steps in logsnr between two finite levels."""
  _check_steps(num_steps)
  return from_logsnr(
    np.linspace(logsnr_start, logsnr_end, num_steps + 1), scale
  )


def jnp_or_np(x):
  """An array that stays on the host unless it is a JAX value already."""
  return x if isinstance(x, jax.Array) else np.asarray(x, np.float64)


def check(grid):
  """Returns a grid that can be stepped through, or says what is wrong with it.

  Raises:
    ValueError: fewer than two levels, NaN, or logsnr not increasing.
  """
  if jnp.ndim(grid.logsnr) != 1 or len(grid.logsnr) < 2:
    raise ValueError(
      "a grid needs two levels or more in one dimension, "
      f"not shape {jnp.shape(grid.logsnr)}"
    )
  if not is_traced(grid):
    logsnr = np.asarray(grid.logsnr)
    if np.isnan(logsnr).any():
      raise ValueError(
        f"level {int(np.isnan(logsnr).argmax())} of the grid is NaN"
      )
    stuck = ~(logsnr[1:] > logsnr[:-1])
    if stuck.any():
      i = int(stuck.argmax())
      raise ValueError(
        "a grid goes from noise to data, with logsnr increasing: level "
        f"{i} has {logsnr[i]:g} and level {i + 1} has {logsnr[i + 1]:g}"
      )
  return grid
