"""Losses: the weighted MSE, in the network's own output space."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities
from diffflow_jax.objective.objective import check, plain_mse
from diffflow_jax.objective.weighting import TargetMSE, log_gain
from diffflow_jax.process import inputs, levels, nodes, schedules, targets
from diffflow_jax.process.schedule import clip_far


@struct.dataclass
class Terms:
  """One loss term per example, all (batch,).

  Attributes:
    loss: its weighted squared error and the penalty; the mean over the batch is
      what to minimise.
    eps_mse: mean over dimensions of (eps - ε̂)², comparable between objectives.
    logsnr: the level that it was drawn at.
    penalty: what a learned weighting adds to the error, of any sign.
  """

  loss: jax.Array
  eps_mse: jax.Array
  logsnr: jax.Array
  penalty: Any = 0.0


def variance(terms):
  """mean of loss²: what a learned schedule's inside is trained to lower.

  The expectation of the loss does not depend on the path between the ends, so
  its second moment is its variance up to a constant (VDM, arXiv:2107.00630,
  appendix). Differentiate it in the leaves between the ends alone; the ends
  and the network follow `terms.loss.mean()`. `learned_schedule.gradient` does
  so by one backward pass.
  """
  return jnp.mean(terms.loss**2)


def log_factor(objective, logsnr):
  """log of what multiplies ‖y - ŷ‖²:  w(λ)/(2 p(λ)) · alpha²/D².

  Where logsnr is infinite, or so large that its exponentials are, the factor
  of |logsnr| = 60 is taken: a float32 cannot tell it from the limit. Levels
  that are never drawn, p = 0, have factor 0. In float32 it is good to 1e-5, and
  4e-7 of |log w| + |log p| where these are far tails of a normal law.

  Equation (own) of docs/math.
  """
  gain = log_gain(objective.target, objective.scale, logsnr, objective.schedule)
  return _log_factor(objective, logsnr, gain)


def _log_factor(objective, logsnr, gain):
  logsnr, density = clip_far(logsnr), objective.density
  weighting = objective.weighting
  if isinstance(weighting, TargetMSE) and weighting.density is density:
    # w/(2p) is omega D²/alpha² of that MSE: p is left out, not divided by
    drawn = density.inside(logsnr) if hasattr(density, "inside") else True
    log_factor = weighting.log_omega(logsnr)
    if not _same_row(weighting, objective):
      log_factor += gain - weighting.log_gain(logsnr)
  else:
    log_p, log_w = _told(density, weighting, logsnr)
    drawn = log_p > -jnp.inf
    log_2p = jnp.log(2.0) + jnp.where(drawn, log_p, 0.0)
    log_factor = log_w - log_2p + gain
  return jnp.where(drawn, log_factor, -jnp.inf)


def _told(density, weighting, logsnr):
  """(log p, log w); one's own density and weighting may forget to say it."""
  if not hasattr(density, "log_prob"):
    name = type(density).__name__
    raise TypeError(f"density must have log_prob(logsnr), which {name} has not")
  log_p, log_w = density.log_prob(logsnr), weighting(logsnr)
  for what, value in (("density.log_prob", log_p), ("weighting", log_w)):
    if value is None:
      raise TypeError(f"{what} must return a number for each logsnr, not None")
  return log_p, log_w


def _same_row(weighting, objective):
  """Whether the MSE that is minimised is that of the network's own output."""
  held = lambda node: node.held if isinstance(node, nodes.Opaque) else node
  return all(
    held(getattr(weighting, part)) is held(getattr(objective, part))
    for part in ("target", "scale", "schedule")
  )


def factor_range(objective, num=1000):
  """(least, largest) factor of the network's own MSE over the levels drawn.

      w(λ)/(2 p(λ)) · alpha²/D²  over its mean under p, at num quantiles of p

  (1, 1) is the plain MSE of the network's output, whatever its constant, which
  is but a learning rate. A large factor is a loss that rests on few levels, and
  is noisy; another density, or `weightings.make("own_mse", recipe)`, mends it.
  """

  @jax.jit  # one program, for the sixty of its operations
  def ends():
    u = (jnp.arange(num) + 0.5) / num
    factor = jnp.exp(log_factor(objective, objective.density.logsnr(u)))
    factor = factor / factor.mean()
    return factor.min(), factor.max()

  low, high = ends()
  return float(low), float(high)


