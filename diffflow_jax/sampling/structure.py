"""What a table never does, known before its numbers become data.

A program that runs every table mixes every column, holds two states, keeps all
history and has a branch for noise in it. Most tables need little of that. So
what a *concrete* table uses is looked up on the host; the program is made for
that, and tables that use the same share it, whatever their numbers. A traced
table is run by the widest program of its size, and so is a padded one, which
serves every table.
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.sampling import checks

ANCHOR, Z, H = 0, 1, 2  # columns of `mix`; the last column is the noise
NEVER, SOMETIMES, ALWAYS = range(3)


class Structure(NamedTuple):
  """The part of a table that is no number; the first row has no history.

  Attributes:
    states: 1 where the anchor and z are one state all along, else 2.
    anchor, z: whether a row but the first reads it; 1 state is z.
    depth: how many predictions are read, the newest included.
    starts: whether the first row changes the state that it is given.
    first, draws: whether the first row, and the others, draw noise.
  """

  states: int
  anchor: bool
  z: bool
  depth: int
  starts: bool
  first: int
  draws: int


def of(table):
  """The Structure of a tableau: its own, or the widest of its size."""
  depth = table.mix.shape[-1] - H - 1
  if checks.is_traced(table.mix) or table.length is not None:
    return Structure(2, True, True, depth, True, SOMETIMES, SOMETIMES)
  mix = np.asarray(table.mix)
  read = mix != 0.0
  # where the anchor is z, all along, its column is z's
  both = mix[..., ANCHOR] + mix[..., Z]
  one = (both[:-1, 0] == both[:-1, 1]).all() and (
    mix[:-1, 0, H:] == mix[:-1, 1, H:]
  ).all()
  rows = read[1:, :1] if one else read[1:]
  used, drawn = rows.any((0, 1)), rows[..., -1].any(1)
  return Structure(
    states=1 if one else 2,
    anchor=bool(used[ANCHOR] and not one),
    z=bool((both[1:, 0] != 0.0).any() if one else used[Z]),
    depth=int(used[H:-1].nonzero()[0].max(initial=0)) + 1,
    starts=bool((both[0] != 1.0).any() or read[0, :, -1].any()),
    first=ALWAYS if read[0, :, -1].any() else NEVER,
    draws=ALWAYS if drawn.all() else SOMETIMES if drawn.any() else NEVER,
  )


def ever_draws(structure):
  """Whether any row may draw noise: else no key is needed."""
  return structure.first != NEVER or structure.draws != NEVER
