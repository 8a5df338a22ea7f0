"""Guidance: wrappers of predict, with their numbers as data."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Guided:
  """Classifier-free guidance, arXiv:2207.12598 eq. 6 with w = 1 + theirs.

      x̂ = x̂_null + w (x̂_cond - x̂_null),   the same for ε̂

  The maps between targets are affine and the weights sum to 1, so this is the
  same whatever the network predicts and whatever the scale. Both branches go
  through the network as one batch of twice the size.

  Attributes:
    predict: what is guided.
    null: the condition that means none, as one entry of cond, a pytree like it.
    strength: w; 1 is off, 0 unconditional. A number or (batch,).
  """

  predict: Any
  null: Any
  strength: Any = 1.0

  def __call__(self, z, lv, cond):
    null = jax.tree.map(
      lambda n, c: jnp.broadcast_to(jnp.asarray(n, c.dtype), c.shape),
      self.null,
      cond,
    )
    twice = lambda a, b: jnp.concatenate([a, b])
    per_sample = lambda c: twice(c, c) if jnp.ndim(c) else c
    x_hat, eps_hat = self.predict(
      twice(z, z),
      jax.tree.map(per_sample, lv),
      jax.tree.map(twice, jax.tree.map(jnp.asarray, cond), null),
    )
    w = jnp.asarray(self.strength, z.dtype)
    w = w.reshape(w.shape + (1,) * (z.ndim - w.ndim))

    def mix(both):
      given, none = jnp.split(both, 2)
      return none + w * (given - none)

    return mix(x_hat), mix(eps_hat)
