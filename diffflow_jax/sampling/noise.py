"""Noise as a function of names: the key, the sample's global index, the row.

Sample i has its own key fold_in(key, i). Row r of a tableau draws from
fold_in(that, r + 1), the initial state from fold_in(that, 0). Or the rows'
noise is taken from one Brownian path W per sample, on the clock c =
sigmoid(-logsnr/2) (flow time, in [0, 1]): two grids then see the same noise,

    xi of the step s -> t = (W(c_s) - W(c_t)) / √(c_s - c_t)

W is never stored: W(c) is found by bisecting [0, 1], where each midpoint given
its two ends is N(mean of the ends, width/4), drawn from the key of the node
(the virtual Brownian tree of Li et al., arXiv:2001.01328 §4).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.sampling import checks

DEPTH = 20  # of the tree: increments are exact down to a clock step of 2^-20


@functools.partial(jax.jit, static_argnames="num")
def keys(key, first, num):
  """One key for each of the samples first … first + num - 1."""
  return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(num))


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def initial(keys, sigma, shape, dtype):
  """sigma eps, one draw of `shape` per key."""
  normal = lambda key: jax.random.normal(
    jax.random.fold_in(key, 0), shape, dtype
  )
  return sigma.astype(dtype) * jax.vmap(normal)(keys)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "sharding"))
def start(key, first, sigma, shape, *, dtype, sharding=None):
  """The initial states of the samples first … first + shape[0] - 1."""
  each = keys(key, first, shape[0])
  if sharding is not None:
    each = jax.lax.with_sharding_constraint(each, sharding)
  return initial(each, sigma, shape[1:], dtype)


def draw(keys, row, shape, dtype, clock=None):
  """The noise of one row, (num, *shape): fresh, or of the Brownian path."""
  if clock is None:
    normal = lambda key: jax.random.normal(
      jax.random.fold_in(key, row + 1), shape, dtype
    )
    return jax.vmap(normal)(keys)
  width = clock[0] - clock[1]
  scale = jnp.where(width > 0, jnp.where(width > 0, width, 1.0) ** -0.5, 0.0)

  def increment(key):
    key = jax.random.fold_in(key, 1)
    ends = jax.vmap(lambda c: brownian(key, c, shape, dtype))(clock)
    return scale * (ends[0] - ends[1])

  return jax.vmap(increment)(keys)


def brownian(key, c, shape, dtype):
  """W(c) for c in [0, 1], W(0) = 0: DEPTH bisections, linear below."""
  normal = lambda node: jax.random.normal(
    jax.random.fold_in(key, node), shape, dtype
  )

  def halve(level, state):
    node, lo, width, w_lo, w_hi = state
    w_mid = 0.5 * (w_lo + w_hi) + 0.5 * jnp.sqrt(width) * normal(node)
    right = c >= lo + 0.5 * width
    return (
      2 * node + right,
      jnp.where(right, lo + 0.5 * width, lo),
      0.5 * width,
      jnp.where(right, w_mid, w_lo),
      jnp.where(right, w_hi, w_mid),
    )

  zero = jnp.zeros(shape, dtype)
  one, none = jnp.ones((), dtype), jnp.zeros((), dtype)
  state = (jnp.uint32(1), none, one, zero, normal(jnp.uint32(0)))
  _, lo, width, w_lo, w_hi = jax.lax.fori_loop(0, DEPTH, halve, state)
  return w_lo + (c - lo) / width * (w_hi - w_lo)


def clocks(levels, tableau):
  """(N+1, 2): the clock at both ends of the step that each row takes.

  Of a padded tableau the rows that are not reached have clock 0.

  Raises:
    ValueError: the tableau is not one evaluation a step of this grid.
  """
  rows = tableau.mix.shape[0]
  if tableau.length is not None and not checks.is_traced(tableau.length):
    rows = int(tableau.length) + 1
  if levels.logsnr.shape[0] != rows:
    raise ValueError(
      f"brownian must be the grid of a one-evaluation solver: {rows} "
      f"levels, not {levels.logsnr.shape[0]}"
    )
  mine = levels.logsnr
  if not checks.is_traced((mine, tableau)):
    theirs = np.append(tableau.levels.logsnr[: rows - 1], tableau.end.logsnr)
    off = ~np.isclose(mine, theirs, rtol=1e-4, atol=1e-4)
    if off.any():
      i = int(off.argmax())
      raise ValueError(
        "brownian must be the grid that the tableau was made of: level "
        f"{i} has logsnr {mine[i]:g}, the tableau's {theirs[i]:g}"
      )
  xp = jnp if checks.is_traced(levels) else np
  c = xp.asarray(levels.sigma / (levels.alpha + levels.sigma))
  steps = xp.stack([c[:-1], c[1:]], axis=-1)
  more = tableau.mix.shape[0] - rows
  return xp.concatenate([xp.zeros((1, 2)), steps, xp.zeros((more, 2))])
