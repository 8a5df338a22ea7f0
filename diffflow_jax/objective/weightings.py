"""Weightings w(logsnr): what is minimised, relative to the eps-MSE.

    L_w = ½ ∫ w(λ) E‖eps - ε̂‖² dλ        (Kingma & Gao, arXiv:2303.00848 §2)

w = 1 is the ELBO. A weighting is a function logsnr -> **log w**: losses combine
logs, so that nothing overflows at high or low noise. Your own takes two lines:

    def my_weighting(logsnr):
      return jax.nn.log_sigmoid(2.0 - logsnr)
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax.numpy as jnp

from diffflow_jax.process import levels, targets


def log_gain(target, scale, logsnr, schedule=None):
  """log(alpha²/D²): ‖eps - ε̂‖² is this many times ‖y - ŷ‖² (in logs).

  D = alpha b - sigma a is the target's determinant.
  """
  lv = levels.at_logsnr(scale, logsnr, schedule)
  return 2.0 * jnp.log(lv.alpha / jnp.abs(targets.determinant(target, lv)))


def elbo(logsnr):
  """w = 1: the variational bound (arXiv:2107.00630 eq. 13)."""
  return jnp.zeros_like(logsnr)


@struct.dataclass
class TargetMSE:
  """w of the plain MSE of a target when levels are drawn from a density.

      w(λ) = 2 p(λ) D²/alpha²        E_p‖y - ŷ‖² = L_w

  What a paper that writes "we regress y with t ~ p" minimises. Levels may then
  be drawn from another density, and the network may predict another target,
  without changing the expected loss.
  """

  schedule: Any
  density: Any
  target: Callable = struct.field(pytree_node=False)
  scale: Callable = struct.field(pytree_node=False)

  def __call__(self, logsnr):
    gain = log_gain(self.target, self.scale, logsnr, self.schedule)
    return jnp.log(2.0) + self.density.log_prob(logsnr) - gain
