"""Losses: the weighted MSE, in the network's own output space."""

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities, weightings
from diffflow_jax.process import levels, targets


@struct.dataclass
class Terms:
  """One loss term per example, all (batch,).

  Attributes:
    loss: its weighted squared error; the mean over the batch is the loss.
    eps_mse: mean over dimensions of (eps - ε̂)², comparable between objectives.
    logsnr: the level that it was drawn at.
  """

  loss: jax.Array
  eps_mse: jax.Array
  logsnr: jax.Array


def log_factor(objective, logsnr):
  """log of what multiplies ‖y - ŷ‖²:  w(λ)/(2 p(λ)) · alpha²/D².

  Where logsnr is infinite, or so large that its exponentials are, the factor
  of |logsnr| = 60 is taken: a float32 cannot tell it from the limit.
  """
  logsnr = jnp.clip(logsnr, -60.0, 60.0)
  return (
    objective.weighting(logsnr)
    - jnp.log(2.0)
    - objective.density.log_prob(logsnr)
    + weightings.log_gain(
      objective.target, objective.scale, logsnr, objective.schedule
    )
  )


def weighted_mse(objective, apply, params, key, x, cond=None):
  """L_w per example, estimated at one level and one noise for each x.

      λ ~ p,  z = alpha x + sigma eps,  y = a x + b eps,  ŷ = apply(z, λ)
      loss = w(λ)/(2 p(λ)) ‖eps - ε̂‖²/d = w/(2p) · alpha²/D² · ‖y - ŷ‖²/d

  arXiv:2303.00848 eq. 4, as a mean over the d dimensions. The expectation
  depends on the weighting alone: density, target and scale are free.

  Args:
    objective: target, scale, schedule, density and weighting.
    apply: (params, z, logsnr, cond) -> ŷ; z (batch, ...), logsnr (batch,).
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
  Returns:
    Terms; `.loss.mean()` is what to minimise.
  Raises:
    ValueError: the network's output does not have the shape of x.
  """
  level_key, noise_key = jax.random.split(key)
  logsnr = densities.draw(objective.density, level_key, x.shape[0])
  return terms_at(
    objective,
    apply,
    params,
    x,
    logsnr,
    jax.random.normal(noise_key, x.shape, x.dtype),
    cond,
  )


def terms_at(objective, apply, params, x, logsnr, eps, cond=None):
  """The Terms of `weighted_mse` at given levels (batch,) and noise like x."""
  lv = levels.at_logsnr(objective.scale, logsnr, objective.schedule)
  z = levels.add_noise(x, eps, lv)
  y = targets.from_x_eps(objective.target, x, eps, lv)
  y_hat = apply(params, z, logsnr, cond)
  if y_hat.shape != x.shape:
    raise ValueError(
      f"the network's output has shape {y_hat.shape}, but x has {x.shape}"
    )
  error = (y - y_hat.astype(y.dtype)) ** 2
  error = error.reshape(x.shape[0], -1).mean(axis=1)
  gain = weightings.log_gain(
    objective.target, objective.scale, logsnr, objective.schedule
  )
  return Terms(
    loss=jnp.exp(log_factor(objective, logsnr)) * error,
    eps_mse=jnp.exp(gain) * error,
    logsnr=logsnr,
  )
