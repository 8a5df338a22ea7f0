"""What the loop of a tableau holds between two evaluations, and how it mixes.

The states and the history. What is kept is a ring: prediction m lies in slot
m mod depth until it is replaced, and nothing is ever moved; it is the columns
of the table that turn instead, once for all rows. A short history is mixed as a
sum of arrays, which XLA makes one loop of. A long one is one product of
matrices: it reads everything once for both states, where that loop reads it
once for each.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.sampling.structure import ANCHOR, H, Z

LONG = 12  # numbers of a row for its history, from which on the product wins
ALL = -2  # in place of the columns of a long history: all but the noise


def _is_long(structure):
  return structure.states * structure.depth >= LONG


def columns(mix, structure):
  """{column: (N+1,), or (N+1, 2) for two states}; a column is a slot of it.

  A long history has one for all that is held, ALL (N+1, states, held).
  """
  if structure.states == 1:  # the anchor is z, and its column is z's
    mix = mix.at[:, :, Z].add(mix[:, :, ANCHOR])[:, 0]
  kept = mix[..., H : H + structure.depth]
  if structure.depth > 1:
    # row i + 1 follows evaluation i, and slot s holds what was made j before it
    i = np.arange(mix.shape[0])[:, None] - 1
    j = (i - np.arange(structure.depth)) % structure.depth
    j = j if structure.states == 1 else j[:, None]
    kept = jnp.take_along_axis(kept, j, -1)
  ends = {c: mix[..., c] for c in (ANCHOR, Z, -1)}
  if _is_long(structure):
    first = Z if structure.states == 1 else ANCHOR
    whole = jnp.concatenate([mix[..., first:H], kept], -1)
    shape = mix.shape[0], structure.states, whole.shape[-1]
    return ends | {ALL: whole.reshape(shape)}
  return ends | {H + s: kept[..., s] for s in range(structure.depth)}


def start(structure, row, z, xi):
  """What is held before the first evaluation, row 0 of the table mixed."""
  states = z if structure.states == 1 else jnp.stack([z, z])
  if structure.starts:
    alone = structure._replace(anchor=structure.states > 1, z=True, depth=0)
    states = _sum(alone, row, states, (), xi)
  slots = structure.depth if structure.depth > 1 else 0
  ring = jnp.zeros((slots, *z.shape), z.dtype)
  if not _is_long(structure):
    return states, ring
  flat = lambda what, num: what.reshape(num, z.size)
  return jnp.concatenate([flat(states, structure.states), flat(ring, slots)])


def pair(structure, held, shape):
  """(anchor, z): both states, or one array that is both."""
  if _is_long(structure):
    return held[0].reshape(shape), held[structure.states - 1].reshape(shape)
  return _pair(structure, held[0])


def step(structure, row, held, index, kept, xi):
  """What is held after evaluation `index`, whose prediction is kept."""
  put = jax.lax.dynamic_update_index_in_dim
  slot = index % structure.depth
  if _is_long(structure):
    held = put(held, kept.reshape(-1), structure.states + slot, 0)
    return _product(row, held, xi)
  states, ring = held
  kept = [kept] if structure.depth == 1 else put(ring, kept, slot, 0)
  states = _sum(structure, row, states, kept, xi)
  return states, ring if structure.depth == 1 else kept


def _pair(structure, states):
  return (states, states) if structure.states == 1 else (states[0], states[1])


def _sum(structure, row, states, ring, xi):
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


def _product(row, held, xi):
  """The same of held (states + depth, size of z), the states replaced."""
  weights = row[ALL].astype(held.dtype)
  states = jnp.matmul(weights, held, precision="highest")
  if xi is not None:
    states += row[-1].reshape(-1, 1).astype(held.dtype) * xi.reshape(1, -1)
  return jax.lax.dynamic_update_slice_in_dim(held, states, 0, 0)
