"""Consistency: all points of a trajectory are sent to the same place.

A point z_s and its neighbour z_m on one trajectory, s noisier than m, go to one
destination t, as a rule the data:

    Φ_st(z_s) = sg Φ_mt(z_m)

In mean velocities, ū_st = w v + (1 - w) ū_mt(z_m), where v takes z_s to z_m:
training has v = eps - x, the same noise at both levels; distillation a step of
the teacher. `shadow` are the parameters of the right-hand side, as an average;
Song & Dhariwal, arXiv:2310.14189 §3.2, have the network's own in training.
"""

import jax
import jax.numpy as jnp

from diffflow_jax.objective import losses
from diffflow_jax.objective.flow_maps import pairs, velocity as lib
from diffflow_jax.objective.flow_maps.progressive import two_legs
from diffflow_jax.process import flow_maps
from diffflow_jax.process.levels import bcast

HUBER = 0.00054  # arXiv:2310.14189 §3.3, of a root mean square


def consistency_training(
  objective, apply, params, key, x, cond=None, *, levels, shadow=None
):
  """Consistency training, without a teacher, under the objective's weighting.

      z_s = alpha_s x + sigma_s eps,  z_m of the same x and eps
      ‖ū(z_s; s -> data) - sg[w (eps - x) + (1 - w) ū(z_m; m -> data)]‖²

  Song et al., arXiv:2303.01469 eq. 10 with an l2 metric. At a finite gap the
  exact map is no fixed point: the target's mean is off by O(gap²) a step.

  Equation (consistency) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ, told the data's level.
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    levels: key, num -> (s, m), as `pairs.adjacent`.
    shadow: parameters of the target; those of the network, if None.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, m, t = pairs.to_data(objective.schedule, *levels(level_key, x.shape[0]))
  return consistency_training_at(
    objective, apply, params, x, eps, s, m, t, cond, shadow=shadow
  )


def consistency_training_at(
  objective, apply, params, x, eps, s, m, t, cond=None, *, shadow=None
):
  """The Terms of `consistency_training` at levels s, m and destination t."""
  u_c, z, s, m, t = lib.noisy(x, eps, s, m, t)
  legs = u_c, z, s, m, t, cond, shadow
  return lib.weighted(objective, _residual(objective, apply, params, *legs), s)


def _residual(objective, apply, params, v, z, s, m, t, cond, shadow):
  """ū - sg[w v + (1 - w) ū_shadow(z_m)]."""
  held = params if shadow is None else shadow
  z_m = flow_maps.flow_step(v, z, s, m)
  second = lib.mean_velocity(objective, apply, held, cond)(z_m, m, t)
  want = jax.lax.stop_gradient(two_legs(v, second, s, m, t))
  return lib.mean_velocity(objective, apply, params, cond)(z, s, t) - want


def consistency_distillation(
  objective,
  apply,
  params,
  key,
  x,
  cond=None,
  *,
  teacher,
  levels,
  shadow=None,
  order=2,
):
  """Consistency distillation: z_m is one step of the teacher from z_s.

      ‖ū(z_s; s -> data) - sg[w v + (1 - w) ū(z_m; m -> data)]‖²

  Song et al., arXiv:2303.01469 eq. 7: Heun's step, order 2, or DDIM's, order 1.
  A step of order p leaves O(gap^{p+1}) of bias a step. Heun's is taken in flow
  time, where both ends are finite.

  Equation (consistency) of docs/math.

  Args:
    teacher: predict(z, lv, cond) -> (x̂, ε̂), guided or not; of a flow map the
      step is its own, asked once, whatever the order.
    levels: key, num -> (s, m), as `pairs.adjacent`.
    shadow: parameters of the target, an average in the paper; those of the
      network, if None.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, m, t = pairs.to_data(objective.schedule, *levels(level_key, x.shape[0]))
  return consistency_distillation_at(
    objective, apply, params, x, eps, s, m, t, cond,
    teacher=teacher, shadow=shadow, order=order,
  )  # fmt: skip


