"""The loop that runs a tableau: one program for every table of one structure.

Row 0 mixes the first state; then evaluation i is called, its prediction is kept
and row i + 1 mixes the next state, N times (`held`). The loop is a scan, which
has a trajectory and a reverse-mode derivative; of a padded tableau it is a loop
with a traced bound.
"""

import functools

import jax
import jax.numpy as jnp

from diffflow_jax.process import predictors
from diffflow_jax.sampling import checks, held, noise
from diffflow_jax.sampling.structure import ALWAYS, NEVER, ever_draws


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
  table,
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
  """The loop. Row i draws by fold_in(a sample's key, i + 1), or is draws[i].

  Args:
    table: (mix, target, levels, length) of a tableau.
  """
  mix, target, levels, length = table
  fresh = lambda index, clock: lambda: draws[index].astype(z.dtype)
  if ever_draws(structure) and draws is None:
    keys = noise.keys(key, first, z.shape[0])
    if sharding is not None:
      keys = jax.lax.with_sharding_constraint(keys, sharding)
    fresh = lambda index, clock: (
      lambda: noise.draw(keys, index, z.shape[1:], z.dtype, clock)
    )
  columns, clock = held.columns(mix, structure), lambda i: None
  if clocks is not None:
    clock = lambda i: clocks[i]
  first_row = jax.tree.map(lambda column: column[0], columns)
  xi = _draw(structure.first, first_row[-1], fresh(0, clock(0)), z)

  def evaluate(carry, inputs):
    index, row, clock, a, b, lv, at_level = inputs
    z_i = held.pair(structure, carry, z.shape)[1]
    x_hat, eps_hat = checks.prediction(
      predictors.at(predict, at_level, z_i, cond), z
    )
    seen = record and record(z_i, x_hat, eps_hat, lv)
    kept = (a * x_hat + b * eps_hat).astype(z.dtype)
    xi = _draw(structure.draws, row[-1], fresh(index + 1, clock), z)
    return held.step(structure, row, carry, index, kept, xi), seen

  if remat:
    evaluate = jax.checkpoint(evaluate)
  rows = (
    jnp.arange(len(target)),
    jax.tree.map(lambda column: column[1:], columns),
    clock(slice(1, None)),
    *target.T,
    levels,
    prepared,
  )
  carry = held.start(structure, first_row, z, xi)
  if length is None:
    carry, seen = _scan(evaluate, carry, rows, every, record is not None)
  else:
    row = lambda i: jax.tree.map(lambda leaf: leaf[i], rows)
    step = lambda i, carry: evaluate(carry, row(i))[0]
    carry, seen = jax.lax.fori_loop(0, length, step, carry), None
  return held.pair(structure, carry, z.shape)[0], seen


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
