"""Continuous-time consistency: no gap between a point and its neighbour."""

import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities
from diffflow_jax.objective.flow_maps import stabilisers, velocity as lib
from diffflow_jax.process import flow_maps, forward_mode, levels, ranges
from diffflow_jax.process.levels import bcast
from diffflow_jax.process.schedule import clip_far


def continuous_consistency(
  objective,
  apply,
  params,
  key,
  x,
  cond=None,
  *,
  teacher=None,
  sigma_data=0.5,
  norm=0.1,
  warmup=1.0,
):
  """sCM: consistency with the derivative of the network along the trajectory.

      z = cos φ x + σ_d sin φ eps,  f = cos φ z - σ_d sin φ F,  F: φ -> 0
      ‖F - sg[F + g]‖²,   g = cos φ df/dφ
        = -cos²φ (σ_d F - z') - r cos φ sin φ (z + σ_d dF/dφ)

  Lu & Song, arXiv:2410.11081 algorithm 1, in TrigFlow's
  coordinates whatever the network's target and scale: F is the row (-sin φ/σ_d,
  cos φ). z' = cos φ σ_d eps - sin φ x in training, and the teacher's in
  distillation, where g is 0 at the solution. Their weight e^ω and its penalty
  are a weighting that is trained, `weightings.make("uncertainty")`; the plain
  MSE of F is an objective of target F.

  Equation (continuous) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ, told the data's level; its jvp in
      z and logsnr is taken.
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    teacher: predict(z, lv, cond) -> (x̂, ε̂), guided or not; None trains.
    sigma_data: σ_d, the standard deviation of x.
    norm: c of g/(‖g‖ + c), `stabilisers.normalised`; None leaves g as it is.
      Without a teacher it moves the solution where the posterior is skewed.
    warmup: r in [0, 1], `stabilisers.warmed_up(step)`; 0 is diffusion training.
  Returns:
    Terms.
  """
  x, eps, level_key = lib.begin(objective, apply, key, x)
  s = densities.draw(objective.density, level_key, x.shape[0])
  return continuous_consistency_at(
    objective, apply, params, x, eps, s, cond,
    teacher=teacher, sigma_data=sigma_data, norm=norm, warmup=warmup,
  )  # fmt: skip


def continuous_consistency_at(
  objective,
  apply,
  params,
  x,
  eps,
  s,
  cond=None,
  *,
  teacher=None,
  sigma_data=0.5,
  norm=0.1,
  warmup=1.0,
):
  """The Terms of `continuous_consistency` at levels s (batch,) by logsnr."""
  ranges.check("warmup", warmup, "in [0, 1]")
  if norm is not None:
    ranges.check("norm", norm, "> 0")
  _, z_flow, s = lib.noisy(x, eps, s)
  s = clip_far(s)
  trig = levels.Unit(sigma_data)
  along = lambda logsnr: _trig_flow(trig, sigma_data, logsnr)
  lv, flow = along(s), flow_maps.flow_level(s)
  cos, sin = bcast(lv.alpha, z_flow), bcast(lv.sigma / sigma_data, z_flow)
  t = jnp.broadcast_to(lib.data_end(objective), s.shape).astype(s.dtype)
  velocity = lib.mean_velocity(objective, apply, params, cond)

  def network(z, logsnr):
    """F(z, φ): the row (-sin φ/σ_d, cos φ) of (X, E)."""
    lv, flow = along(logsnr), flow_maps.flow_level(logsnr)
    z = bcast(levels.rescale(lv, flow), z) * z
    u_bar = velocity(z, logsnr, t)
    x_hat = z - bcast(flow.sigma, z) * u_bar
    eps_hat = z + bcast(flow.alpha, z) * u_bar
    a, b = -lv.sigma / sigma_data**2, lv.alpha
    return bcast(a, z) * x_hat + bcast(b, z) * eps_hat

  if teacher is None:
    clean, noise = x.astype(z_flow.dtype), eps.astype(z_flow.dtype)
  else:
    clean, noise = teacher(z_flow, flow, cond)
  speed = sigma_data * cos * noise - sin * clean
  z = bcast(levels.rescale(flow, lv), z_flow) * z_flow
  # cos φ sin φ d/dφ: dlogsnr/dφ = -2/(sin φ cos φ), so that no end is infinite
  tangents = cos * sin * speed, jnp.full_like(s, -2.0)
  f, slope = forward_mode.jvp(network, (z, s), tangents)
  turn = bcast(jnp.asarray(warmup, z.dtype), z)
  g = -(cos**2) * (sigma_data * f - speed)
  g -= turn * (cos * sin * z + sigma_data * slope)
  g = g if norm is None else stabilisers.normalised(g, norm)
  # an error of F is one of ū, by dū = σ_d sin φ/τ dF
  moved = bcast(levels.rescale(flow, lv), z)
  residual = moved * (f - jax.lax.stop_gradient(f + g))
  return lib.weighted(objective, residual, s)


def _trig_flow(unit, sigma_data, logsnr):
  """The Level with alpha = cos φ, sigma = σ_d sin φ."""
  lv = levels.at_logsnr(unit, logsnr)
  return lv.replace(alpha=sigma_data * lv.alpha, sigma=sigma_data * lv.sigma)
