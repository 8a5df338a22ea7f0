"""What conditions a network: features of logsnr and of a class label."""

import math

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.process.names import check_classes


def logsnr_features(logsnr, dim):
  """Sines and cosines of logsnr at dim/2 frequencies, (batch, dim).

  logsnr is clipped to ±20, beyond which z is data or noise to float32: exact
  ends, where it is infinite, are valid inputs.
  """
  # periods from 80 (half a turn over the range) down to 2: denoisers are smooth
  # in logsnr, and faster waves only have to be unlearned
  half = dim // 2
  freqs = 2.0 * math.pi / 80.0 * 40.0 ** (jnp.arange(half) / half)
  angle = jnp.clip(logsnr, -20.0, 20.0)[:, None] * freqs
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class Conditioning(nn.Module):
  """(logsnr, class) -> one vector (batch, dim).

  Labels run from 0 to num_classes - 1; num_classes itself means "no class",
  what classifier-free guidance calls the null condition. With num_classes = 0
  the network is unconditional and cond is ignored. logsnr enters as
  num_features sines and cosines, dim of them by default.
  """

  dim: int
  num_classes: int = 0
  num_features: int | None = None

  @nn.compact
  def __call__(self, logsnr, cond=None):
    features = logsnr_features(logsnr, self.num_features or self.dim)
    h = nn.Dense(self.dim)(features)
    h = nn.Dense(self.dim)(nn.silu(h))
    if self.num_classes:
      if cond is None:
        cond = jnp.full(logsnr.shape, self.num_classes)
      check_classes(cond, self.num_classes)
      h = h + nn.Embed(self.num_classes + 1, self.dim)(cond)
    return nn.silu(h)
