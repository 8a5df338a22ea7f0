"""MeanFlow and improved MeanFlow: the Eulerian identity as a regression.

    ū = u - (s - t) dū/ds,    dū/ds = (∂_z ū) u + ∂_s ū, t held fixed

in flow time, on the linear scale. At t = s it is flow matching.
"""

import jax

from diffflow_jax.objective.flow_maps import (
  guidance as guidance_lib,
  pairs,
  stabilisers,
  velocity as lib,
)
from diffflow_jax.process import flow_maps


def mean_flow(
  objective,
  apply,
  params,
  key,
  x,
  cond=None,
  *,
  share=0.25,
  power=0.0,
  guidance=None,
):
  """MeanFlow: a network of the mean velocity between two levels.

      ‖ū - sg[u_c - (s - t) ((∂_z ū) u_c + ∂_s ū)]‖²,    u_c = eps - x

  Geng et al., arXiv:2505.13447 §4.1, under the objective's weighting.
  The loss at the solution is not 0, its gradient is.

  Equation (meanflow) of docs/math. Equation (meanflow_loss) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ; its jvp in z and logsnr is taken.
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    share: of the pairs, drawn from the objective's density, with t != s.
    power: of the adaptive weight, `stabilisers.adaptive`; 1 in the paper, which
      moves the solution where the posterior is skewed, and 0 is none.
    guidance: a `guidance.Guidance`, whose field is then learned.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, t = pairs.two_times(level_key, objective.density, x.shape[0], share)
  return mean_flow_at(
    objective, apply, params, x, eps, s, t, cond,
    power=power, guidance=guidance,
  )  # fmt: skip


def mean_flow_at(
  objective,
  apply,
  params,
  x,
  eps,
  s,
  t,
  cond=None,
  *,
  power=0.0,
  guidance=None,
):
  """The Terms of `mean_flow` at levels s, t (batch,) by logsnr, and noise."""
  u_c, z, s, t = lib.noisy(x, eps, s, t)
  velocity_of = lambda c: lib.mean_velocity(objective, apply, params, c)
  u = guidance_lib.guided(guidance, velocity_of, u_c, z, s, cond)
  # the tangent is the guided velocity, too
  u_bar, slope = flow_maps.eulerian(velocity_of(cond), z, s, t, u)
  residual = u_bar - jax.lax.stop_gradient(u - slope)
  return lib.weighted(objective, residual, s, stabilisers.adaptive(power))


def improved_mean_flow(
  objective,
  apply,
  params,
  key,
  x,
  cond=None,
  *,
  share=0.5,
  power=0.0,
  guidance=None,
):
  """Improved MeanFlow: the network's own velocity as the tangent.

      V = ū + (s - t) sg[(∂_z ū) û + ∂_s ū],   û = ū(z; s -> s)
      ‖V - (eps - x)‖²

  Geng et al., arXiv:2512.02012: V is a function of z alone, so that this is
  flow matching of V. It rests on û being trained: keep share below 1.

  Equation (improved_meanflow) of docs/math.

  Args:
    guidance: `guidance.of_strength(null, w)`, with w told in cond where it
      varies; others as of `mean_flow`.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s, t = pairs.two_times(level_key, objective.density, x.shape[0], share)
  return improved_mean_flow_at(
    objective, apply, params, x, eps, s, t, cond,
    power=power, guidance=guidance,
  )  # fmt: skip


def improved_mean_flow_at(
  objective,
  apply,
  params,
  x,
  eps,
  s,
  t,
  cond=None,
  *,
  power=0.0,
  guidance=None,
):
  """The Terms of `improved_mean_flow` at levels s, t by logsnr, and noise."""
  u_c, z, s, t = lib.noisy(x, eps, s, t)
  velocity_of = lambda c: lib.mean_velocity(objective, apply, params, c)
  want = guidance_lib.guided(guidance, velocity_of, u_c, z, s, cond)
  velocity = velocity_of(cond)
  tangent = jax.lax.stop_gradient(velocity(z, s, s))
  u_bar, slope = flow_maps.eulerian(velocity, z, s, t, tangent)
  residual = u_bar + jax.lax.stop_gradient(slope) - want
  return lib.weighted(objective, residual, s, stabilisers.adaptive(power))
