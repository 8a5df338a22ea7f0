"""A residual MLP, for points in a few dimensions."""

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks.embeddings import Conditioning


class MLP(nn.Module):
  """Residual blocks whose hidden layer is scaled and shifted by the level.

  apply(params, z (batch, d), logsnr (batch,), cond) -> (batch, d), zero at
  initialisation.
  """

  width: int = 128
  depth: int = 3
  num_classes: int = 0

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    emb = Conditioning(self.width, self.num_classes)(logsnr, cond)
    h = nn.Dense(self.width)(z)
    for _ in range(self.depth):
      y = nn.Dense(self.width)(nn.LayerNorm()(h))
      scale, shift = jnp.split(nn.Dense(2 * self.width)(emb), 2, axis=-1)
      h = h + nn.Dense(self.width)(nn.silu(y * (1.0 + scale) + shift))
    return nn.Dense(z.shape[-1], kernel_init=nn.initializers.zeros)(h)
