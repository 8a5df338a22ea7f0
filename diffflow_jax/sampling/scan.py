"""The loop that runs a tableau: one program for every table of one structure.

Row 0 mixes the first state; then evaluation i is called, its prediction is kept
and row i + 1 mixes the next state, N times. What is kept is a ring: prediction
m lies in slot m mod depth until it is replaced, and nothing is ever moved. It
is the columns of the table that turn instead, once for all rows. The loop is a
scan, which has a trajectory and a reverse-mode derivative; of a padded tableau
it is a loop with a traced bound.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import predictors
from diffflow_jax.sampling import checks, noise
from diffflow_jax.sampling.structure import (
  ALWAYS,
  ANCHOR,
  NEVER,
  H,
  Z,
  ever_draws,
)


def _columns(mix, structure):
  """{column: (N+1,), or (N+1, 2) for two states}; a column is a slot of it."""
  if structure.states == 1:  # the anchor is z, and its column is z's
    mix = mix.at[:, :, Z].add(mix[:, :, ANCHOR])[:, 0]
  kept = mix[..., H : H + structure.depth]
  if structure.depth > 1:
    # row i + 1 follows evaluation i, and slot s holds what was made j before it
    i = np.arange(mix.shape[0])[:, None] - 1
    j = (i - np.arange(structure.depth)) % structure.depth
    j = j if structure.states == 1 else j[:, None]
    kept = jnp.take_along_axis(kept, j, -1)
  columns = {H + s: kept[..., s] for s in range(structure.depth)}
  return columns | {c: mix[..., c] for c in (ANCHOR, Z, -1)}


def _pair(structure, states):
  """(anchor, z) of the states: both of them, or one array that is both."""
  return (states, states) if structure.states == 1 else (states[0], states[1])


def _mixed(structure, row, states, ring, xi):
  """The next states, (2, *z.shape) or z's shape, from all that is held."""
  anchor, z = _pair(structure, states)
  held = {ANCHOR: anchor} if structure.anchor else {}
  held |= {Z: z} if structure.z else {}
  held |= {H + s: ring[s] for s in range(structure.depth)}
  held |= {} if xi is None else {-1: xi}
  # one number for each state
  shape = () if structure.states == 1 else (-1, *[1] * z.ndim)
  each = lambda column: row[column].reshape(shape).astype(z.dtype)
  return sum(each(column) * what for column, what in held.items())


def _draw(how, weight, fresh, z):
  """None, fresh(), or that in a branch: a row without noise pays for none."""
  if how == NEVER:
    return None
  if how == ALWAYS:
    return fresh()
  used = jnp.any(weight != 0)
  return jax.lax.cond(used, fresh, lambda: jnp.zeros_like(z))


@functools.partial(
  jax.jit,
  static_argnames=("structure", "record", "every", "remat", "sharding"),
)
def run(
  predict,
  tableau,
  prepared,
  key,
  first,
  z,
  cond,
  clocks=None,
  draws=None,
  *,
  structure,
  record=None,
  every=1,
  remat=False,
  sharding=None,
):
  """The loop. Row i draws by fold_in(a sample's key, i + 1), or is draws[i]."""
  n, depth = tableau.target.shape[0], structure.depth
  fresh = lambda index, clock: lambda: draws[index].astype(z.dtype)
  if ever_draws(structure) and draws is None:
    keys = noise.keys(key, first, z.shape[0])
    if sharding is not None:
      keys = jax.lax.with_sharding_constraint(keys, sharding)
    fresh = lambda index, clock: (
      lambda: noise.draw(keys, index, z.shape[1:], z.dtype, clock)
    )
  columns, clock = _columns(tableau.mix, structure), lambda i: None
  if clocks is not None:
    clock = lambda i: clocks[i]

  states = z if structure.states == 1 else jnp.stack([z, z])
  if structure.starts:
    row = jax.tree.map(lambda column: column[0], columns)
    xi = _draw(structure.first, row[-1], fresh(0, clock(0)), z)
    alone = structure._replace(anchor=structure.states > 1, z=True, depth=0)
    states = _mixed(alone, row, states, (), xi)

  def evaluate(carry, inputs):
    states, ring = carry
    index, row, clock, a, b, lv, at_level = inputs
    z_i = _pair(structure, states)[1]
    x_hat, eps_hat = checks.prediction(
      predictors.at(predict, at_level, z_i, cond), z
    )
    seen = record and record(z_i, x_hat, eps_hat, lv)
    kept = (a * x_hat + b * eps_hat).astype(z.dtype)
    held = [kept]
    if depth > 1:
      put = jax.lax.dynamic_update_index_in_dim
      held = ring = put(ring, kept, index % depth, 0)
    xi = _draw(structure.draws, row[-1], fresh(index + 1, clock), z)
    return (_mixed(structure, row, states, held, xi), ring), seen

  if remat:
    evaluate = jax.checkpoint(evaluate)
  rows = (
    jnp.arange(n),
    jax.tree.map(lambda column: column[1:], columns),
    clock(slice(1, None)),
    *tableau.target.T,
    tableau.levels,
    prepared,
  )
  slots = depth if depth > 1 else 0
  carry = states, jnp.zeros((slots, *z.shape), z.dtype)
  if tableau.length is None:
    carry, seen = _scan(evaluate, carry, rows, every, record is not None)
  else:
    row = lambda i: jax.tree.map(lambda leaf: leaf[i], rows)
    step = lambda i, carry: evaluate(carry, row(i))[0]
    carry, seen = jax.lax.fori_loop(0, tableau.length, step, carry), None
  return _pair(structure, carry[0])[0], seen


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
