"""Tableaus: every sampler is a table of numbers, and one loop runs them all.

At each network evaluation a sampler mixes what it holds with numbers that
depend on the grid alone. It holds an anchor state, the current state z, the
last K kept predictions h_0 (newest) … h_{K-1}, and fresh noise xi:

    (anchor, z) <- mix_i (anchor, z, h_0 … h_{K-1}, xi)
    x̂, ε̂       <- predict(z, levels_i)
    h           <- (a_i x̂ + b_i ε̂, h_0 … h_{K-2})

for i = 0 … N-1; a last mix, row N, and the anchor is the sample. A two-stage
method is two rows a step, churn is noise in a row, a corrector mixes from the
anchor. Solvers (`solvers`) are functions levels -> Tableau; `sample` runs them.
"""

import functools

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process.levels import Level
from diffflow_jax.sampling import noise

ANCHOR, Z, H = 0, 1, 2  # columns of `mix`; the last column is the noise


@struct.dataclass
class Tableau:
  """A sampler with N network evaluations that keeps K predictions.

  Attributes:
    mix: (N+1, 2, K+3), row i gives (anchor, z) from (anchor, z, h…, noise).
    target: (N, 2), the (a, b) of what is kept: h = a x̂ + b ε̂.
    levels: Level with fields (N,), where evaluation i happens.
    start, end: Level with fields (), of the initial state and of the sample.
    length: None, or the traced number of evaluations of a padded tableau.
  """

  mix: jax.Array
  target: jax.Array
  levels: Level
  start: Level
  end: Level
  length: jax.Array | None = None

  @property
  def num_evaluations(self):
    """N, the number of network evaluations (NFE); traced if padded."""
    return self.mix.shape[0] - 1 if self.length is None else self.length

  @property
  def num_kept(self):
    """K, the number of predictions that are kept."""
    return self.mix.shape[-1] - 3


def without_clock(levels):
  """The levels alone: a tableau's arithmetic needs no d/dt."""
  return Level(levels.logsnr, levels.alpha, levels.sigma)


def _mix(row, anchor, z, h, xi):
  """Both rows of one mixing: (anchor, z) from all that is held."""
  held = (anchor, z, *h, xi)
  return tuple(
    sum(c.astype(z.dtype) * s for c, s in zip(r, held, strict=True))
    for r in row
  )


def _rows(tableau, clocks):
  """What one evaluation reads, with leading axis N."""
  n = tableau.target.shape[0]
  clocks = None if clocks is None else clocks[:-1]
  return (
    jnp.arange(n),
    tableau.mix[:-1],
    clocks,
    tableau.target,
    tableau.levels,
  )


@functools.partial(jax.jit, static_argnames=("record", "every", "remat"))
def _run(
  predict,
  tableau,
  keys,
  z,
  cond,
  clocks=None,
  record=None,
  every=1,
  remat=False,
):
  """The loop. Row i's noise for a sample is fold_in(its key, i + 1)."""

  def mix(carry, index, row, clock):
    # a branch and not a product: a row without noise does not pay for a draw
    xi = jax.lax.cond(
      jnp.any(row[:, -1] != 0),
      lambda: noise.draw(keys, index, z.shape[1:], z.dtype, clock),
      lambda: jnp.zeros_like(z),
    )
    return _mix(row, *carry, xi)

  def evaluate(carry, inputs):
    index, row, clock, (a, b), lv = inputs
    anchor, z_i = mix(carry, index, row, clock)
    x_hat, eps_hat = predict(z_i, lv, cond)
    kept = (a * x_hat + b * eps_hat).astype(z.dtype)
    seen = None if record is None else record(z_i, x_hat, eps_hat, lv)
    return (anchor, z_i, (kept, *carry[2][:-1])), seen

  if remat:
    evaluate = jax.checkpoint(evaluate)
  rows = _rows(tableau, clocks)
  carry = (z, z, (jnp.zeros_like(z),) * tableau.num_kept)
  last = lambda leaf: leaf[-1]
  if tableau.length is not None:
    at = lambda tree, i: jax.tree.map(lambda leaf: leaf[i], tree)
    step = lambda i, carry: evaluate(carry, at(rows, i))[0]
    carry = jax.lax.fori_loop(0, tableau.length, step, carry)
    last = lambda leaf: leaf[tableau.length]
    seen = None
  else:
    carry, seen = _scan(evaluate, carry, rows, every, record is not None)
  n = tableau.num_evaluations
  clock = None if clocks is None else last(clocks)
  return mix(carry, n, last(tableau.mix), clock)[0], seen


