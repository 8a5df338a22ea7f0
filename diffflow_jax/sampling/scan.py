"""The loop that runs a tableau: one program for every solver of equal (N, K).

Row i mixes what is held, the network is called, and its prediction is pushed on
the history. The loop is a scan, which has a trajectory and a reverse-mode
derivative; of a padded tableau it is a loop with a traced bound.
"""

import functools

import jax
import jax.numpy as jnp

from diffflow_jax.sampling import checks, noise


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
def run(
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
    x_hat, eps_hat = checks.prediction(predict(z_i, lv, cond), z_i)
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
