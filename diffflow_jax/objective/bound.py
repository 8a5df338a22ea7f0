"""The variational bound of discrete data in bits per dimension.

    -log p(x) <= KL(q(z_1|x) ‖ N(0, I)) + ½ ∫ E‖eps - ε̂‖² dλ - E log p(x|z_0)

Kingma et al., arXiv:2107.00630 §4: prior, diffusion and reconstruction. λ runs
between the ends of a schedule, on the vp scale. With T steps the integral is

    Σ_i ½ expm1(λ_{t_i} - λ_{s_i}) E‖eps - ε̂(z_{s_i})‖²      s noisier than t

which is larger and approaches it at O(1/T).
"""

import math

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective import densities
from diffflow_jax.objective.losses import noise_like
from diffflow_jax.process import levels, ranges
from diffflow_jax.process.nodes import concrete


@struct.dataclass
class Bound:
  """The three terms in bits per dimension, (batch,) each."""

  prior: jax.Array
  diffusion: jax.Array
  reconstruction: jax.Array

  @property
  def total(self):
    """Their sum: an upper bound on -log2 p(x)/d, in expectation over keys."""
    return self.prior + self.diffusion + self.reconstruction


def _sum(y):
  return jnp.sum(jnp.reshape(y, (y.shape[0], -1)), axis=1)


def prior_kl(x, lv):
  """KL(N(alpha x, sigma² I) ‖ N(0, I)) = ½ Σ (α²x² + σ² - 1 - log σ²), nats.

  Equation (bound) of docs/math.
  """
  var = lv.sigma**2
  return _sum(0.5 * ((lv.alpha * x) ** 2 + var - 1.0 - jnp.log(var)))


def decoder_log_prob(x, z, lv, values):
  """log p(x | z_0), p ∝ exp(-½ SNR (z/alpha - value)²) over the values.

  Per dimension a discretised Gaussian: VDM, arXiv:2107.00630.

  Equation (bound) of docs/math.

  Args:
    x, z: (batch, ...), x one of the values; values: (K,), e.g. 256 grey levels
      `jnp.linspace(-1, 1, 256)`.
  Returns:
    (batch,) nats.
  """
  snr = jnp.exp(lv.logsnr)
  logit = lambda value: -0.5 * snr * (z / lv.alpha - value) ** 2

  def add(carry, value):  # one after the other: K images need no room
    total, nearest = carry
    closer = jnp.abs(x - value) < jnp.abs(x - nearest)
    nearest = jnp.where(closer, value, nearest)
    return (jnp.logaddexp(total, logit(value)), nearest), None

  values = jnp.asarray(values)
  first = logit(values[0]), values[0] + jnp.zeros_like(x)
  (total, nearest), _ = jax.lax.scan(add, first, values[1:])
  return _sum(logit(nearest) - total)


def gaussian_decoder(eps, logsnr):
  """-log p(x | z_0) of data with a density, p = N(z_0/alpha, sigma²/alpha²).

      ½ Σ (log 2π - λ_0 + eps²)      z_0 = alpha x + sigma eps

  The decoder above of values that fill the line: it falls by d/2 with λ_0,
  which the diffusion term has to pay for.

  Equation (bound) of docs/math.

  Args:
    eps: (batch, ...), of z_0; logsnr: λ_0, ().
  Returns:
    (batch,) nats.
  """
  return _sum(0.5 * (math.log(2.0 * math.pi) - logsnr + eps**2))


def _eps_error(predict, x, eps, logsnr, cond):
  """‖eps - ε̂‖² at levels (batch,), summed over dimensions."""
  lv = levels.at_logsnr(levels.vp, logsnr)
  _, eps_hat = predict(levels.add_noise(x, eps, lv), lv, cond)
  return _sum((eps - eps_hat) ** 2)


