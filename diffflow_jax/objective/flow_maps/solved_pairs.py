"""Learning from pairs (eps, x(eps)) that a teacher's sampler has solved.

x(eps) is where the probability-flow ODE takes the noise z_1 = sigma_1 eps of
the noisiest level, alpha_1 = 0 (or alpha_1 so small that z_1 is what the
sampler begins with). Solved with guidance, the guided field is learned, and the
student is sampled without.
"""

import jax.numpy as jnp

from diffflow_jax.objective import densities, losses
from diffflow_jax.objective.flow_maps import velocity as lib
from diffflow_jax.process import flow_maps
from diffflow_jax.process.levels import bcast


def reflow(objective, apply, params, key, x, cond=None, *, eps):
  """Rectified flow's second round: the ordinary loss on solved pairs.

      z = alpha x(eps) + sigma eps,   ‖ŷ - (a x(eps) + b eps)‖²

  Liu et al., arXiv:2209.03003 eq. 1 on the coupling (eps, x(eps)), for any
  target, schedule and weighting. The marginals between the ends are those of
  the coupling; the ends are kept. In one dimension, and for a Gaussian, one
  round makes the paths straight: one step is exact.

  Equation (reflow) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ, told to = logsnr.
    key: of the levels; x, eps: (batch, ...), a solved pair.
  Returns:
    Terms, as `weighted_mse`.
  Raises:
    ValueError: eps does not have x's shape.
  """
  x, _, level_key = lib.begin(objective, apply, key, x)
  logsnr = densities.draw(objective.density, level_key, x.shape[0])
  return reflow_at(objective, apply, params, x, eps, logsnr, cond)


def reflow_at(objective, apply, params, x, eps, logsnr, cond=None):
  """The Terms of `reflow` at given levels (batch,)."""
  lib.same_shape(x, eps)
  at_rest = lambda params, z, logsnr, cond: apply(
    params, z, logsnr, cond, logsnr
  )
  return losses.terms_at(
    objective, at_rest, params, jnp.asarray(x), logsnr, jnp.asarray(eps), cond
  )


def knowledge_distillation(objective, apply, params, key, x, cond=None, *, eps):
  """One step from noise to data, learned from solved pairs.

      ‖Φ(sigma_1 eps; 1 -> 0) - x(eps)‖²/d

  Luhman & Luhman, arXiv:2101.02388. Plain: there is one level, so density
  and weighting of the objective do not enter.

  Equation (knowledge_distillation) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ, told the data's level.
    key: not used, as nothing is drawn; x, eps: (batch, ...), a solved pair.
  Returns:
    Terms; eps_mse is the same error in x, as noise is not predicted here.
  Raises:
    ValueError: eps does not have x's shape, or the target says nothing of x at
      the schedule's noisiest level.
  """
  x, _, _ = lib.begin(objective, apply, key, x)
  schedule = objective.schedule
  s = schedule.logsnr(jnp.asarray(getattr(schedule, "last", 1.0)))
  t = lib.data_end(objective)
  return knowledge_distillation_at(objective, apply, params, x, eps, s, t, cond)


def knowledge_distillation_at(
  objective, apply, params, x, eps, s, t, cond=None
):
  """The Terms of `knowledge_distillation` between given levels."""
  _, _, s, t = lib.noisy(x, eps, s, t)
  z = bcast(flow_maps.flow_level(s).sigma, x) * eps
  u_bar = lib.mean_velocity(objective, apply, params, cond)(z, s, t)
  phi = flow_maps.flow_step(u_bar, z, s, t)
  # a schedule whose cleanest level has noise ends at alpha x and that noise
  error = lib.mean_square(phi / bcast(flow_maps.flow_level(t).alpha, x) - x)
  return losses.Terms(loss=error, eps_mse=error, logsnr=s)
