"""Weightings w(logsnr): what is minimised, relative to the eps-MSE.

    L_w = ½ ∫ w(λ) E‖eps - ε̂‖² dλ        (Kingma & Gao, arXiv:2303.00848 §2)

w = 1 is the ELBO. A weighting is a function logsnr -> **log w**: losses combine
logs, so that nothing overflows at high or low noise. Your own takes two lines:

    def my_weighting(logsnr):
      return jax.nn.log_sigmoid(2.0 - logsnr)

Papers write another thing, "draw t from p and multiply the MSE of y by omega".
That implies w = 2 p omega D²/alpha², and `TargetMSE` is this product; the
factors omega of min-SNR and others are functions logsnr -> log omega as well,
relative to the eps-MSE.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective.uncertainty import Uncertainty, uncertainty
from diffflow_jax.process import levels, targets
from diffflow_jax.process.names import make_from

__all__ = [
  "ELBO",
  "MinSNR",
  "Monotonic",
  "P2",
  "SNRPlusOne",
  "Sigmoid",
  "SoftMinSNR",
  "TargetMSE",
  "TruncatedSNR",
  "Uncertainty",
  "WEIGHTINGS",
  "elbo",
  "log_gain",
  "make",
  "uncertainty",
]


def log_gain(target, scale, logsnr, schedule=None):
  """log(alpha²/D²): ‖eps - ε̂‖² is this many times ‖y - ŷ‖² (in logs).

  D = alpha b - sigma a is the target's determinant.
  """
  lv = levels.at_logsnr(scale, logsnr, schedule)
  return 2.0 * jnp.log(lv.alpha / jnp.abs(targets.determinant(target, lv)))


@struct.dataclass
class ELBO:
  """w = 1: the variational bound (arXiv:2107.00630 eq. 13). As omega: none."""

  def __call__(self, logsnr):
    return jnp.zeros_like(logsnr)


elbo = ELBO()  # a pytree, where a bare function could not enter jit


@struct.dataclass
class TargetMSE:
  """w of omega times a target's MSE when levels are drawn from a density.

      w(λ) = 2 p(λ) omega(λ) D²/alpha²        E_p[omega ‖y - ŷ‖²] = L_w

  What a paper that writes "we regress y with t ~ p" minimises. Levels may then
  be drawn from another density, and the network may predict another target,
  without changing the expected loss.
  """

  schedule: Any
  density: Any
  target: Callable = struct.field(pytree_node=False)
  scale: Callable = struct.field(pytree_node=False)
  log_omega: Any = elbo

  def __call__(self, logsnr):
    gain = log_gain(self.target, self.scale, logsnr, self.schedule)
    log_p = self.density.log_prob(logsnr)
    return jnp.log(2.0) + log_p + self.log_omega(logsnr) - gain


@struct.dataclass
class Sigmoid:
  """w = sigmoid(bias - logsnr): Kingma & Gao, arXiv:2303.00848.

  On the x-MSE it is e^bias sigmoid(logsnr - bias): SiD2, arXiv:2410.19324 eq.
  4. As omega with bias = log gamma it is soft-min-SNR, gamma/(gamma + SNR).
  """

  bias: Any = 0.0

  def __call__(self, logsnr):
    return jax.nn.log_sigmoid(self.bias - logsnr)


@struct.dataclass
class SoftMinSNR:
  """omega = gamma/(gamma + SNR), a smooth min-SNR (arXiv:2401.11605)."""

  gamma: Any = 5.0

  def __call__(self, logsnr):
    return jax.nn.log_sigmoid(jnp.log(self.gamma) - logsnr)


@struct.dataclass
class MinSNR:
  """omega = min(1, gamma/SNR): Hang et al., arXiv:2303.09556.

  min(SNR, gamma) on the x-MSE, min(SNR, gamma)/(SNR + 1) on the v-MSE of vp.
  """

  gamma: Any = 5.0

  def __call__(self, logsnr):
    return jnp.minimum(0.0, jnp.log(self.gamma) - logsnr)


@struct.dataclass
class P2:
  """omega = (k + SNR)^-gamma on the eps-MSE: Choi et al., arXiv:2204.00227."""

  k: Any = 1.0
  gamma: Any = 1.0

  def __call__(self, logsnr):
    return -self.gamma * jnp.logaddexp(jnp.log(self.k), logsnr)


@struct.dataclass
class TruncatedSNR:
  """omega = max(1, 1/SNR), max(SNR, 1) on x: arXiv:2202.00512 §4."""

  def __call__(self, logsnr):
    return jnp.maximum(0.0, -logsnr)


@struct.dataclass
class SNRPlusOne:
  """omega = 1 + 1/SNR, SNR + 1 on x: v-MSE on vp, arXiv:2202.00512 §4."""

  def __call__(self, logsnr):
    return jnp.logaddexp(0.0, -logsnr)


@struct.dataclass
class Monotonic:
  """The base weighting, held at its maximum at all noisier levels.

      w(λ) = base(max(λ, argmax base))

  EDM-monotonic, Kingma & Gao, arXiv:2303.00848: non-increasing in logsnr,
  so that the loss is an average of ELBOs, if base falls after its maximum. The
  maximum is looked for in |logsnr| <= 20.
  """

  base: Any

  def _peak(self):
    grid = jnp.linspace(-20.0, 20.0, 401)
    start = grid[jnp.argmax(self.base(grid))]
    lo, hi = start - 0.1, start + 0.1
    third = lambda lo, hi: (lo + (hi - lo) / 3, hi - (hi - lo) / 3)

    def shrink(_, bracket):
      lo, hi = bracket
      a, b = third(lo, hi)
      right = self.base(a) < self.base(b)
      return jnp.where(right, a, lo), jnp.where(right, hi, b)

    lo, hi = jax.lax.fori_loop(0, 20, shrink, (lo, hi))
    return jax.lax.stop_gradient(0.5 * (lo + hi))

  def __call__(self, logsnr):
    return self.base(jnp.maximum(logsnr, self._peak()))


WEIGHTINGS = {
  "elbo": ELBO,
  "sigmoid": Sigmoid,
  "soft_min_snr": SoftMinSNR,
  "min_snr": MinSNR,
  "p2": P2,
  "truncated_snr": TruncatedSNR,
  "snr_plus_one": SNRPlusOne,
}


def make(name, **kwargs):
  """The weighting or omega of a name: make("sigmoid", bias=2.0)."""
  return make_from(WEIGHTINGS, "weighting", name, kwargs)
