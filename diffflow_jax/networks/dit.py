"""A diffusion transformer, conditioned on logsnr and on what it is told.

Peebles & Xie, arXiv:2212.09748 §3: patches as tokens, blocks with adaLN-Zero.
The blocks are one scan over stacked parameters, so compile time does not grow
with depth.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import layers, patches, told
from diffflow_jax.networks.blocks import (
  XAVIER,
  ZEROS,
  Block,
  JointBlock,
  modulated,
)
from diffflow_jax.networks.embeddings import FEATURES, Conditioning
from diffflow_jax.process import ranges

POSITIONS = ("sincos", "rope")
SEQUENCES = ("cross", "joint")

# arXiv:2212.09748 Table 1
SIZES = {
  "s": dict(width=384, depth=12, num_heads=6),
  "b": dict(width=768, depth=12, num_heads=12),
  "l": dict(width=1024, depth=24, num_heads=16),
  "xl": dict(width=1152, depth=28, num_heads=16),
}


class DiT(nn.Module):
  """apply(params, z (batch, *sides, c), logsnr (batch,), cond) -> like z.

  Series, images, volumes, video: any number of sides.

  Attributes:
    width, depth, num_heads: of the transformer; see SIZES for the paper's.
    patch: side of the square that is one token, or a side for each axis.
    num_classes: 0 is unconditional; labels are 0 … num_classes - 1, and
      num_classes means "no class".
    conditions: {name: Condition} that cond holds beside or instead of labels;
      see `told`.
    sequences: how those are taken: "cross", by cross-attention in each block,
      or "joint", by attention over both as MM-DiT has it, arXiv:2403.03206.
    positions: "sincos" adds fixed embeddings, "rope" rotates queries and keys.
    dropout: of what attention and MLP add, where apply gets rngs={"dropout":
      key}; without it nothing is dropped.
    dtype: "bfloat16" computes in it, with float32 parameters, statistics,
      softmax and output; None computes in z's.
    remat: blocks are run again in the backward pass; without it their matrix
      products are kept in memory, and what is cheap is computed again.
    level: what of it the network sees, "logsnr" or "angle", `FEATURES`; along a
      trajectory the second has small derivatives, which flow maps are made of.
    destination: it is a flow map's: apply(params, z, logsnr, cond, to).

  Zero at initialisation.

  Raises:
    ValueError: heads that do not divide the width into multiples of 4; sides
      that patches do not cover; too few channels for the positions; unknown
      positions or sequences; conditions that are none.
  """

  width: int = 384
  depth: int = 12
  num_heads: int = 6
  patch: Any = 2
  num_classes: int = 0
  positions: str = "sincos"
  dtype: Any = None
  remat: bool = False
  conditions: Any = None
  sequences: str = "cross"
  dropout: float = 0.0
  level: str = "logsnr"
  destination: bool = False

  def __post_init__(self):
    layers.check_dtype(self.dtype)
    layers.check_one_of(FEATURES, level=self.level)
    self.num_classes = told.check("DiT", self.conditions, self.num_classes)
    ranges.check("dropout", self.dropout, "in [0, 1)")
    layers.check_positive(
      width=self.width, depth=self.depth, num_heads=self.num_heads
    )
    for patch in layers.each(self.patch):
      layers.check_positive(patch=patch)
    if self.width % (4 * self.num_heads):
      raise ValueError(
        f"width must be divisible by 4 x {self.num_heads} heads, "
        f"not {self.width}"
      )
    layers.check_one_of(POSITIONS, positions=self.positions)
    layers.check_one_of(SEQUENCES, sequences=self.sequences)
    has_sequence = told.of_kind(self.conditions or {}, "sequence")
    if self.sequences == "joint" and not has_sequence:
      raise ValueError(
        "sequences='joint' needs a condition that is a sequence, and there is "
        "none in conditions"
      )
    super().__post_init__()

  def _blocks(self, h, emb, angle, context):
    """The blocks; a joint one carries the context along."""
    joint = self.sequences == "joint"
    block = JointBlock if joint else Block
    # a scan keeps in memory whatever its backward pass reads, each as it is: of
    # a GELU six arrays, which the products' outputs are enough for
    keep = None if self.remat else layers.keep_products
    block = nn.remat(block, prevent_cse=False, policy=keep)
    blocks = nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True, "dropout": True},
      in_axes=(nn.broadcast, nn.broadcast, nn.broadcast),
      length=self.depth,
    )(self.num_heads, self.dtype, self.dropout, name="blocks")
    if joint:
      (h, _), _ = blocks((h, context[0]), emb, angle, context[1])
    else:
      h, _ = blocks(h, emb, angle, context)
    return h

  def _angles(self, grid):
    """Of rotary positions, or None."""
    head_dim = self.width // self.num_heads
    rope, axes = self.positions == "rope", len(grid)
    if (head_dim if rope else self.width) < 2 * axes:
      raise ValueError(
        f"positions={self.positions!r} on {axes} axes need at least {2 * axes} "
        f"channels{' a head' if rope else ''}, and width is {self.width} in "
        f"{self.num_heads} heads"
      )
    return patches.angles(grid, head_dim // (2 * axes)) if rope else None

  @nn.compact
  def __call__(self, z, logsnr, cond=None, to=None):
    sides = layers.sides_of("DiT", z)
    # a scan keeps z's precision, whatever a grid in float64 has
    logsnr = jnp.asarray(logsnr, jnp.promote_types(z.dtype, jnp.float32))
    patch = layers.per_axis("patch", self.patch, len(sides))
    grid = patches.cut(sides, patch)
    named = told.named(self.conditions)
    cond = told.read(named, cond, z)
    tokens = told.Sequences(self.width, named)(cond)
    emb = Conditioning(
      self.width,
      self.num_classes,
      num_features=256,
      conditions=named,
      level=self.level,
      destination=self.destination,
    )(logsnr, cond, tokens, to)
    h = nn.Dense(self.width, dtype=self.dtype, kernel_init=XAVIER)(
      patches.to_patches(told.Images(named)(z, cond), patch)
    )
    angle = self._angles(grid)
    if angle is None:
      h = h + patches.sincos(grid, self.width).astype(h.dtype)
    h = self._blocks(h, emb, angle, told.joined(tokens, h.dtype))
    # with no dtype: in the float32 of the parameters
    two = nn.Dense(2 * self.width, kernel_init=ZEROS)(emb)[:, None]
    h = modulated(h.astype(z.dtype), *jnp.split(two, 2, axis=-1))
    h = nn.Dense(math.prod(patch) * z.shape[-1], kernel_init=ZEROS)(h)
    return patches.from_patches(h, grid, patch)