def _scan(evaluate, carry, rows, every, recording):
  """A scan that keeps what evaluations every-1, 2 every-1, … from the end saw.

  Only what is kept is stored: chunks of `every` rows, whose inner scan carries
  the newest record. The last evaluation is always kept.
  """
  if not recording or every == 1:
    return jax.lax.scan(evaluate, carry, rows)
  n = rows[0].shape[0]
  ahead = n % every
  head = jax.tree.map(lambda leaf: leaf[:ahead], rows)
  chunks = jax.tree.map(
    lambda leaf: leaf[ahead:].reshape(n // every, every, *leaf.shape[1:]), rows
  )
  first = jax.tree.map(lambda leaf: leaf[0], rows)
  shapes = jax.eval_shape(evaluate, carry, first)[1]
  empty = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

  def chunk(carry, rows):
    newest = lambda both, row: (evaluate(both[0], row), None)
    (carry, seen), _ = jax.lax.scan(newest, (carry, empty), rows)
    return carry, seen

  carry, _ = chunk(carry, head)
  return jax.lax.scan(chunk, carry, chunks)


def as_pytree(predict):
  """predict with its bare functions wrapped, so that jit takes it as data."""
  if not callable(predict):
    raise TypeError(f"predict must be callable, not {type(predict).__name__}")
  wrap = lambda leaf: jax.tree_util.Partial(leaf) if callable(leaf) else leaf
  return jax.tree.map(wrap, predict)


def sample(
  predict,
  tableau,
  key,
  shape,
  *,
  cond=None,
  z=None,
  first=0,
  brownian=None,
  trajectory=None,
  every=1,
  remat=False,
  sharding=None,
):
  """Runs a tableau: samples of the given shape, from noise to data.

  Traces `predict` once per (predict's structure, N, K, shape): another solver,
  grid, eta or guidance strength of equal (N, K) is new data, not a new program;
  with `pad` also another number of steps. Sample i depends on (key, first + i)
  alone, not on the batch that it is in or the devices that hold it.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree (as all of ours) or a function.
    tableau: what a solver made of a grid.
    key: a PRNG key.
    shape: (num_samples, ...) of the result.
    cond: passed to predict as it is; usually leading axis num_samples.
    z: the state to start from, on the scale of the grid's first level; drawn
      from N(0, sigma_0² I) if None.
    first: global index of the first sample.
    brownian: the grid itself, to take every step's noise from one Brownian path
      per sample: grids of 20 and 40 steps then see the same noise (`noise`).
    trajectory: None, or what to keep of an evaluation, (z, x̂, ε̂, lv) -> pytree;
      the call then returns (samples, pytree with a leading axis).
    every: keep only every k-th evaluation, counted back from the last one.
    remat: recompute the network in the backward pass instead of storing it.
    sharding: of z's leading axis over devices.
  Returns:
    The anchor after the last mix, on the scale of the grid's last level.
  Raises:
    ValueError: z has another shape, every < 1, a padded tableau is asked for
      its trajectory, or brownian is not one level a row.
  """
  predict = as_pytree(predict)
  if z is not None and jnp.shape(z) != tuple(shape):
    raise ValueError(f"z has shape {jnp.shape(z)}, but shape is {tuple(shape)}")
  if every < 1 or int(every) != every:
    raise ValueError(f"every must be an integer >= 1, not {every!r}")
  if trajectory is not None and tableau.length is not None:
    raise ValueError("a padded tableau keeps no trajectory: do not pad it")
  dtype = jnp.result_type(float) if z is None else jnp.asarray(z).dtype
  clocks = None
  if brownian is not None:
    clocks = jnp.asarray(noise.clocks(brownian, tableau.mix.shape[0]), dtype)
  keys = noise.keys(key, first, shape[0])
  length = tableau.length
  tableau = jax.tree.map(
    lambda leaf: jnp.asarray(leaf, dtype), tableau.replace(length=None)
  ).replace(length=length)
  if sharding is not None:
    keys = jax.device_put(keys, sharding)
    z = None if z is None else jax.device_put(z, sharding)
  if z is None:
    z = noise.initial(keys, tableau.start.sigma, tuple(shape[1:]), dtype)
  out, seen = _run(
    predict, tableau, keys, z, cond, clocks, trajectory, int(every), remat
  )
  return out if trajectory is None else (out, seen)
