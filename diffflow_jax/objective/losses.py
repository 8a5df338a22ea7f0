"""Losses: the weighted MSE, in the network's own output space."""

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities, weightings
from diffflow_jax.process import levels, schedules, targets


@struct.dataclass
class Terms:
  """One loss term per example, all (batch,).

  Attributes:
    loss: its weighted squared error (and the penalty of a learned weighting);
      the mean over the batch is the loss.
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


def weighted_mse(objective, apply, params, key, x, cond=None, couple=None):
  """L_w per example, estimated at one level and one noise for each x.

      λ ~ p,  z = alpha x + sigma eps,  y = a x + b eps,  ŷ = apply(z, λ)
      loss = w(λ)/(2 p(λ)) ‖eps - ε̂‖²/d = w/(2p) · alpha²/D² · ‖y - ŷ‖²/d

  arXiv:2303.00848 eq. 4, as a mean over the d dimensions. The expectation
  depends on the weighting alone: density, target and scale are free.

  Args:
    objective: target, scale, schedule, density and weighting.
    apply: (params, z, logsnr, cond) -> ŷ; z (batch, ...), logsnr (batch,).
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    couple: (x, eps) -> eps, which noise goes with which data; independent if
      None. `minibatch_ot` is optimal transport within the batch.
  Returns:
    Terms; `.loss.mean()` is what to minimise.
  Raises:
    ValueError: the network's output does not have the shape of x.
  """
  level_key, noise_key = jax.random.split(key)
  logsnr = densities.draw(objective.density, level_key, x.shape[0])
  eps = jax.random.normal(noise_key, x.shape, x.dtype)
  eps = eps if couple is None else couple(x, eps)
  return terms_at(objective, apply, params, x, logsnr, eps, cond)


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
  loss = jnp.exp(log_factor(objective, logsnr)) * error
  penalty = getattr(objective.weighting, "penalty", None)
  return Terms(
    loss=loss if penalty is None else loss + penalty(logsnr),
    eps_mse=jnp.exp(gain) * error,
    logsnr=logsnr,
  )


def conditional_flow_matching(
  u_theta, key, z, schedule=None, scale=levels.linear
):
  """E_{tau, z, x}‖u_theta(x, tau) - u(x | z)‖² in the lecture's notation.

  Lipman et al., arXiv:2210.02747 eq. 9: data z at tau = 1, noise at tau = 0,
  tau uniform. It is `weighted_mse` of target u on uniform t = 1 - tau, as a
  mean over dimensions.

  Args:
    u_theta: (x (batch, ...), tau (batch,)) -> velocity like x.
    key: PRNG key; z: (batch, ...) clean data.
    schedule: alpha_tau, beta_tau of the path; `Flow()`, the CondOT path, if
      None.
  Returns:
    (batch,) losses.
  """
  schedule = schedules.Flow() if schedule is None else schedule
  apply = lambda _, x, logsnr, cond: -u_theta(x, 1.0 - schedule.t(logsnr))
  objective = _Plain(schedule, targets.u, scale)
  return weighted_mse(objective, apply, {}, key, z).loss


def denoising_score_matching(s_theta, key, z, schedule, scale=levels.vp):
  """E_{tau, z, x}‖s_theta(x, tau) - grad log p_tau(x | z)‖².

  Vincent 2011; the same with target score, whose weight grows like 1/sigma²:
  use a schedule with sigma > 0 at the data end. Arguments as above.
  """
  apply = lambda _, x, logsnr, cond: s_theta(x, 1.0 - schedule.t(logsnr))
  objective = _Plain(schedule, targets.score, scale)
  return weighted_mse(objective, apply, {}, key, z).loss


class _Plain:
  """The objective of a paper's plain MSE: t uniform, no other weight."""

  def __init__(self, schedule, target, scale):
    self.schedule, self.target, self.scale = schedule, target, scale
    self.density = densities.UniformTime(schedule)
    self.weighting = weightings.TargetMSE(schedule, self.density, target, scale)
