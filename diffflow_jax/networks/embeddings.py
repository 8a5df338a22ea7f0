"""What conditions a network: features of logsnr, and what it is told."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import told
from diffflow_jax.process.conditions import GUIDANCE, LABEL
from diffflow_jax.process.names import check_classes
from diffflow_jax.sampling import checks


def logsnr_features(logsnr, dim):
  """Sines and cosines of logsnr at dim/2 frequencies, (batch, dim).

  logsnr is clipped to ±20, beyond which z is data or noise to float32: exact
  ends, where it is infinite, are valid inputs.

  Raises:
    ValueError: dim is no integer >= 2.
  """
  checks.integer("dim", dim, 2)
  # periods from 80 (half a turn over the range) down to 2: denoisers are smooth
  # in logsnr, and faster waves only have to be unlearned
  half = dim // 2
  step = (jnp.arange(half) / half).astype(logsnr.dtype)  # also in x64
  freqs = 2.0 * math.pi / 80.0 * 40.0**step
  angle = jnp.clip(logsnr, -20.0, 20.0)[:, None] * freqs
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def angle_features(logsnr, dim):
  """Sines and cosines of atan(sigma/alpha) at dim/2 frequencies, (batch, dim).

  The angle runs from 0, data, to π/2, noise, and its speed in flow time is
  bounded, where that of logsnr is infinite at both ends. Derivatives along a
  trajectory, and between pure noise and the noisiest level that was trained,
  stay small as long as the waves are slow: of ten times as fast ones MeanFlow
  and sCM learn next to nothing.
  """
  half = dim // 2
  freqs = 4.0 ** (jnp.arange(half) / half)  # periods from 2π to 2π/4
  logsnr = jnp.clip(logsnr, -40.0, 40.0)  # beyond which its slope is 0
  angle = jnp.arctan(jnp.exp(-0.5 * logsnr))[:, None] * freqs
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


FEATURES = {"logsnr": logsnr_features, "angle": angle_features}


class Way(nn.Module):
  """From one level to another, logsnr both -> (batch, dim).

  A function of the difference of their features that is 0 at 0: exactly nothing
  where they are equal, and nothing at all at initialisation.
  """

  dim: int

  @nn.compact
  def __call__(self, logsnr, to):
    way = angle_features(to, self.dim) - angle_features(logsnr, self.dim)
    dense = functools.partial(nn.Dense, self.dim, use_bias=False)
    return dense(kernel_init=nn.initializers.zeros)(nn.silu(dense()(way)))


class Conditioning(nn.Module):
  """(logsnr, cond) -> one vector (batch, dim).

  Labels run from 0 to num_classes - 1; num_classes itself means "no class",
  what classifier-free guidance calls the null condition. With num_classes = 0
  and no conditions the network is unconditional and cond is ignored. logsnr
  enters as num_features of FEATURES[level], dim of them by default. With
  conditions, `told.named`, cond is `told.read`, and tokens are its sequences.

  With destination it is also told to, the log-SNR (batch,) that a flow map goes
  to, by a `Way`; None is logsnr itself, which adds nothing.
  """

  dim: int
  num_classes: int = 0
  num_features: int | None = None
  conditions: Any = None
  level: str = "logsnr"
  destination: bool = False

  @nn.compact
  def __call__(self, logsnr, cond=None, tokens=None, to=None):
    features = FEATURES[self.level]
    h = nn.Dense(self.dim)(features(logsnr, self.num_features or self.dim))
    h = nn.Dense(self.dim)(nn.silu(h))
    if self.destination:
      to = logsnr if to is None else to
      h = h + Way(self.dim, name="destination")(logsnr, to)
    elif to is not None:
      raise ValueError(
        "the network is told where it goes, and was made without "
        "destination=True, which makes it a flow map's"
      )
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
        # a network that is now told a strength is at first what it was
        how = {"kernel_init": nn.initializers.zeros} if name == GUIDANCE else {}
        h = h + told.Vector(self.dim, one.null, name=name, **how)(cond[name])
      elif one.kind == "sequence":
        pooled = nn.silu(told.mean(tokens[name]))
        h = h + nn.Dense(self.dim, use_bias=False, name=name)(pooled)
    return nn.silu(h)
