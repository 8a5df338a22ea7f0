"""Guidance distillation: a guided teacher in one evaluation."""

import jax

from diffflow_jax.objective import densities
from diffflow_jax.objective.flow_maps import velocity as lib


def guidance_distillation(
  objective, apply, params, key, x, cond=None, *, teacher, told=None
):
  """A denoiser that is told the strength of guidance, and is the guided one.

      ‖û(z, s, w) - û_w(z, s)‖²,   û_w = û_none + w (û_cond - û_none)

  Meng et al., arXiv:2210.03142 §3, stage one; their w + 1 is ours. Stage two
  is `progressive_distillation` of it, with w told in every round.

  Equation (guidance_distillation) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ, told to = logsnr.
    key: PRNG key; x: (batch, ...) clean data; cond: what the teacher is told.
    teacher: predict(z, lv, cond) -> (x̂, ε̂), `dfj.Guided` with strengths
      (batch,), as `pairs.strengths` draws them.
    told: what the network is told, cond and those strengths; cond, if None.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s = densities.draw(objective.density, level_key, x.shape[0])
  return guidance_distillation_at(
    objective, apply, params, x, eps, s, cond, teacher=teacher, told=told
  )


def guidance_distillation_at(
  objective, apply, params, x, eps, s, cond=None, *, teacher, told=None
):
  """The Terms of `guidance_distillation` at levels s (batch,) by logsnr."""
  _, z, s = lib.noisy(x, eps, s)
  want = jax.lax.stop_gradient(lib.ask(teacher, z, s, cond, to=s))
  told = cond if told is None else told
  u_hat = lib.mean_velocity(objective, apply, params, told)(z, s, s)
  return lib.weighted(objective, u_hat - want, s)
