"""A residual MLP, for points in a few dimensions."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import layers, told
from diffflow_jax.networks.embeddings import FEATURES, Conditioning


class MLP(nn.Module):
  """Residual blocks whose hidden layer is scaled and shifted by the level.

  apply(params, z (batch, d), logsnr (batch,), cond) -> (batch, d), zero at
  initialisation. dtype "bfloat16" computes in it, with float32 parameters and
  output; None computes in z's. conditions, {name: Condition}, are what cond
  holds beside or instead of labels: no images, and of sequences the mean. level
  is what it sees of it, "logsnr" or "angle", `FEATURES`: along a trajectory the
  second has small derivatives, which flow maps are made of. With destination it
  is a flow map's: apply(params, z, logsnr, cond, to).
  """

  width: int = 128
  depth: int = 3
  num_classes: int = 0
  dtype: Any = None
  conditions: Any = None
  level: str = "logsnr"
  destination: bool = False

  def __post_init__(self):
    layers.check_dtype(self.dtype)
    layers.check_one_of(FEATURES, level=self.level)
    kinds = ("label", "vector", "sequence")
    self.num_classes = told.check(
      "MLP", self.conditions, self.num_classes, kinds
    )
    layers.check_positive(width=self.width, depth=self.depth)
    super().__post_init__()

  @nn.compact
  def __call__(self, z, logsnr, cond=None, to=None):
    if z.ndim != 2:
      raise ValueError(
        f"MLP takes points (batch, d), not z of shape {z.shape}: UNet and DiT "
        "take series, images and video"
      )
    named = told.named(self.conditions)
    cond = told.read(named, cond, z)
    tokens = told.Sequences(self.width, named)(cond)
    emb = Conditioning(
      self.width,
      self.num_classes,
      conditions=named,
      level=self.level,
      destination=self.destination,
    )(logsnr, cond, tokens, to)
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    h = dense(self.width)(z)
    for _ in range(self.depth):
      y = dense(self.width)(nn.LayerNorm(dtype=self.dtype)(h))
      scale, shift = jnp.split(dense(2 * self.width)(emb), 2, axis=-1)
      h = h + dense(self.width)(nn.silu(y * (1.0 + scale) + shift))
    return nn.Dense(z.shape[-1], kernel_init=nn.initializers.zeros)(h)
