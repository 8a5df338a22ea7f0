"""The probability-flow ODE with adaptive steps: sampling, encoding, likelihood.

    dz/dt = ε̂ - x̂   on alpha = 1 - t, sigma = t        finite at both ends

whatever the schedule of the predictor. Needs the extra `ode` (diffrax). The
network sees a level per sample, so samples may be at different times.
"""

import math

import jax
import jax.numpy as jnp

from diffflow_jax.process import levels as levels_lib, schedules
from diffflow_jax.sampling.tableau import as_pytree

FLOW = schedules.Flow()
EVALUATIONS = 6  # of Dopri5 a step: the seventh is the next step's first


def _diffrax():
  try:
    import diffrax
  except ImportError as e:
    raise ImportError(
      "adaptive steps need diffrax: pip install 'diffflow_jax[ode]'"
    ) from e
  return diffrax


def _velocity(predict, t, z, cond):
  """dz/dt of a batch at one time t ()."""
  lv = levels_lib.level(FLOW, levels_lib.linear, t)
  lv = jax.tree.map(lambda c: c.astype(z.dtype), lv)
  x_hat, eps_hat = predict(z, lv, cond)
  return eps_hat - x_hat


def _solve(field, y, t0, t1, rtol, atol, args=None):
  """(y at t1, number of evaluations) by Dopri5 and a PI controller."""
  diffrax = _diffrax()
  out = diffrax.diffeqsolve(
    diffrax.ODETerm(field),
    diffrax.Dopri5(),
    t0,
    t1,
    dt0=None,
    y0=y,
    args=args,
    stepsize_controller=diffrax.PIDController(
      rtol=rtol, atol=atol, pcoeff=0.3, icoeff=0.4
    ),
    max_steps=100_000,
  )
  y = jax.tree.map(lambda leaf: leaf[-1], out.ys)
  return y, 1 + EVALUATIONS * out.stats["num_steps"]


def _time(lv):
  """Flow time sigma/(alpha + sigma) of a Level; and its norm alpha + sigma."""
  norm = lv.alpha + lv.sigma
  return jnp.asarray(lv.sigma / norm, jnp.result_type(float)), norm


@jax.jit(static_argnames="per_sample")
def _flow(predict, z, t0, t1, cond, rtol, atol, per_sample):
  if not per_sample:
    field = lambda t, z, cond: _velocity(predict, t, z, cond)
    return _solve(field, z, t0, t1, rtol, atol, cond)

  def one(z, cond):
    lift = lambda tree: jax.tree.map(lambda c: c[None], tree)
    field = lambda t, z, cond: _velocity(predict, t, z[None], lift(cond))[0]
    return _solve(field, z, t0, t1, rtol, atol, cond)

  return jax.vmap(one)(z, cond)


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

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree or a function.
    z: (batch, ...) on the scale of `start`; cond: None or leading axis batch.
    start, end: Levels with fields (), exact ends included.
    rtol, atol: of a step, error norm rms.
    per_sample: every sample has its own step size and error norm (independent
      of its batch), or one step for all with the rms over the batch.
  Returns:
    (z on the scale of `end`, evaluations: (batch,), or () for a shared step).
  """
  predict = as_pytree(predict)
  (t0, norm0), (t1, norm1) = _time(start), _time(end)
  z = jnp.asarray(z)
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
      u = lambda z: _velocity(predict, t, z[None], lift(cond))[0]
      return _divergence(u, state[0], probes)

    state = (z, jnp.zeros((), z.dtype))
    return _solve(field, state, t0, t1, rtol, atol, cond)

  return jax.vmap(one)(z, cond, probes)


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
    ValueError: num_probes < 1, or probes without a key.
  """
  if num_probes is not None and (num_probes < 1 or key is None):
    raise ValueError(
      f"num_probes must be >= 1 and needs a key, not {num_probes!r}, {key!r}"
    )
  predict = as_pytree(predict)
  x = jnp.asarray(x, jnp.result_type(float, x))
  t0 = jnp.zeros(()) if start is None else _time(start)[0]
  t1 = jnp.ones(()) if end is None else _time(end)[0]
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


def bits_per_dim(log_p, size, bins_per_unit=1.0):
  """-log₂ p/d + log₂ bins_per_unit: bits a dimension of dequantised data.

  For 256 bins on [-1, 1] bins_per_unit is 128, so 7 bits are added.
  """
  return -log_p / (size * math.log(2.0)) + math.log2(bins_per_unit)
