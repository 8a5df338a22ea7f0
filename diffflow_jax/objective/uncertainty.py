"""Learned uncertainty: a weighting that divides each level's loss by itself.

    loss = e^-u(λ) · (base loss) + u(λ)       optimum: u = log E[base loss | λ]

EDM2, Karras et al., arXiv:2312.02696 eq. 14, 15 and 21: at the optimum every
level contributes a loss of 1 and a gradient of the same size. The base loss is
a mean over dimensions, at the density that levels are drawn from. u is one
linear layer on fixed Fourier features of c_noise = -logsnr/8.

The weights are trained with the network: keep an `Uncertainty` in what is
differentiated, and put it into the objective inside the loss,

    objective.replace(weighting=params["weighting"])
"""

import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process import nodes, ranges
from diffflow_jax.process.schedule import clip_far


@struct.dataclass
class Uncertainty:
  """log w = base(logsnr) - u(logsnr), with the penalty u.

  Equation (uncertainty) of docs/math.

  Attributes:
    base: the weighting whose loss is divided.
    weights: (num_channels,), the linear layer; zeros are u = 0.
  """

  base: Any
  weights: jax.Array

  def __post_init__(self):
    nodes.hold_nodes(self, "base")

  def penalty(self, logsnr):
    """u(logsnr), which losses add to the weighted error."""
    num = self.weights.shape[0]
    j = jnp.arange(num)
    freqs = jax.scipy.special.ndtri((j + 0.5) / num)
    phases = (j * 0.5 * (math.sqrt(5.0) - 1.0)) % 1.0
    c_noise = -clip_far(logsnr) / 8.0
    angle = 2.0 * math.pi * (c_noise[..., None] * freqs + phases)
    return jnp.cos(angle) @ self.weights * math.sqrt(2.0 / num)

  def __call__(self, logsnr):
    return self.base(logsnr) - self.penalty(logsnr)


@ranges.checked(num_channels="an integer >= 1")
def uncertainty(base, num_channels=128):
  """An Uncertainty that starts as its base weighting."""
  return Uncertainty(base, jnp.zeros(num_channels))
