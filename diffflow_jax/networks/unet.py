"""A UNet for images, conditioned on logsnr and class.

Residual blocks with adaptive group norm, and self-attention at chosen
resolutions, after Dhariwal & Nichol, arXiv:2105.05233 §3 ("ADM").
"""

from collections.abc import Sequence
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import layers
from diffflow_jax.networks.embeddings import Conditioning
from diffflow_jax.process import ranges


class ResBlock(nn.Module):
  """Two 3x3 convolutions; the embedding scales and shifts between them."""

  channels: int
  num_groups: int = 8
  dtype: Any = None

  @nn.compact
  def __call__(self, h, emb):
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    conv = functools.partial(
      nn.Conv, self.channels, kernel_size=(3, 3), dtype=self.dtype
    )
    norm = functools.partial(
      nn.GroupNorm, num_groups=self.num_groups, dtype=self.dtype
    )
    y = conv()(nn.silu(norm()(h)))
    scale, shift = jnp.split(dense(2 * self.channels)(emb), 2, axis=-1)
    y = norm()(y)
    y = nn.silu(y * (1.0 + scale[:, None, None]) + shift[:, None, None])
    y = conv(kernel_init=nn.initializers.zeros)(y)
    if h.shape[-1] != self.channels:
      h = dense(self.channels)(h)
    return h + y


class Attention(nn.Module):
  """Residual self-attention over all pixels."""

  head_dim: int = 32
  num_groups: int = 8
  dtype: Any = None

  @nn.compact
  def __call__(self, h):
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    batch, *space, channels = h.shape
    heads = num_heads(channels, self.head_dim)
    y = nn.GroupNorm(num_groups=self.num_groups, dtype=self.dtype)(h)
    # the key's bias would cancel in the softmax
    qkv = dense(3 * channels, use_bias=False)(y.reshape(batch, -1, channels))
    q, k, v = jnp.split(
      qkv.reshape(batch, -1, heads, channels * 3 // heads), 3, -1
    )
    y = layers.attend(q, k, v).reshape(batch, *space, channels)
    return h + dense(channels, kernel_init=nn.initializers.zeros)(y)


def num_heads(channels, head_dim):
  """Heads of about head_dim channels each."""
  return max(channels // head_dim, 1)


class UNet(nn.Module):
  """apply(params, z (batch, h, w, c), logsnr (batch,), cond) -> like z.

  Attributes:
    channels: per resolution, finest first; each next one halves the sides.
    num_blocks: residual blocks per resolution on the way down.
    num_classes: 0 is unconditional; labels are 0 … num_classes - 1, and
      num_classes means "no class".
    attention: image sides at which every block is followed by self-attention;
      the middle of the network always has it.
    head_dim: channels of an attention head; num_groups: of the group norms.
    dtype: "bfloat16" computes in it, with float32 parameters, statistics,
      softmax and output; None computes in z's.
    remat: blocks are run again in the backward pass instead of kept in memory.

  Zero at initialisation.

  Raises:
    ValueError: channels that groups or heads do not divide; image sides that
      the resolutions do not halve evenly; attention at a side there is not.
  """

  channels: Sequence[int] = (32, 64)
  num_blocks: int = 2
  num_classes: int = 0
  attention: Sequence[int] = ()
  head_dim: int = 32
  num_groups: int = 8
  dtype: Any = None
  remat: bool = False

  def __post_init__(self):
    layers.check_dtype(self.dtype)
    ranges.check("num_classes", self.num_classes, "an integer >= 0")
    layers.check_positive(
      num_blocks=self.num_blocks,
      head_dim=self.head_dim,
      num_groups=self.num_groups,
    )
    if not self.channels:
      raise ValueError("channels must name at least one resolution, not ()")
    for channels in self.channels:
      layers.check_positive(channels=channels)
      heads = num_heads(channels, self.head_dim)
      for parts, of in ((self.num_groups, "groups"), (heads, "heads")):
        if channels % parts:
          raise ValueError(
            f"channels must be divisible by the {parts} {of}, not {channels}"
          )
    super().__post_init__()

  def _check_sides(self, sides):
    halvings = 2 ** (len(self.channels) - 1)
    if any(side % halvings for side in sides):
      raise ValueError(
        f"{len(self.channels)} resolutions need image sides divisible by "
        f"{halvings}, not {' x '.join(map(str, sides))}"
      )
    have = [sides[0] // 2**i for i in range(len(self.channels))]
    for side in self.attention:
      if side not in have:
        raise ValueError(
          f"attention must be at sides out of {have}, not {side}"
        )

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    self._check_sides(z.shape[1:3])
    run = layers.recomputed if self.remat else layers.call
    precision = dict(num_groups=self.num_groups, dtype=self.dtype)
    conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)

    def attention(h):
      return run(Attention(self.head_dim, **precision), h)

    def block(h, channels):
      h = run(ResBlock(channels, **precision), h, emb)
      return attention(h) if h.shape[1] in self.attention else h

    emb = Conditioning(4 * self.channels[0], self.num_classes)(logsnr, cond)
    h = conv(self.channels[0])(z)
    skips = [h]
    for i, channels in enumerate(self.channels):
      if i:
        h = conv(channels, strides=2)(h)
        skips.append(h)
      for _ in range(self.num_blocks):
        h = block(h, channels)
        skips.append(h)
    middle = functools.partial(ResBlock, self.channels[-1], **precision)
    h = run(middle(), h, emb)
    h = run(middle(), attention(h), emb)
    for i, channels in reversed(list(enumerate(self.channels))):
      for _ in range(self.num_blocks + 1):
        h = block(jnp.concatenate([h, skips.pop()], axis=-1), channels)
      if i:
        h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
        h = conv(self.channels[i - 1])(h)
    # with no dtype: in the float32 of the parameters
    h = nn.silu(nn.GroupNorm(num_groups=self.num_groups)(h))
    return nn.Conv(z.shape[-1], (3, 3), kernel_init=nn.initializers.zeros)(h)
