"""What conditions a network: features of logsnr, and what it is told."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import told
from diffflow_jax.process.conditions import LABEL
from diffflow_jax.process.names import check_classes


def logsnr_features(logsnr, dim):
  """Sines and cosines of logsnr at dim/2 frequencies, (batch, dim).

  logsnr is clipped to ±20, beyond which z is data or noise to float32: exact
  ends, where it is infinite, are valid inputs.
  """
  # periods from 80 (half a turn over the range) down to 2: denoisers are smooth
  # in logsnr, and faster waves only have to be unlearned
  half = dim // 2
  step = (jnp.arange(half) / half).astype(logsnr.dtype)  # also in x64
  freqs = 2.0 * math.pi / 80.0 * 40.0**step
  angle = jnp.clip(logsnr, -20.0, 20.0)[:, None] * freqs
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Conditioning(nn.Module):
  """(logsnr, cond) -> one vector (batch, dim).

  Labels run from 0 to num_classes - 1; num_classes itself means "no class",
  what classifier-free guidance calls the null condition. With num_classes = 0
  and no conditions the network is unconditional and cond is ignored. logsnr
  enters as num_features sines and cosines, dim of them by default. With
  conditions, `told.named`, cond is `told.read`, and tokens are its sequences.
  """

  dim: int
  num_classes: int = 0
  num_features: int | None = None
  conditions: Any = None

  @nn.compact
  def __call__(self, logsnr, cond=None, tokens=None):
    features = logsnr_features(logsnr, self.num_features or self.dim)
    h = nn.Dense(self.dim)(features)
    h = nn.Dense(self.dim)(nn.silu(h))
    if self.num_classes:
      label = cond[LABEL] if self.conditions else cond
      if label is None:
        label = jnp.full(logsnr.shape, self.num_classes)
      check_classes(label, self.num_classes)
      h = h + nn.Embed(self.num_classes + 1, self.dim)(label)
    for name, one in (self.conditions or {}).items():
      if one.kind == "label" and name != LABEL:
        h = h + nn.Embed(one.num_classes + 1, self.dim, name=name)(cond[name])
      elif one.kind == "vector":
        h = h + told.Vector(self.dim, one.null, name=name)(cond[name])
      elif one.kind == "sequence":
        pooled = nn.silu(told.mean(tokens[name]))
        h = h + nn.Dense(self.dim, use_bias=False, name=name)(pooled)
    return nn.silu(h)
