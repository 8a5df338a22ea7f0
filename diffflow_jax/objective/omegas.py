"""Factors omega(logsnr) that papers put on the eps-MSE, as log omega.

    E_{λ~p}[omega(λ) ‖eps - ε̂‖²]          implies w = 2 p omega

They are no weightings: w needs the p that the paper draws levels from.
`weightings.mse(recipe, targets.eps, omega)` makes the product. A factor on the
x-MSE is one of 1/SNR as much on eps: max(SNR, 1) on x is max(1, 1/SNR) here.
"""

import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective.weighting import ELBO, Sigmoid
from diffflow_jax.process import ranges
from diffflow_jax.process.faces import Node


@ranges.node
class MinSNR(Node):
  """omega = min(1, gamma/SNR): Hang et al., arXiv:2303.09556.

  min(SNR, gamma) on the x-MSE, min(SNR, gamma)/(SNR + 1) on the v-MSE of vp.

  Equation (implied) of docs/math.
  """

  gamma: Any = 5.0
  _allowed = {"gamma": "> 0"}

  def __call__(self, logsnr):
    return jnp.minimum(0.0, jnp.log(self.gamma) - logsnr)


@ranges.node
class P2(Node):
  """omega = (k + SNR)^-gamma on the eps-MSE: Choi et al., arXiv:2204.00227.

  Equation (implied) of docs/math.
  """

  k: Any = 1.0
  gamma: Any = 1.0
  _allowed = {"k": "> 0"}

  def __call__(self, logsnr):
    return -self.gamma * jnp.logaddexp(jnp.log(self.k), logsnr)


@struct.dataclass
class TruncatedSNR:
  """omega = max(1, 1/SNR), max(SNR, 1) on x: arXiv:2202.00512 §4.

  Equation (implied) of docs/math.
  """

  def __call__(self, logsnr):
    return jnp.maximum(0.0, -logsnr)


@struct.dataclass
class SNRPlusOne:
  """omega = 1 + 1/SNR, SNR + 1 on x: v-MSE on vp, arXiv:2202.00512 §4.

  Equation (implied) of docs/math.
  """

  def __call__(self, logsnr):
    return jnp.logaddexp(0.0, -logsnr)


FACTORS = (MinSNR, P2, TruncatedSNR, SNRPlusOne)


@ranges.checked(gamma="> 0")
def min_snr(gamma=5.0):
  """log omega of min-SNR, `MinSNR`, checked."""
  return MinSNR(gamma)


@ranges.checked(gamma="> 0")
def soft_min_snr(gamma=5.0):
  """log omega of gamma/(gamma + SNR), a smooth min-SNR (arXiv:2401.11605).

  Another name for a sigmoid: it is `Sigmoid(log gamma)`.
  """
  return Sigmoid((jnp if isinstance(gamma, jax.Array) else math).log(gamma))


@ranges.checked(k="> 0")
def p2(k=1.0, gamma=1.0):
  """log omega of P2, checked: gamma may be of either sign, 0 is none."""
  return P2(k, gamma)


OMEGAS = {
  "one": ELBO,
  "min_snr": min_snr,
  "soft_min_snr": soft_min_snr,
  "p2": p2,
  "truncated_snr": TruncatedSNR,
  "snr_plus_one": SNRPlusOne,
}
