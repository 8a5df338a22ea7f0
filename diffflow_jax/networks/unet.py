"""A UNet over any number of axes, conditioned on logsnr and what it is told.

Residual blocks with adaptive group norm, and self-attention at chosen
resolutions, after Dhariwal & Nichol, arXiv:2105.05233 §3 ("ADM").
"""

from collections.abc import Sequence
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import layers, told
from diffflow_jax.networks.embeddings import FEATURES, Conditioning
from diffflow_jax.process import ranges


class ResBlock(nn.Module):
  """Two convolutions; the embedding scales and shifts between them.

  Dropout is before the second, as ADM has it.
  """

  channels: int
  num_groups: int = 8
  dtype: Any = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, h, emb):
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    axes = h.ndim - 2
    conv = functools.partial(
      nn.Conv, self.channels, kernel_size=(3,) * axes, dtype=self.dtype
    )
    norm = functools.partial(
      nn.GroupNorm, num_groups=self.num_groups, dtype=self.dtype
    )
    y = conv()(nn.silu(norm()(h)))
    scale, shift = jnp.split(dense(2 * self.channels)(emb), 2, axis=-1)
    y = norm()(y)
    over = lambda a: jnp.expand_dims(a, tuple(range(1, 1 + axes)))
    y = nn.silu(y * (1.0 + over(scale)) + over(shift))
    y = layers.dropout(self)(y)
    y = conv(kernel_init=nn.initializers.zeros)(y)
    if h.shape[-1] != self.channels:
      h = dense(self.channels)(h)
    return h + y


