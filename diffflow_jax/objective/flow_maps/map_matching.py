"""Flow map matching: the equations that a flow map solves, as regressions.

    Lagrangian    dΦ/dt = û(Φ, t)            at the point of arrival
    Eulerian      dΦ/ds = 0 along z' = û     at the point of departure

The velocity û is a teacher's or, without one, the network's own at t = s, which
is then trained there on eps - x: self-distillation, arXiv:2505.18825.
"""

import jax
import jax.numpy as jnp

from diffflow_jax.objective.flow_maps import pairs, velocity as lib
from diffflow_jax.process import flow_maps
from diffflow_jax.process.levels import bcast


def lagrangian(
  objective, apply, params, key, x, cond=None, *, teacher=None, share=0.75
):
  """Lagrangian map distillation: the map's speed in t is the field there.

      ‖ū - (s - t) ∂_t ū - û(Φ_st(z), t)‖²,   z of the data at s

  Boffi et al., arXiv:2406.07507, in flow time: ū - (s - t) ∂_t ū is
  dΦ/dt. No derivative in z is taken. The residual is that of a velocity at
  (Φ, t), and is weighted, and reported, at t. eps - x cannot take û's place:
  Φ(z) is not alpha x + sigma eps.

  Equation (lagrangian) of docs/math. Equation (lagrangian_loss) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ; its jvp in `to` is taken.
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    teacher: predict(z, lv, cond) -> (x̂, ε̂), guided or not; gradients pass
      through it, as it is asked at the student's own point.
    share: of the pairs, drawn from the objective's density, with t != s.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, t = pairs.two_times(level_key, objective.density, x.shape[0], share)
  return lagrangian_at(
    objective, apply, params, x, eps, s, t, cond, teacher=teacher
  )


def lagrangian_at(
  objective, apply, params, x, eps, s, t, cond=None, *, teacher=None
):
  """The Terms of `lagrangian` at levels s, t (batch,) by logsnr, and noise."""
  u_c, z, s, t = lib.noisy(x, eps, s, t)
  velocity = lib.mean_velocity(objective, apply, params, cond)
  u_bar, slope = flow_maps.lagrangian(velocity, z, s, t)
  phi = flow_maps.flow_step(u_bar, z, s, t)
  if teacher is None:
    field = jax.lax.stop_gradient(velocity(phi, t, t))
    field = jnp.where(bcast(s == t, z), u_c, field)
  else:
    field = lib.ask(teacher, phi, t, cond, to=t)
  return lib.weighted(objective, u_bar - slope - field, t)


def eulerian(
  objective, apply, params, key, x, cond=None, *, teacher=None, share=0.75
):
  """Eulerian map distillation: the map does not change along the trajectory.

      ‖ū + (s - t) ((∂_z ū) û + ∂_s ū) - û(z, s)‖²

  Boffi et al., arXiv:2406.07507, in flow time; the gradient passes
  through the derivatives. The trap: eps - x in the place of û is right under a
  stop-gradient alone, which is `mean_flow`; here it would shrink the Jacobian.

  Equation (meanflow) of docs/math. Equation (eulerian_loss) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ; its jvp in z and logsnr is taken,
      and differentiated.
    teacher, share: as of `lagrangian`.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, t = pairs.two_times(level_key, objective.density, x.shape[0], share)
  return eulerian_at(
    objective, apply, params, x, eps, s, t, cond, teacher=teacher
  )


def eulerian_at(
  objective, apply, params, x, eps, s, t, cond=None, *, teacher=None
):
  """The Terms of `eulerian` at levels s, t (batch,) by logsnr, and noise."""
  u_c, z, s, t = lib.noisy(x, eps, s, t)
  velocity = lib.mean_velocity(objective, apply, params, cond)
  if teacher is None:
    field = jnp.where(bcast(s == t, z), u_c, velocity(z, s, s))
  else:
    field = lib.ask(teacher, z, s, cond, to=s)
  field = jax.lax.stop_gradient(field)
  u_bar, slope = flow_maps.eulerian(velocity, z, s, t, field)
  return lib.weighted(objective, u_bar + slope - field, s)
