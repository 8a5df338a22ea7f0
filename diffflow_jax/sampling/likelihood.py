"""Likelihood by the probability-flow ODE, in nats and in bits a dimension."""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.sampling.ode import flow_time, solve, velocity
from diffflow_jax.sampling.tableau import as_pytree


def _divergence(field, z, probes):
  """(u, tr du/dz) of one sample: exact, or the mean of probeᵀ J probe."""
  if probes is None:
    flat = lambda v: field(v.reshape(z.shape)).reshape(-1)
    u, push = jax.linearize(flat, z.reshape(-1))
    jac = jax.vmap(push)(jnp.eye(z.size, dtype=z.dtype))
    return u.reshape(z.shape), jnp.trace(jac)
  u, push = jax.linearize(field, z)
  each = jax.vmap(lambda p: jnp.vdot(p, push(p)))(probes)
  return u, jnp.mean(each)


@jax.jit
def _log_likelihood(predict, z, t0, t1, cond, probes, rtol, atol):
  def one(z, cond, probes):
    lift = lambda tree: jax.tree.map(lambda c: c[None], tree)

    def field(t, state, cond):
      u = lambda z: velocity(predict, t, z[None], lift(cond))[0]
      return _divergence(u, state[0], probes)

    state = (z, jnp.zeros((), z.dtype))
    return solve(field, state, t0, t1, rtol, atol, cond)

  return jax.vmap(one)(z, cond, probes)


@ranges.checked(rtol="> 0", atol="> 0", num_probes="an integer >= 1")
def log_likelihood(
  predict,
  x,
  *,
  cond=None,
  start=None,
  end=None,
  key=None,
  num_probes=None,
  log_prior=None,
  rtol=1e-6,
  atol=1e-6,
):
  """log p(x) in nats by the probability-flow ODE, arXiv:2011.13456 eq. 39.

      log p(x) = log p_1(z_1) + ∫₀¹ ∇·(ε̂ - x̂) dt

  Differentiable in x and in predict's leaves. Guided predictions are no density
  (they are not the score of anything): use it with strength 1.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂); x: (batch, ...) clean data.
    start: Level () to start from, sigma = 0 if None. With sigma > 0 the result
      is the density of x + (sigma/alpha) eps at x, the correction d log alpha
      for the scale included.
    end: Level () of the prior, alpha = 0 if None.
    key, num_probes: None for the exact trace (as many products as dimensions),
      or the number of Rademacher probes of Hutchinson's estimate, fixed along a
      trajectory and drawn per sample.
    log_prior: z (…) -> log p of one state at `end` on alpha + sigma = 1; the
      default is N(0, sigma² I).
    rtol, atol: of a step.
  Returns:
    (log p (batch,), evaluations (batch,)).
  Raises:
    ValueError: num_probes < 1, probes without a key, or a tolerance that is not
      > 0.
  """
  if num_probes is not None:
    if key is None:
      raise ValueError("num_probes needs a key: key is None")
  predict = as_pytree(predict)
  x = jnp.asarray(x, jnp.result_type(float, x))
  t0 = jnp.zeros(()) if start is None else flow_time(start)[0]
  t1 = jnp.ones(()) if end is None else flow_time(end)[0]
  probes = None
  if num_probes is not None:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(x)))
    probes = jax.vmap(
      lambda k: jax.random.rademacher(k, (num_probes, *x.shape[1:]), x.dtype)
    )(keys)
  alpha = (1.0 - t0).astype(x.dtype)
  times = (t.astype(x.dtype) for t in (t0, t1))
  (z, gained), nfe = _log_likelihood(
    predict, alpha * x, *times, cond, probes, rtol, atol
  )
  if log_prior is None:
    sigma = t1.astype(x.dtype)
    log_prior = lambda z: jnp.sum(jax.scipy.stats.norm.logpdf(z, scale=sigma))
  size = math.prod(x.shape[1:])
  return jax.vmap(log_prior)(z) + gained + size * jnp.log(alpha), nfe


@ranges.checked(size="an integer >= 1", bins_per_unit="> 0")
def bits_per_dim(log_p, size, bins_per_unit=1.0):
  """-log₂ p/d + log₂ bins_per_unit: bits a dimension of dequantised data.

  For 256 bins on [-1, 1] bins_per_unit is 128, so 7 bits are added.
  """
  return -log_p / (size * math.log(2.0)) + math.log2(bins_per_unit)
