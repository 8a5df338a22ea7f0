"""What a weighting is, and the implied weighting of any MSE.

    L_w = ½ ∫ w(λ) E‖eps - ε̂‖² dλ        (Kingma & Gao, arXiv:2303.00848 §2)

w = 1 is the ELBO, with VDM's ½: L_w is then its diffusion loss in nats. A loss
that is written without the ½, as SiT's and flow matching's ∫ E‖v̂ - v‖² dt, is
L_w too: of a w with the factor 2 in it, below.

A weighting is a function logsnr -> **log w**: losses combine logs, so that
nothing overflows at high or low noise. Papers write another thing, "draw t from
p and multiply the MSE of y by omega". That implies

    w = 2 p omega D²/alpha²,     D = alpha b - sigma a of y = a x + b eps

and `TargetMSE` is this product.
"""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process import levels, nodes, ranges, targets
from diffflow_jax.process.faces import Node
from diffflow_jax.process.schedule import clip_far


def log_gain(target, scale, logsnr, schedule=None):
  """log(alpha²/D²): ‖eps - ε̂‖² is this many times ‖y - ŷ‖² (in logs).

  D = alpha b - sigma a is the target's determinant. Beyond |logsnr| = 60 it is
  that of 60: at alpha = 0 the ratio would be 0/0.

  Equation (own) of docs/math.
  """
  lv = levels.at_logsnr(scale, clip_far(logsnr), schedule)
  return 2.0 * jnp.log(lv.alpha / jnp.abs(targets.determinant(target, lv)))


@struct.dataclass
class ELBO:
  """w = 1: the variational bound (arXiv:2107.00630 §4). As omega: none.

  Equation (bound) of docs/math.
  """

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

  Equation (implied) of docs/math.
  """

  schedule: Any
  density: Any
  target: Any
  scale: Any
  log_omega: Any = elbo

  def __post_init__(self):
    nodes.hold_nodes(self, "density", "target", "scale", "log_omega")

  def log_gain(self, logsnr):
    """log(alpha²/D²) of its own target."""
    return log_gain(self.target, self.scale, logsnr, self.schedule)

  def __call__(self, logsnr):
    logsnr = clip_far(logsnr)
    log_p = self.density.log_prob(logsnr)
    log_omega = self.log_omega(logsnr)
    return jnp.log(2.0) + log_p + log_omega - self.log_gain(logsnr)


@ranges.node
class Sigmoid(Node):
  """w = sigmoid(bias - logsnr): Kingma & Gao, arXiv:2303.00848.

  On the x-MSE it is e^bias sigmoid(logsnr - bias): SiD2, arXiv:2410.19324 eq.
  4. As omega with bias = log gamma it is soft-min-SNR, gamma/(gamma + SNR).

  Equation (weighted) of docs/math.
  """

  bias: Any = 0.0

  def __call__(self, logsnr):
    return jax.nn.log_sigmoid(self.bias - logsnr)


@struct.dataclass
class Monotonic:
  """The base weighting, held at its maximum at all noisier levels.

      w(λ) = base(max(λ, argmax base))

  EDM-monotonic, Kingma & Gao, arXiv:2303.00848: non-increasing in logsnr,
  so that the loss is an average of ELBOs, if base falls after its maximum. The
  maximum is looked for in |logsnr| <= 20.

  Equation (weighted) of docs/math.
  """

  base: Any

  def __post_init__(self):
    nodes.hold_nodes(self, "base")

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
