"""The network as a mean velocity in flow time, and its error as a loss.

Every method compares mean velocities ū = E - X between two levels, with z on
the linear scale, whatever row the network predicts and on whichever scale: so
a loss does not depend on them, and both ends are finite. At t = s it is the
weighted MSE of the objective, `weighted_mse`.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective import losses
from diffflow_jax.objective.objective import check
from diffflow_jax.objective.weighting import log_gain
from diffflow_jax.process import flow_maps, inputs, levels, nodes, targets
from diffflow_jax.process.levels import bcast


def mean_velocity(objective, apply, params, cond=None):
  """The network as (z, s, t) -> ū, z on the linear scale, s and t by logsnr.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ of the objective's target and
      scale at logsnr.
  Raises:
    ValueError: the output does not have z's shape; or a known s is pure noise
      of which the target says nothing.
  """

  def velocity(z, s, t):
    lv = flow_maps.flow_level(s)
    own = levels.at_logsnr(objective.scale, s, objective.schedule)
    flow_maps.check_start(objective.target, own)
    z_own = bcast(levels.rescale(lv, own), z) * z
    y = apply(params, z_own, s, cond, t)
    if jnp.shape(y) != z.shape:
      raise ValueError(
        f"the network's output has shape {jnp.shape(y)}, but x has {z.shape}"
      )
    x, eps = targets.to_x_eps(objective.target, y.astype(z.dtype), z_own, own)
    return eps - x

  return velocity


def ask(predict, z, logsnr, cond, to=None):
  """A teacher's velocity ε̂ - x̂ at (z, logsnr), z on the linear scale.

  Args:
    predict: predict(z, lv, cond) -> (x̂, ε̂); a flow map is told `to`.
  """
  lv = flow_maps.flow_level(logsnr)
  x, eps = predict(z, lv if to is None else lv.replace(to=to), cond)
  return eps - x


def begin(objective, apply, key, x):
  """x as an array, noise like it, and a key for its levels; checked.

  Raises:
    TypeError, ValueError: as `weighted_mse`.
  """
  check(objective)
  inputs.check_apply(apply)
  inputs.check_key(key)
  inputs.check_data("x", x)
  x = jnp.asarray(x)
  level_key, noise_key = jax.random.split(key)
  return x, losses.noise_like(noise_key, x), level_key


def data_end(objective):
  """The logsnr of the schedule's cleanest level, inf where it is the data.

  What a network is told that goes all the way: `Predictor` says the same.
  """
  return objective.schedule.logsnr(jnp.asarray(0.0))


def noisy(x, eps, *logsnr):
  """u_c = eps - x, z at the first logsnr on the linear scale, and all logsnr.

  In float32 or wider, levels as (batch,).

  Raises:
    ValueError: known levels do not go from noise to data, or are not one for
      each example; or eps does not have x's shape.
  """
  same_shape(x, eps)
  for shape in map(jnp.shape, logsnr):
    if shape not in ((), x.shape[:1]):
      raise ValueError(
        f"levels must be one, or one for each of {x.shape[0]} examples, but "
        f"have shape {shape}"
      )
  x, eps = (y.astype(losses.wide(y.dtype)) for y in (x, eps))
  for noisier, cleaner in itertools.pairwise(logsnr):
    # on the host: within jit an operation of known arrays is traced
    known = nodes.concrete(noisier, cleaner)
    if known and np.any(np.asarray(noisier) > np.asarray(cleaner)):
      raise ValueError(
        "a flow map goes from noise to data, so its levels s, t must not fall "
        f"in logsnr, not from {noisier} to {cleaner}"
      )
  each = lambda one: jnp.broadcast_to(jnp.asarray(one, x.dtype), x.shape[:1])
  logsnr = [each(one) for one in logsnr]
  z = levels.add_noise(x, eps, flow_maps.flow_level(logsnr[0]))
  return eps - x, z, *logsnr


def same_shape(x, eps):
  """Refuses a pair of two shapes."""
  if jnp.shape(x) != jnp.shape(eps):
    raise ValueError(
      f"a pair must have one shape, but x has {jnp.shape(x)} and eps "
      f"{jnp.shape(eps)}"
    )


def mean_square(residual):
  """Mean over dimensions, (batch,)."""
  return (residual**2).reshape(residual.shape[0], -1).mean(axis=1)


def weighted(objective, residual, logsnr, damp=None):
  """The Terms of an error of ū at levels (batch,).

      loss = w(λ)/(2 p(λ)) · alpha²/D² · ‖residual‖²/d     (+ its penalty)

  with alpha²/D² of the row eps - x on the linear scale: the factor that
  `weighted_mse` has, so that a plain MSE of flow matching has factor 1.

  Args:
    residual: (batch, ...), the error of a mean velocity.
    damp: (batch,) mean squares -> (batch,), in place of themselves.
  """
  in_flow = objective.replace(target=targets.flow, scale=levels.linear)
  error = mean_square(residual)
  gain = log_gain(targets.flow, levels.linear, logsnr)
  factor = jnp.exp(losses.log_factor(in_flow, logsnr))
  added = getattr(objective.weighting, "penalty", jnp.zeros_like)(logsnr)
  return losses.Terms(
    loss=factor * (error if damp is None else damp(error)) + added,
    eps_mse=jnp.exp(gain) * error,
    logsnr=logsnr,
    penalty=added,
  )