def consistency_distillation_at(
  objective,
  apply,
  params,
  x,
  eps,
  s,
  m,
  t,
  cond=None,
  *,
  teacher,
  shadow=None,
  order=2,
):
  """The Terms of `consistency_distillation` at levels s, m, destination t."""
  if order not in (1, 2):
    raise ValueError(f"order must be 1 (DDIM) or 2 (Heun), not {order!r}")
  _, z, s, m, t = lib.noisy(x, eps, s, m, t)
  v = lib.ask(teacher, z, s, cond, to=m)
  # a teacher that is a flow map goes to m itself, and Heun would spoil it
  if order == 2 and not getattr(teacher, "destination", False):
    z_m = flow_maps.flow_step(v, z, s, m)
    # at the data itself a denoiser says nothing of the noise
    second = jnp.isinf(m)
    u_m = lib.ask(teacher, z_m, m, cond, to=t)
    v = jnp.where(bcast(second, z), v, 0.5 * (v + u_m))
  legs = jax.lax.stop_gradient(v), z, s, m, t, cond, shadow
  return lib.weighted(objective, _residual(objective, apply, params, *legs), s)


def improved_consistency(
  objective, apply, params, key, x, cond=None, *, num_levels, **law
):
  """Improved consistency training: pseudo-Huber, weighted by 1/gap.

      (√(r² + c²) - c)/(σ_s - σ_m),   r = rms of Φ_st(z_s) - sg Φ_mt(z_m)

  Song & Dhariwal, arXiv:2310.14189 §3: σ = sigma/alpha, and the paper's number
  over √d, so that c = 0.00054 for any d. Density and weighting of the objective
  do not enter, as pairs come from the paper's own law.

  Equation (improved_consistency) of docs/math.

  Args:
    num_levels: on the grid now, `pairs.num_levels_at(step, num_steps)`.
    **law: of `pairs.adjacent`.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  drawn = pairs.adjacent(level_key, x.shape[0], num_levels, **law)
  s, m, t = pairs.to_data(objective.schedule, *drawn)
  return improved_consistency_at(
    objective, apply, params, x, eps, s, m, t, cond
  )


def improved_consistency_at(
  objective, apply, params, x, eps, s, m, t, cond=None, *, c=HUBER
):
  """The Terms of `improved_consistency` at levels s, m, destination t."""
  u_c, z, s, m, t = lib.noisy(x, eps, s, m, t)
  legs = u_c, z, s, m, t, cond, None
  residual = _residual(objective, apply, params, *legs)
  terms = lib.weighted(objective, residual, s)
  # of Φ in EDM's coordinates: (s - t)/(1 - t) of that of ū
  moved = flow_maps.lapse(s, t) / flow_maps.flow_level(t).alpha
  r2 = moved**2 * lib.mean_square(residual)
  # √(r² + c²) - c without cancellation
  huber = r2 / (jnp.sqrt(r2 + c**2) + c)
  # both at the schedule's cleanest level, which clips them, it is 0 over 0
  apart = jnp.exp(-0.5 * s) - jnp.exp(-0.5 * m)
  apart = jnp.where(s == m, 1.0, apart)
  return losses.Terms(huber / apart, terms.eps_mse, s)


def easy_consistency(
  objective, apply, params, key, x, cond=None, *, stage, **law
):
  """Easy consistency training (ECT): from a denoiser, ever closer pairs.

      r/(σ_s - σ_m),   r = rms of Φ_st(z_s) - sg Φ_mt(z_m),   σ_m = 0 at first

  Geng et al., arXiv:2406.14548 §3.2: at σ_m = 0 the target is x itself. It is
  `improved_consistency` on other pairs, with c = 0. Density and weighting of
  the objective do not enter.

  Equation (improved_consistency) of docs/math.

  Args:
    stage: 0, 1, …; **law: of `pairs.easy`.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  drawn = pairs.easy(level_key, x.shape[0], stage, **law)
  s, m, t = pairs.to_data(objective.schedule, *drawn)
  return easy_consistency_at(objective, apply, params, x, eps, s, m, t, cond)


def easy_consistency_at(objective, apply, params, x, eps, s, m, t, cond=None):
  """The Terms of `easy_consistency` at levels s, m, destination t."""
  # no c at all would have no gradient where the two agree
  return improved_consistency_at(
    objective, apply, params, x, eps, s, m, t, cond, c=1e-8
  )
