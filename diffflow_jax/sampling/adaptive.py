"""Sampling and encoding along the probability-flow ODE with adaptive steps.

    dz/dt = ε̂ - x̂   on alpha = 1 - t, sigma = t        finite at both ends

whatever the schedule of the predictor. Needs the extra `ode` (diffrax). The
network sees a level per sample, so samples may be at different times.
"""

import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.sampling import checks, noise
from diffflow_jax.sampling.likelihood import bits_per_dim, log_likelihood
from diffflow_jax.sampling.ode import flow_time, solve, velocity
from diffflow_jax.sampling.tableau import as_pytree

__all__ = ["bits_per_dim", "flow", "log_likelihood", "sample"]


@jax.jit(static_argnames="per_sample")
def _flow(predict, z, t0, t1, cond, rtol, atol, per_sample):
  if not per_sample:
    field = lambda t, z, cond: velocity(predict, t, z, cond)
    return solve(field, z, t0, t1, rtol, atol, cond)

  def one(z, cond):
    lift = lambda tree: jax.tree.map(lambda c: c[None], tree)
    field = lambda t, z, cond: velocity(predict, t, z[None], lift(cond))[0]
    return solve(field, z, t0, t1, rtol, atol, cond)

  return jax.vmap(one)(z, cond)


@ranges.checked(rtol="> 0", atol="> 0")
def flow(
  predict,
  z,
  start,
  end,
  *,
  cond=None,
  rtol=1e-5,
  atol=1e-5,
  per_sample=True,
):
  """Moves states along the probability-flow ODE between two levels, adaptively.

  From noise to data it samples, from data to noise it encodes (DDIM inversion);
  one after the other returns the data to the tolerance.

  Equation (flow_time) of docs/math.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree or a function.
    z: (batch, ...) on the scale of `start`; cond: None or leading axis batch.
    start, end: Levels with fields (), exact ends included.
    rtol, atol: of a step, error norm rms.
    per_sample: every sample has its own step size and error norm (independent
      of its batch), or one step for all with the rms over the batch.
  Returns:
    (z on the scale of `end`, evaluations: (batch,), or () for a shared step).
  Raises:
    ValueError: rtol or atol is not > 0.
  """
  predict = as_pytree(predict)
  (t0, norm0), (t1, norm1) = flow_time(start), flow_time(end)
  z = jnp.asarray(z, jnp.result_type(float, z))
  out, nfe = _flow(
    predict,
    z / jnp.asarray(norm0, z.dtype),
    t0.astype(z.dtype),
    t1.astype(z.dtype),
    cond,
    rtol,
    atol,
    per_sample,
  )
  return out * jnp.asarray(norm1, z.dtype), nfe


def sample(predict, start, end, key, shape, *, cond=None, first=0, **settings):
  """Samples of the given shape by `flow`, from the noise of `tableau.sample`.

  Equation (flow_time) of docs/math.

  Args:
    start, end: Levels with fields (); shape: (num_samples, ...).
    key, cond, first: as of `tableau.sample`: sample i starts from the same z.
    settings: rtol, atol and per_sample of `flow`.
  Returns:
    (samples, evaluations).
  """
  checks.shape_of(shape)
  keys = noise.keys(key, first, shape[0])
  dtype = jnp.result_type(float)
  z = noise.initial(keys, jnp.asarray(start.sigma), tuple(shape[1:]), dtype)
  return flow(predict, z, start, end, cond=cond, **settings)
