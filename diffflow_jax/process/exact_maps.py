"""Exact flow maps of known laws: the oracle of few-step models.

    flow_map(law)(z, lv, cond) -> (X, E) from lv to lv.to

A Gaussian's is affine, a one-dimensional mixture's matches quantiles, and any
other predictor's (mixtures and data sets in d dimensions, a guided one, a
network) is its probability-flow ODE solved on a fine grid.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process import flow_maps, inputs, levels, nodes
from diffflow_jax.process.levels import bcast
from diffflow_jax.process.schedule import clip_far

WITHIN = 26.0  # |logsnr| beyond which x̂ stands still to 1e-11


@struct.dataclass
class FlowMap:
  """The exact flow map of `law`, a flow map's predictor: see `flow_map`."""

  law: Any
  num_steps: int = struct.field(pytree_node=False, default=512)
  destination = True
  reaches = "any"

  def __post_init__(self):
    inputs.check_predict(self.law)
    nodes.hold_nodes(self, "law")

  def __call__(self, z, lv, cond=None):
    inputs.check_level(lv)
    to = lv.logsnr if lv.to is None else lv.to
    return effective(self.law, z, lv, to, cond, self.num_steps)


def flow_map(law, num_steps=512):
  """The exact flow map of a law, or of any predictor: predict(z, lv, cond).

      alpha_s X + sigma_s E = z,    alpha_t X + sigma_t E = Φ(z)

  from s = lv to t = lv.to, a logsnr; where that is None or lv's own the law's
  x̂, ε̂. Gaussians and mixtures in one dimension are exact to rounding, both
  ends included. Of others the ODE is solved by num_steps of Runge-Kutta 4
  between |logsnr| = 26 and by one step beyond, in the dtype of z: use float64.

  Equation (effective) of docs/math.

  Raises:
    TypeError: law cannot be called.
  """
  return FlowMap(law, num_steps)


def effective(law, z, s, to, cond=None, num_steps=512):
  """(X, E) of a law's exact flow map from Level s to logsnr `to`."""
  if getattr(law, "has_exact_flow", False):
    return law.effective(z, s, to)
  # x̂ and ε̂ do not depend on the scale: all is done in flow time
  each = lambda logsnr: jnp.broadcast_to(logsnr, z.shape[:1])
  here, there = each(jnp.asarray(s.logsnr, z.dtype)), each(to)
  flow = flow_maps.flow_level(here)
  z = bcast(levels.rescale(s, flow), z) * z
  u_bar = _mean_velocity(law, z, here, there.astype(z.dtype), cond, num_steps)
  return z - bcast(flow.sigma, z) * u_bar, z + bcast(flow.alpha, z) * u_bar


def _mean_velocity(law, z, s, t, cond, num_steps):
  """ū from s to t: the mean of ε̂ - x̂ along the trajectory.

      dU = u(z - (s - t) U, τ) dτ/(t - s)

  so that nothing is divided by s - t, and U is u itself at t = s. Equal steps
  in logsnr, with one Euler step, DDIM's, beyond `WITHIN` at either end.
  """

  def velocity(z, logsnr):
    x, eps = law(z, flow_maps.flow_level(logsnr), cond)
    return eps - x

  whole = flow_maps.lapse(s, t)
  still = whole == 0.0
  share = lambda a, b: jnp.where(
    still, 0.0, flow_maps.lapse(a, b) / jnp.where(still, 1.0, whole)
  )
  at = lambda u_bar: z - bcast(whole, z) * u_bar
  a, b = (jnp.clip(l, -WITHIN, WITHIN) for l in (s, t))
  outside = still | (a == b)
  u_bar = bcast(jnp.where(outside, 1.0, share(s, a)), z) * velocity(z, s)

  def slope(u_bar, r):
    logsnr = a + r * (b - a)
    lv = flow_maps.flow_level(logsnr)
    speed = 0.5 * (b - a) * lv.alpha * lv.sigma
    speed = jnp.where(outside, 0.0, speed / jnp.where(still, 1.0, whole))
    return bcast(speed, z) * velocity(at(u_bar), logsnr)

  def step(u_bar, i):
    h = 1.0 / num_steps
    r = i * h
    k1 = slope(u_bar, r)
    k2 = slope(u_bar + 0.5 * h * k1, r + 0.5 * h)
    k3 = slope(u_bar + 0.5 * h * k2, r + 0.5 * h)
    k4 = slope(u_bar + h * k3, r + h)
    return u_bar + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4), None

  u_bar, _ = jax.lax.scan(step, u_bar, jnp.arange(num_steps, dtype=z.dtype))
  last = jnp.where(outside, 0.0, share(b, t))
  return u_bar + bcast(last, z) * velocity(at(u_bar), clip_far(b))