def diffusion_nats(predict, schedule, u, x, eps, cond=None, num_steps=None):
  """One draw of the diffusion term per example at u in (0, 1): (batch,).

  In continuous time u is the schedule's own time. With num_steps it is T times
  `step_nats` of the step i = floor(u T).

  Equation (bound) of docs/math.
  """
  if num_steps is None:
    density = densities.UniformTime(schedule)
    logsnr = schedule.logsnr(u)
    weight = 0.5 * jnp.exp(-density.log_prob(logsnr))
  else:
    i = jnp.clip(jnp.floor(u * num_steps), 0, num_steps - 1)
    one = step_nats(predict, schedule, i, num_steps, x, eps, cond)
    return num_steps * one
  return weight * _eps_error(predict, x, eps, logsnr, cond)


def step_nats(predict, schedule, step, num_steps, x, eps, cond=None):
  """The term of one step of T in discrete time, per example: (batch,) nats.

      ½ expm1(λ_t - λ_s) ‖eps - ε̂(z_s)‖²,   s = (step + 1)/T, t = step/T

  An estimate by one eps of KL(q(z_t | z_s, x) ‖ p(z_t | z_s)); their sum over
  step = 0 … T - 1 is the diffusion term.

  Equation (steps) of docs/math.

  Args:
    step: integers in [0, T), (batch,); x, eps: (batch, ...).
  """
  logsnr = schedule.logsnr((step + 1) / num_steps)
  cleaner = schedule.logsnr(step / num_steps)
  weight = 0.5 * jnp.expm1(cleaner - logsnr)
  return weight * _eps_error(predict, x, eps, logsnr, cond)


def check_ends(schedule):
  """Refuses a schedule with an infinite end, which has no bound."""
  if not concrete(schedule):
    return
  with jax.ensure_compile_time_eval():
    clean, noisy = np.asarray(schedule.logsnr(jnp.array([0.0, 1.0])))
  if not (np.isfinite(clean) and np.isfinite(noisy)):
    raise ValueError(
      "the bound needs a schedule with finite ends, as LinearLogSNR() has, "
      f"but logsnr goes from {clean:g} to {noisy:g}"
    )


@ranges.checked(num_steps="an integer >= 1")
def variational_bound(
  predict, schedule, key, x, values, cond=None, num_steps=None
):
  """One unbiased estimate of the bound for each x, as a `Bound`.

  Equation (bound) of docs/math.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a Predictor or a closed form.
    schedule: its ends are the levels of the prior and of the decoder, so they
      must be finite: `LinearLogSNR()` is VDM's.
    key: PRNG key; x: (batch, ...) discrete data, each entry one of `values`.
    values: (K,) what an entry can be.
    num_steps: T of the discrete-time bound; continuous time if None.
  Returns:
    Bound, in bits per dimension.
  Raises:
    ValueError: a schedule with an infinite end.
  """
  check_ends(schedule)
  level_key, noise_key, end_key = jax.random.split(key, 3)
  eps = noise_like(noise_key, x)
  u = densities.uniforms(level_key, x.shape[0])
  end = lambda t: levels.at_logsnr(levels.vp, schedule.logsnr(jnp.asarray(t)))
  z_0 = levels.add_noise(x, noise_like(end_key, x), end(0.0))
  unit = 1.0 / (math.prod(x.shape[1:]) * math.log(2.0))
  return Bound(
    prior=unit * prior_kl(x, end(1.0)),
    diffusion=unit
    * diffusion_nats(predict, schedule, u, x, eps, cond, num_steps),
    reconstruction=-unit * decoder_log_prob(x, z_0, end(0.0), values),
  )


@ranges.checked(
  num_dims="an integer >= 1", num_bins="an integer >= 1", width="> 0"
)
def density_bits(log_prob, num_dims, num_bins=256, width=2.0):
  """Bits per dimension of a density of uniformly dequantised data.

      -log2 p(x)/d + log2(num_bins/width)

  width is the range of the data: 2 for [-1, 1], 1 for [0, 1].

  Equation (bits) of docs/math.
  """
  offset = math.log2(num_bins / width)
  return -log_prob / (num_dims * math.log(2.0)) + offset
