"""Likelihood by the probability-flow ODE, in nats and in bits a dimension."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import ranges
from diffflow_jax.process.levels import Level
from diffflow_jax.sampling.ode import flow_time, solve, velocity
from diffflow_jax.sampling.tableau import as_pytree

_LOOKED_AT = 1 << 16  # entries of z, for whether they are discrete
_FEW = 256  # values of 8 bits
_PICTURE = 16  # dimensions from which a lattice is no grid that is drawn on

DATA, PURE = Level(np.inf, 1.0, 0.0), Level(-np.inf, 0.0, 1.0)


def _divergence(field, z, probes):
  """(u, tr du/dz) of one sample: exact, or the mean of probeᵀ J probe."""
  exact = probes is None
  basis = jnp.eye(z.size, dtype=z.dtype).reshape(-1, *z.shape)
  along = basis if exact else probes
  push = lambda p: jax.jvp(field, (z,), (p,))
  u, pushed = jax.vmap(push, out_axes=(None, 0))(along)
  each = jnp.sum(along * pushed, range(1, along.ndim))
  return u, jnp.sum(each) if exact else jnp.mean(each)


@jax.jit(static_argnames="per_sample")
def _log_likelihood(
  predict, z, start, end, cond, probes, rtol, atol, per_sample
):
  """(z on the scale of end, what log p gains, log N(0, sigma²), evaluations)"""

  def field(t, state, args):
    cond, probes = args
    lift = lambda tree: jax.tree.map(lambda c: c[None], tree)
    u = lambda z: velocity(predict, t, z[None], lift(cond))[0]
    return _divergence(u, state[0], probes)

  (t0, norm0), (t1, norm1) = (
    tuple(c.astype(z.dtype) for c in flow_time(lv)) for lv in (start, end)
  )
  first = z / norm0
  if per_sample:
    one = lambda z, *args: solve(
      field, (z, jnp.zeros((), z.dtype)), t0, t1, rtol, atol, args
    )
    (last, gained), nfe = jax.vmap(one)(first, cond, probes)
  else:
    together = jax.vmap(field, (None, 0, 0))
    state = (first, jnp.zeros(z.shape[0], z.dtype))
    args = (cond, probes)
    (last, gained), nfe = solve(together, state, t0, t1, rtol, atol, args)
  gained += math.prod(z.shape[1:]) * (jnp.log(norm1) - jnp.log(norm0))
  normal = jax.scipy.stats.norm.logpdf(last, scale=t1)
  normal = jnp.sum(normal - jnp.log(norm1), range(1, z.ndim))
  return last * norm1, gained, normal, nfe


def num_values(z):
  """Of how few values z (batch, ...) are, if equally far apart, or else 0.

  0 where that is not known yet, under jit; and below 16 dimensions, where such
  points may be a grid to draw a density on.
  """
  if isinstance(z, jax.core.Tracer) or not z.is_fully_addressable:
    return 0
  if math.prod(z.shape[1:]) < _PICTURE:
    return 0
  seen = np.asarray(z).reshape(-1)[:_LOOKED_AT].astype(np.float64)
  values = np.unique(seen)
  if not 2 <= len(values) <= min(_FEW, len(seen) // 2):
    return 0
  place = (values - values[0]) / np.diff(values).min()
  return len(values) if np.abs(place - np.round(place)).max() < 0.02 else 0


@ranges.checked(rtol="> 0", atol="> 0", num_probes="an integer >= 1")
def log_likelihood(
  predict,
  z,
  *,
  cond=None,
  start=None,
  end=None,
  key=None,
  num_probes=None,
  log_prior=None,
  rtol=1e-6,
  atol=1e-6,
  per_sample=False,
):
  """log p(z) in nats by the probability-flow ODE, arXiv:2011.13456 eq. 39.

      log p(z) = log p_1(z_1) + ∫ ∇·(ε̂ - x̂) dt    on alpha + sigma = 1

  Differentiable in z and in predict's leaves. Guided predictions are no density
  (they are not the score of anything): use it with strength 1.

  A density: of discrete data, as 8-bit images are, it says nothing, and can be
  as high as one likes on their values. Bits per dimension of those are bounded
  by `evaluation.uniform_bits`, `truncated_normal_bits` and `decoder_bits` of
  `evaluation.flow_density`, and by `evaluation.variational_bits`.

  Equation (likelihood) of docs/math.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂).
    z: (batch, ...) on the scale of `start`, as of `flow`: clean data if None.
    start: Level () of z, the data (sigma = 0, alpha = 1) if None. With
      sigma > 0 the result is the density of alpha x + sigma eps.
    end: Level () of the prior, alpha = 0 if None.
    key, num_probes: None for the exact trace (as many products as dimensions),
      or the number of Rademacher probes of Hutchinson's estimate, fixed along a
      trajectory and drawn per sample.
    log_prior: z (…) -> log p of one state on the scale of `end`; the default is
      N(0, sigma² I).
    rtol, atol: of a step, error norm rms.
    per_sample: one step for all with the rms over the batch, which is faster,
      or every sample its own step size and error norm, whatever its batch.
  Returns:
    (log p (batch,), evaluations: (), or (batch,) if per_sample).
  Raises:
    ValueError: num_probes < 1, probes without a key, or a tolerance that is not
      > 0.
  Warns:
    Clean data that look discrete, and were not dequantised.
  """
  if num_probes is not None and key is None:
    raise ValueError("num_probes needs a key: key is None")
  predict = as_pytree(predict)
  z = jnp.asarray(z, jnp.result_type(float, z))
  few = num_values(z) if start is None else 0
  if few:
    warnings.warn(
      f"z is of {few} values that lie equally far apart: a density of discrete "
      "data means nothing without dequantisation; evaluation.uniform_bits, "
      "decoder_bits and variational_bits bound their bits per dimension",
      stacklevel=3,  # past the check of ranges
    )
  start, end = DATA if start is None else start, PURE if end is None else end
  probes = None
  if num_probes is not None:
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(z)))
    probes = jax.vmap(
      lambda k: jax.random.rademacher(k, (num_probes, *z.shape[1:]), z.dtype)
    )(keys)
  last, gained, normal, nfe = _log_likelihood(
    predict, z, start, end, cond, probes, rtol, atol, per_sample
  )
  prior = normal if log_prior is None else jax.vmap(log_prior)(last)
  return prior + gained, nfe


@ranges.checked(size="an integer >= 1", bins_per_unit="> 0")
def bits_per_dim(log_p, size, bins_per_unit=1.0):
  """-log₂ p/d + log₂ bins_per_unit: bits a dimension of dequantised data.

  For 256 bins on [-1, 1] bins_per_unit is 128, so 7 bits are added.

  Equation (bits) of docs/math.
  """
  return -log_p / (size * math.log(2.0)) + math.log2(bins_per_unit)
