"""A UNet for small images, conditioned on logsnr and class.

Residual blocks with adaptive group norm and self-attention at the coarsest
resolution, after Dhariwal & Nichol, arXiv:2105.05233 §3, reduced.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffflow_jax.networks.embeddings import Conditioning


class ResBlock(nn.Module):
  """Two 3x3 convolutions; the embedding scales and shifts between them."""

  channels: int

  @nn.compact
  def __call__(self, h, emb):
    y = nn.silu(nn.GroupNorm(num_groups=8)(h))
    y = nn.Conv(self.channels, (3, 3))(y)
    scale, shift = jnp.split(nn.Dense(2 * self.channels)(emb), 2, axis=-1)
    y = nn.GroupNorm(num_groups=8)(y)
    y = nn.silu(y * (1.0 + scale[:, None, None]) + shift[:, None, None])
    y = nn.Conv(self.channels, (3, 3), kernel_init=nn.initializers.zeros)(y)
    if h.shape[-1] != self.channels:
      h = nn.Dense(self.channels)(h)
    return h + y


class Attention(nn.Module):
  """Residual self-attention over all pixels."""

  head_dim: int = 32

  @nn.compact
  def __call__(self, h):
    batch, *space, channels = h.shape
    heads = max(channels // self.head_dim, 1)
    y = nn.GroupNorm(num_groups=8)(h).reshape(batch, -1, channels)
    # the key's bias would cancel in the softmax
    qkv = nn.Dense(3 * channels, use_bias=False)(y)
    q, k, v = jnp.split(
      qkv.reshape(batch, -1, heads, channels * 3 // heads), 3, -1
    )
    y = jax.nn.dot_product_attention(q, k, v).reshape(batch, *space, channels)
    return h + nn.Dense(channels, kernel_init=nn.initializers.zeros)(y)


class UNet(nn.Module):
  """apply(params, z (batch, h, w, c), logsnr (batch,), cond) -> like z.

  Attributes:
    channels: per resolution, finest first; each next one halves the sides.
    num_blocks: residual blocks per resolution on the way down.
    num_classes: 0 is unconditional; labels are 0 … num_classes - 1, and
      num_classes means "no class".

  Zero at initialisation.
  """

  channels: Sequence[int] = (32, 64)
  num_blocks: int = 2
  num_classes: int = 0

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    emb = Conditioning(4 * self.channels[0], self.num_classes)(logsnr, cond)
    h = nn.Conv(self.channels[0], (3, 3))(z)
    skips = [h]
    for i, channels in enumerate(self.channels):
      if i:
        h = nn.Conv(channels, (3, 3), strides=2)(h)
        skips.append(h)
      for _ in range(self.num_blocks):
        h = ResBlock(channels)(h, emb)
        skips.append(h)
    h = ResBlock(self.channels[-1])(h, emb)
    h = ResBlock(self.channels[-1])(Attention()(h), emb)
    for i, channels in reversed(list(enumerate(self.channels))):
      for _ in range(self.num_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = ResBlock(channels)(h, emb)
      if i:
        h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
        h = nn.Conv(self.channels[i - 1], (3, 3))(h)
    h = nn.silu(nn.GroupNorm(num_groups=8)(h))
    return nn.Conv(z.shape[-1], (3, 3), kernel_init=nn.initializers.zeros)(h)
