"""A density that follows the loss: more draws where there is more to learn.

    p ∝ (1 - floor) ema/mean(ema) + floor,   ema_b of w(λ) E‖eps - ε̂‖² in bin b

Kingma & Gao, arXiv:2303.00848 (appendix): with p proportional to the weighted
loss, every draw carries the same share of it. The loss divides by p, so what is
minimised does not change. It is a pytree: keep it in the train state, call
`update` after each step, and checkpoint it with the rest.
"""

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges


@struct.dataclass
class Adaptive:
  """Piecewise constant over B equal bins of [logsnr_min, logsnr_max].

  Equation (adaptive) of docs/math.

  Attributes:
    total, weight: (B,), decayed sums; total/weight is the bin's average loss.
    decay: of the average, per draw that falls in the bin.
    floor: share of the density that stays uniform.
  """

  total: jax.Array
  weight: jax.Array
  logsnr_min: float
  logsnr_max: float
  decay: float
  floor: float

  def _masses(self):
    """Probability of each bin, (B,), of sum 1; unvisited bins are average."""
    seen = self.weight > 0.0
    average = self.total / jnp.where(seen, self.weight, 1.0)
    mean = jnp.sum(average) / jnp.maximum(jnp.sum(seen), 1)
    average = jnp.where(seen, average, mean)
    share = average / jnp.maximum(jnp.sum(average), 1e-30)
    uniform = 1.0 / self.total.shape[0]
    share = jnp.where(mean > 0.0, share, uniform)
    return jax.lax.stop_gradient(
      (1.0 - self.floor) * share + self.floor * uniform
    )

  def _edges(self):
    num = self.total.shape[0]
    return jnp.linspace(self.logsnr_min, self.logsnr_max, num + 1)

  def logsnr(self, u):
    """The quantile function: λ(t) = CDF⁻¹(1 - t), decreasing as a schedule."""
    cdf = jnp.concatenate([jnp.zeros(1), jnp.cumsum(self._masses())])
    return jnp.interp(1.0 - u, cdf / cdf[-1], self._edges())

  def _bin(self, logsnr):
    width = self.logsnr_max - self.logsnr_min
    num = self.total.shape[0]
    b = jnp.floor((logsnr - self.logsnr_min) / width * num)
    return jnp.clip(b, 0, num - 1).astype(jnp.int32)

  def log_prob(self, logsnr):
    """log p(logsnr), -inf outside the bins."""
    width = (self.logsnr_max - self.logsnr_min) / self.total.shape[0]
    log_p = jnp.log(self._masses() / width)[self._bin(logsnr)]
    inside = (logsnr >= self.logsnr_min) & (logsnr <= self.logsnr_max)
    return jnp.where(inside, log_p, -jnp.inf)

  def update(self, terms):
    """The density after a step's Terms, whose levels this density drew.

    A term's error is w‖eps - ε̂‖²/(2p): times p it is what the bin averages.
    The penalty of a learned weighting is no part of it, and a loss that is not
    finite says nothing about its bin.
    """
    error = jax.lax.stop_gradient(terms.loss - terms.penalty)
    value = error * jnp.exp(self.log_prob(terms.logsnr))
    known = jnp.isfinite(value)
    b, zeros = self._bin(terms.logsnr), jnp.zeros_like(self.total)
    count = zeros.at[b].add(jnp.where(known, 1.0, 0.0))
    total = zeros.at[b].add(jnp.where(known, value, 0.0))
    mean = total / jnp.maximum(count, 1.0)
    keep = self.decay**count
    return self.replace(
      total=keep * self.total + (1.0 - keep) * mean,
      weight=keep * self.weight + (1.0 - keep),
    )


@ranges.checked(
  num_bins="an integer >= 1",
  logsnr_min="< logsnr_max",
  decay="in [0, 1)",
  floor="in (0, 1]",
)
def adaptive(
  num_bins=100, logsnr_min=-15.0, logsnr_max=15.0, decay=0.999, floor=0.1
):
  """An Adaptive density that starts uniform, Kingma & Gao, arXiv:2303.00848.

  Equation (adaptive) of docs/math.

  Raises:
    ValueError: a number outside its range.
  """
  zeros = jnp.zeros(num_bins)
  return Adaptive(zeros, zeros, logsnr_min, logsnr_max, decay, floor)


def adaptive_for(recipe, num_bins=100, decay=0.999, floor=0.1):
  """`adaptive` on the levels of a recipe's schedule, ±15 at infinite ends."""
  noisy, clean = recipe.schedule.logsnr(jnp.array([1.0, 0.0]))
  finite = lambda end, limit: float(jnp.where(jnp.isfinite(end), end, limit))
  return adaptive(
    num_bins, finite(noisy, -15.0), finite(clean, 15.0), decay, floor
  )