class Attention(nn.Module):
  """Residual self-attention over all places, and then to a context."""

  head_dim: int = 32
  num_groups: int = 8
  dtype: Any = None

  @nn.compact
  def __call__(self, h, context=None):
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    batch, *space, channels = h.shape
    heads = num_heads(channels, self.head_dim)
    norm = functools.partial(
      nn.GroupNorm, num_groups=self.num_groups, dtype=self.dtype
    )
    y = norm()(h)
    # the key's bias would cancel in the softmax
    qkv = dense(3 * channels, use_bias=False)(y.reshape(batch, -1, channels))
    q, k, v = jnp.split(
      qkv.reshape(batch, -1, heads, channels * 3 // heads), 3, -1
    )
    y = layers.attend(q, k, v).reshape(batch, *space, channels)
    h = h + dense(channels, kernel_init=nn.initializers.zeros)(y)
    if context is None:
      return h
    y = norm()(h).reshape(batch, -1, channels)
    y = layers.CrossAttention(heads, self.dtype)(y, *context)
    return h + y.reshape(h.shape)


def num_heads(channels, head_dim):
  """Heads of about head_dim channels each."""
  return max(channels // head_dim, 1)


class UNet(nn.Module):
  """apply(params, z (batch, *sides, c), logsnr (batch,), cond) -> like z.

  Series, images, volumes, video: any number of sides.

  Attributes:
    channels: per resolution, finest first.
    num_blocks: residual blocks per resolution on the way down.
    num_classes: 0 is unconditional; labels are 0 … num_classes - 1, and
      num_classes means "no class".
    attention: sides of the first axis that is halved, an image's height, at
      which every block is followed by attention, to all places and to what
      sequences say; the middle of the network always has it.
    head_dim: channels of an attention head; num_groups: of the group norms.
    dtype: "bfloat16" computes in it, with float32 parameters, statistics,
      softmax and output; None computes in z's.
    remat: blocks are run again in the backward pass instead of kept in memory.
    conditions: {name: Condition} that cond holds beside or instead of labels;
      see `told`.
    stride: 2: each next resolution halves all sides; or 1 or 2 for each axis:
      (1, 2, 2) keeps a video's time.
    dropout: in the residual blocks, where apply gets rngs={"dropout": key};
      without it nothing is dropped.
    level: what of it the network sees, "logsnr" or "angle", `FEATURES`; along a
      trajectory the second has small derivatives, which flow maps are made of.
    destination: it is a flow map's: apply(params, z, logsnr, cond, to).

  Zero at initialisation.

  Raises:
    ValueError: channels that groups or heads do not divide; sides that the
      resolutions do not halve evenly; attention at a side there is not;
      conditions that are none.
  """

  channels: Sequence[int] = (32, 64)
  num_blocks: int = 2
  num_classes: int = 0
  attention: Sequence[int] = ()
  head_dim: int = 32
  num_groups: int = 8
  dtype: Any = None
  remat: bool = False
  conditions: Any = None
  stride: Any = 2
  dropout: float = 0.0
  level: str = "logsnr"
  destination: bool = False

  def __post_init__(self):
    layers.check_dtype(self.dtype)
    layers.check_one_of(FEATURES, level=self.level)
    self.num_classes = told.check("UNet", self.conditions, self.num_classes)
    ranges.check("dropout", self.dropout, "in [0, 1)")
    layers.check_positive(
      num_blocks=self.num_blocks,
      head_dim=self.head_dim,
      num_groups=self.num_groups,
    )
    for stride in layers.each(self.stride):
      if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2 for each axis, not {stride!r}")
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

  def _check_sides(self, sides, stride, first):
    halvings = len(self.channels) - 1
    if any(side % s**halvings for side, s in zip(sides, stride, strict=True)):
      raise ValueError(
        f"{len(self.channels)} resolutions need sides divisible by "
        f"{2**halvings}, not {' x '.join(map(str, sides))}"
      )
    have = [sides[first] // stride[first] ** i for i in range(halvings + 1)]
    for side in self.attention:
      if side not in have:
        raise ValueError(
          f"attention must be at sides out of {have}, not {side}"
        )

  @nn.compact
  def __call__(self, z, logsnr, cond=None, to=None):
    sides = layers.sides_of("UNet", z)
    stride = layers.per_axis("stride", self.stride, len(sides))
    first = stride.index(2) if 2 in stride else 0
    self._check_sides(sides, stride, first)
    run = layers.recomputed if self.remat else layers.call
    precision = dict(num_groups=self.num_groups, dtype=self.dtype)
    kernel = (3,) * len(sides)
    conv = functools.partial(nn.Conv, kernel_size=kernel, dtype=self.dtype)
    residual = functools.partial(ResBlock, **precision, dropout=self.dropout)

    def attention(h):
      return run(Attention(self.head_dim, **precision), h, context)

    def block(h, channels):
      h = run(residual(channels), h, emb)
      return attention(h) if h.shape[1 + first] in self.attention else h

    named, dim = told.named(self.conditions), 4 * self.channels[0]
    cond = told.read(named, cond, z)
    tokens = told.Sequences(dim, named)(cond)
    context = told.joined(tokens, z.dtype)
    emb = Conditioning(
      dim,
      self.num_classes,
      conditions=named,
      level=self.level,
      destination=self.destination,
    )(logsnr, cond, tokens, to)
    h = conv(self.channels[0])(told.Images(named)(z, cond))
    skips = [h]
    for i, channels in enumerate(self.channels):
      if i:
        h = conv(channels, strides=stride)(h)
        skips.append(h)
      for _ in range(self.num_blocks):
        h = block(h, channels)
        skips.append(h)
    h = run(residual(self.channels[-1]), h, emb)
    h = run(residual(self.channels[-1]), attention(h), emb)
    for i, channels in reversed(list(enumerate(self.channels))):
      for _ in range(self.num_blocks + 1):
        h = block(jnp.concatenate([h, skips.pop()], axis=-1), channels)
      if i:
        for axis, times in enumerate(stride, start=1):
          h = jnp.repeat(h, times, axis) if times > 1 else h
        h = conv(self.channels[i - 1])(h)
    # with no dtype: in the float32 of the parameters
    h = nn.silu(nn.GroupNorm(num_groups=self.num_groups)(h))
    return nn.Conv(z.shape[-1], kernel, kernel_init=nn.initializers.zeros)(h)
