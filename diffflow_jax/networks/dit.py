"""A diffusion transformer, conditioned on logsnr and class.

Peebles & Xie, arXiv:2212.09748 §3: patches as tokens, blocks with adaLN-Zero.
The blocks are one scan over stacked parameters, so compile time does not grow
with depth.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import layers
from diffflow_jax.networks.embeddings import Conditioning
from diffflow_jax.process import ranges

POSITIONS = ("sincos", "rope")
XAVIER = nn.initializers.xavier_uniform()
ZEROS = nn.initializers.zeros

# arXiv:2212.09748 Table 1
SIZES = {
  "s": dict(width=384, depth=12, num_heads=6),
  "b": dict(width=768, depth=12, num_heads=12),
  "l": dict(width=1024, depth=24, num_heads=16),
  "xl": dict(width=1152, depth=28, num_heads=16),
}


def angles(num_rows, num_columns, num_freqs):
  """Row and column of each token at num_freqs speeds, (tokens, 2, num_freqs).

  10000^(-i/num_freqs) radians a patch, arXiv:1706.03762 §3.5, on each axis.
  """
  freqs = 10000.0 ** (-jnp.arange(num_freqs) / num_freqs)
  at = jnp.indices((num_rows, num_columns)).reshape(2, -1).T
  return at[:, :, None] * freqs


def sincos(num_rows, num_columns, width):
  """Fixed position embeddings on a grid, (tokens, width)."""
  angle = angles(num_rows, num_columns, width // 4)
  features = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=2)
  return features.reshape(-1, width)


def rotate(q, angle):
  """Turns pairs of channels by the token's angles: rotary positions.

  Su et al., arXiv:2104.09864 eq. 34, half of the channels by the row and half
  by the column: q·k then depends on where they are relative to each other.

  Args:
    q: (batch, tokens, heads, head_dim); angle: (tokens, 2, head_dim/4).
  """
  angle = angle.reshape(angle.shape[0], 1, -1)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  a, b = jnp.split(q.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.astype(q.dtype)


def modulated(h, shift, scale, dtype=None):
  """LayerNorm without weights, then scaled and shifted by the condition."""
  norm = nn.LayerNorm(
    epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype
  )
  return norm(h) * (1.0 + scale) + shift


class Block(nn.Module):
  """Attention and MLP, each modulated and gated: the identity at first."""

  num_heads: int
  dtype: Any = None

  @nn.compact
  def __call__(self, h, emb, angle):
    batch, tokens, width = h.shape
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=XAVIER)
    six = dense(6 * width, kernel_init=ZEROS)(emb)[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(six, 6, axis=-1)

    y = modulated(h, shift1, scale1, self.dtype)
    # the key's bias would cancel in the softmax
    qkv = dense(3 * width, use_bias=False)(y)
    qkv = qkv.reshape(batch, tokens, 3, self.num_heads, -1)
    q, k, v = (qkv[:, :, i] for i in range(3))
    if angle is not None:
      q, k = rotate(q, angle), rotate(k, angle)
    y = layers.attend(q, k, v).reshape(batch, tokens, width)
    h = h + gate1 * dense(width)(y)

    y = modulated(h, shift2, scale2, self.dtype)
    y = nn.gelu(dense(4 * width)(y), approximate=True)
    return h + gate2 * dense(width)(y), None


class DiT(nn.Module):
  """apply(params, z (batch, h, w, c), logsnr (batch,), cond) -> like z.

  Attributes:
    width, depth, num_heads: of the transformer; see SIZES for the paper's.
    patch: side of the square that is one token.
    num_classes: 0 is unconditional; labels are 0 … num_classes - 1, and
      num_classes means "no class".
    positions: "sincos" adds fixed embeddings, "rope" rotates queries and keys.
    dtype: "bfloat16" computes in it, with float32 parameters, statistics,
      softmax and output; None computes in z's.
    remat: blocks are run again in the backward pass instead of kept in memory.

  Zero at initialisation.

  Raises:
    ValueError: heads that do not divide the width into multiples of 4; image
      sides that patches do not cover; unknown positions.
  """

  width: int = 384
  depth: int = 12
  num_heads: int = 6
  patch: int = 2
  num_classes: int = 0
  positions: str = "sincos"
  dtype: Any = None
  remat: bool = False

  def __post_init__(self):
    layers.check_dtype(self.dtype)
    ranges.check("num_classes", self.num_classes, "an integer >= 0")
    layers.check_positive(
      width=self.width,
      depth=self.depth,
      num_heads=self.num_heads,
      patch=self.patch,
    )
    if self.width % (4 * self.num_heads):
      raise ValueError(
        f"width must be divisible by 4 x {self.num_heads} heads, "
        f"not {self.width}"
      )
    if self.positions not in POSITIONS:
      raise ValueError(
        f"positions must be one of {', '.join(POSITIONS)}, "
        f"not {self.positions!r}"
      )
    super().__post_init__()

  def _blocks(self):
    block = nn.remat(Block, prevent_cse=False) if self.remat else Block
    return nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(nn.broadcast, nn.broadcast),
      length=self.depth,
    )(self.num_heads, self.dtype, name="blocks")

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    rows, columns = grid = _grid(z.shape[1:3], self.patch)
    emb = Conditioning(self.width, self.num_classes, num_features=256)(
      logsnr, cond
    )
    h = nn.Dense(self.width, dtype=self.dtype, kernel_init=XAVIER)(
      to_patches(z, self.patch)
    )
    if self.positions == "rope":
      angle = angles(*grid, self.width // self.num_heads // 4)
    else:
      angle, h = None, h + sincos(*grid, self.width).astype(h.dtype)
    h, _ = self._blocks()(h, emb, angle)
    # with no dtype: in the float32 of the parameters
    two = nn.Dense(2 * self.width, kernel_init=ZEROS)(emb)[:, None]
    h = modulated(h.astype(z.dtype), *jnp.split(two, 2, axis=-1))
    h = nn.Dense(self.patch**2 * z.shape[-1], kernel_init=ZEROS)(h)
    return from_patches(h, rows, columns, self.patch)


def _grid(sides, patch):
  """Rows and columns of patches in an image."""
  if any(side % patch for side in sides):
    raise ValueError(
      f"image sides must be divisible by the patch of {patch}, "
      f"not {' x '.join(map(str, sides))}"
    )
  return [side // patch for side in sides]


def to_patches(z, patch):
  """(batch, h, w, c) -> (batch, tokens, patch² c), row by row."""
  batch, h, w, c = z.shape
  z = z.reshape(batch, h // patch, patch, w // patch, patch, c)
  return z.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * c)


def from_patches(h, rows, columns, patch):
  """The inverse of `to_patches`."""
  batch = h.shape[0]
  h = h.reshape(batch, rows, columns, patch, patch, -1)
  h = h.transpose(0, 1, 3, 2, 4, 5)
  return h.reshape(batch, rows * patch, columns * patch, -1)
