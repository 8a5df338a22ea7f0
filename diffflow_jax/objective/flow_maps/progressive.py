"""Two steps of a teacher become one of the student."""

import jax

from diffflow_jax.objective.flow_maps import pairs, velocity as lib
from diffflow_jax.process import flow_maps
from diffflow_jax.process.levels import bcast


def two_legs(first, second, s, m, t):
  """ū from s to t of two legs' mean velocities: w first + (1 - w) second.

  w = (s - m)/(s - t) in flow time: `flow_maps.weights`.
  """
  w = bcast(flow_maps.weights(s, m, t)[2], first)
  return w * first + (1.0 - w) * second


def progressive_distillation(
  objective, apply, params, key, x, cond=None, *, teacher, grid
):
  """A student of N steps learns two DDIM steps of its teacher of 2N at once.

      ũ = w û(z_s, s) + (1 - w) û(z_m, m),   z_m = z_s - (s - m) û(z_s, s)
      ‖ū(z_s; s -> t) - ũ‖²    under the objective's weighting

  Salimans & Ho, arXiv:2202.00512 algorithm 2 and app. G, in flow time, where
  DDIM is Euler: x̃ of theirs is z_s - s ũ, without its cancellation, at both
  ends, for any target, schedule and scale. `weightings` has their max(SNR, 1)
  ("truncated_snr") and SNR + 1. Then N <- N/2, with the student as teacher: of
  the second round on the teacher is told m, then t.

  Equation (progressive) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ; one that ignores `to` will do, as
      the grid fixes it, but then it is sampled on this grid alone.
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    teacher: predict(z, lv, cond) -> (x̂, ε̂), guided or not.
    grid: logsnr (2N + 1,) of the teacher's steps, increasing.
  Returns:
    Terms.
  Raises:
    ValueError: an odd number of steps.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, m, t = pairs.halves(level_key, grid, x.shape[0])
  return progressive_distillation_at(
    objective, apply, params, x, eps, s, m, t, cond, teacher=teacher
  )


def progressive_distillation_at(
  objective, apply, params, x, eps, s, m, t, cond=None, *, teacher
):
  """The Terms of `progressive_distillation` at levels s, m, t by logsnr."""
  _, z, s, m, t = lib.noisy(x, eps, s, m, t)
  first = lib.ask(teacher, z, s, cond, to=m)
  z_m = flow_maps.flow_step(first, z, s, m)
  second = lib.ask(teacher, z_m, m, cond, to=t)
  want = jax.lax.stop_gradient(two_legs(first, second, s, m, t))
  u_bar = lib.mean_velocity(objective, apply, params, cond)(z, s, t)
  return lib.weighted(objective, u_bar - want, s)