def noise_like(key, x):
  """eps ~ N(0, I) of x's shape, in float32 or wider.

  Drawn in bfloat16 the largest of any number of draws is 2.9, the variance of
  all is 0.995.
  """
  return jax.random.normal(key, x.shape, wide(x.dtype))


def wide(dtype):
  """The dtype, or float32 where it is narrower."""
  return jnp.promote_types(dtype, jnp.float32)


def weighted_mse(objective, apply, params, key, x, cond=None, couple=None):
  """L_w per example, estimated at one level and one noise for each x.

      λ ~ p,  z = alpha x + sigma eps,  y = a x + b eps,  ŷ = apply(z, λ)
      loss = w(λ)/(2 p(λ)) ‖eps - ε̂‖²/d = w/(2p) · alpha²/D² · ‖y - ŷ‖²/d

  arXiv:2303.00848 §2, as a mean over the d dimensions. The expectation
  depends on the weighting alone: density, target and scale are free.

  Equation (weighted) of docs/math.

  Args:
    objective: target, scale, schedule, density and weighting.
    apply: (params, z, logsnr, cond) -> ŷ; z (batch, ...), logsnr (batch,).
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    couple: (x, eps) -> eps, which noise goes with which data; independent if
      None. `minibatch_ot` is optimal transport within the batch.
  Returns:
    Terms; `.loss.mean()` is what to minimise.
  Raises:
    TypeError: objective is none, apply no function, key no PRNG key, or x no
      array of floats.
    ValueError: the network's output does not have the shape of x, or x holds
      no example.
  """
  check(objective)
  inputs.check_apply(apply)
  inputs.check_key(key)
  inputs.check_data("x", x)
  x = jnp.asarray(x)  # NumPy's float64 is float32, unless JAX has the former
  level_key, noise_key = jax.random.split(key)
  logsnr = densities.draw(objective.density, level_key, x.shape[0])
  eps = noise_like(noise_key, x)
  eps = eps if couple is None else couple(x, eps)
  return terms_at(objective, apply, params, x, logsnr, eps, cond)


def terms_at(objective, apply, params, x, logsnr, eps, cond=None):
  """The Terms of `weighted_mse` at given levels (batch,) and noise like x.

  In float32 or wider, whatever the type of x: a network that computes in
  bfloat16 casts what it is given.

  Equation (weighted) of docs/math.
  """
  x, eps = (y.astype(wide(y.dtype)) for y in (x, eps))
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
  gain = log_gain(objective.target, objective.scale, logsnr, objective.schedule)
  weighted = jnp.exp(_log_factor(objective, logsnr, gain)) * error
  added = getattr(objective.weighting, "penalty", jnp.zeros_like)(logsnr)
  return Terms(
    loss=weighted + added,
    eps_mse=jnp.exp(gain) * error,
    logsnr=logsnr,
    penalty=added,
  )


def conditional_flow_matching(
  u_theta, key, z, schedule=None, scale=levels.linear
):
  """E_{tau, z, x}‖u_theta(x, tau) - u(x | z)‖² in the lecture's notation.

  Lipman et al., arXiv:2210.02747 eq. 9: data z at tau = 1, noise at tau = 0,
  tau uniform. It is `weighted_mse` of target u on uniform t = 1 - tau, as a
  mean over dimensions.

  Equation (cfm) of docs/math.

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
  objective = plain_mse(schedule, targets.u, scale)
  return weighted_mse(objective, apply, {}, key, z).loss


def denoising_score_matching(s_theta, key, z, schedule, scale=levels.vp):
  """E_{tau, z, x}‖s_theta(x, tau) - grad log p_tau(x | z)‖².

  Vincent 2011; the same with target score, whose weight grows like 1/sigma²:
  use a schedule with sigma > 0 at the data end. Arguments as above.

  Equation (weighted) of docs/math.
  """
  apply = lambda _, x, logsnr, cond: s_theta(x, 1.0 - schedule.t(logsnr))
  objective = plain_mse(schedule, targets.score, scale)
  return weighted_mse(objective, apply, {}, key, z).loss
