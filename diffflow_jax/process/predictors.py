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

from diffflow_jax.process import levels, nodes, targets


@struct.dataclass
class Predictor:
  """A trained network, callable from any schedule and any scale.

  Calls `apply(params, z, logsnr, cond)` with z moved to the scale it was
  trained on and logsnr of shape (batch,), clipped to the trained range (a level
  that the network never saw is replaced by the nearest one that it did):

      z_own = z rescale(lv, own),  ŷ = apply(z_own),  (x̂, ε̂) from ŷ's row

  x̂ and ε̂ do not depend on the scale, so they carry over unchanged. They are of
  z's dtype; levels and the conversion are of float32 or wider.
  """

  params: Any
  schedule: Any
  apply: Callable = struct.field(pytree_node=False)
  target: Any
  scale: Any

  def __post_init__(self):
    nodes.hold_nodes(self, "target", "scale")

  def __call__(self, z, lv, cond=None):
    levels.check_level(lv)
    levels.check_data("z", z)
    # levels in float32 at least: a bf16 logsnr has lost its second decimal
    wide = jnp.promote_types(z.dtype, jnp.float32)
    lo, hi = self.schedule.logsnr(jnp.array([1.0, 0.0], wide))
    logsnr = jnp.clip(jnp.asarray(lv.logsnr, wide), lo, hi)
    own = levels.at_logsnr(self.scale, logsnr, self.schedule)
    z_own = levels.bcast(levels.rescale(lv, own), z).astype(wide) * z
    y = self.apply(
      self.params,
      z_own.astype(z.dtype),
      jnp.broadcast_to(logsnr, z.shape[:1]),
      cond,
    )
    both = targets.to_x_eps(self.target, y, z_own, own)
    return tuple(part.astype(z.dtype) for part in both)
