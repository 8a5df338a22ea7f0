"""Predictors: the one contract that samplers know.

    predict(z, lv, cond) -> (x̂, ε̂)

z is on the scale of the Level lv, whose fields are () or (batch,). Anything
that keeps this contract can be sampled: a network wrapped by `Predictor`, a
closed form, guidance around another predictor.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax.numpy as jnp

from diffflow_jax.process import levels, targets


@struct.dataclass
class Predictor:
  """A trained network, callable from any schedule and any scale.

  Calls `apply(params, z, logsnr, cond)` with z moved to the scale it was
  trained on and logsnr of shape (batch,), clipped to the trained range (a level
  that the network never saw is replaced by the nearest one that it did):

      z_own = z rescale(lv, own),  ŷ = apply(z_own),  (x̂, ε̂) from ŷ's row

  x̂ and ε̂ do not depend on the scale, so they carry over unchanged.
  """

  params: Any
  schedule: Any
  apply: Callable = struct.field(pytree_node=False)
  target: Callable = struct.field(pytree_node=False)
  scale: Callable = struct.field(pytree_node=False)

  def __call__(self, z, lv, cond=None):
    lo, hi = self.schedule.logsnr(jnp.array([1.0, 0.0], z.dtype))
    logsnr = jnp.clip(jnp.asarray(lv.logsnr, z.dtype), lo, hi)
    own = levels.at_logsnr(self.scale, logsnr, self.schedule)
    z = levels.bcast(levels.rescale(lv, own), z).astype(z.dtype) * z
    logsnr = jnp.broadcast_to(logsnr, z.shape[:1])
    y = self.apply(self.params, z, logsnr, cond)
    return targets.to_x_eps(self.target, y, z, own)
