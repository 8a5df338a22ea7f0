"""What a network is told beside z and its level: `process.conditions`, taken.

    label      an embedding, added to the level's
    vector     an embedding by an MLP, added to the level's
    sequence   tokens to attend to, and their mean, added to the level's
    image      brought to z's grid, channels beside z's, and one of its mask

A learned null stands for an embedding, for the tokens where none was said, for
an image's channels. A zero null is the value 0 of a vector or an image, and no
token at all. Vectors and tokens should be of about unit size, and a sequence's
order is its encoder's to say: tokens are attended to as a set.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.process.conditions import (
  GUIDANCE,
  KINDS,
  LABEL,
  Condition,
  Given,
  as_given,
  by_name,
  is_label_only,
  null,
)
from diffflow_jax.process.names import check_classes

NORMAL = nn.initializers.normal(0.02)


def check(network, conditions, num_classes, kinds=KINDS):
  """The number of classes that a network's two settings agree on.

  Raises:
    ValueError: conditions are no dict of Condition, or of kinds that the
      network does not take; num_classes are not those of the label.
  """
  ranges.check("num_classes", num_classes, "an integer >= 0")
  if not conditions:
    return num_classes
  if not isinstance(conditions, Mapping) or not all(
    isinstance(one, Condition) for one in conditions.values()
  ):
    raise ValueError(
      f"conditions must be a dict of name: Condition, not {conditions!r}"
    )
  for name, one in conditions.items():
    if one.kind not in kinds:
      raise ValueError(
        f"{network} takes conditions of the kinds {', '.join(kinds)}, but "
        f"{name} is of the kind {one.kind}"
      )
  label = conditions[LABEL].num_classes if LABEL in conditions else 0
  if num_classes not in (0, label):
    raise ValueError(
      f"num_classes is {num_classes}, but the label of conditions has {label}"
    )
  return label


def named(conditions):
  """The conditions that come in a dict, sorted: {} where cond is the labels."""
  if not conditions or is_label_only(conditions):
    return {}
  return {name: conditions[name] for name in sorted(conditions)}


def of_kind(conditions, kind):
  """Those of one kind."""
  return {name: c for name, c in conditions.items() if c.kind == kind}


def read(conditions, cond, z):
  """cond, whole: an entry for each of `named` conditions, 0 where not said.

  What cond does not name is not said. Labels alone are a cond where there is
  nothing else but the strength of guidance.

  Raises:
    ValueError: cond is no dict of these names, or an entry is of another shape.
  """
  if not conditions:
    if isinstance(cond, Mapping):
      raise ValueError(
        "cond is a dict, but the network was made without conditions: give the "
        "labels themselves, or None"
      )
    return cond
  if cond is None or conditions.keys() <= {LABEL, GUIDANCE}:
    cond = by_name(cond)
  has = ", ".join(conditions)
  if not isinstance(cond, Mapping):
    raise ValueError(
      f"cond must be a dict with entries out of {has}, not a "
      f"{type(cond).__name__}"
    )
  if unknown := [name for name in cond if name not in conditions]:
    raise ValueError(
      f"cond has {unknown[0]!r}, but the network was made to be told {has}"
    )
  return {
    name: _entry(name, one, cond.get(name), z)
    for name, one in conditions.items()
  }


def _entry(name, condition, entry, z):
  batch = z.shape[0]
  entry = null(condition) if entry is None else entry
  if condition.kind == "label":
    entry = jnp.broadcast_to(entry, (batch,)) if not jnp.ndim(entry) else entry
    _expect(name, entry.shape, (batch,))
    check_classes(entry, condition.num_classes)
    return entry
  given = as_given(condition, entry)
  value, mask = jnp.asarray(given.value), jnp.asarray(given.mask)
  if not value.ndim:
    value = jnp.broadcast_to(value, (batch, *condition.shape))
  over = 2 if condition.kind == "sequence" else 1
  if not mask.ndim:
    mask = jnp.broadcast_to(mask, value.shape[:over])
  want = (batch, *condition.shape)
  if value.ndim == len(want):  # lengths and grids are free
    want = (batch, *value.shape[1:-1], want[-1])
  _expect(name, value.shape, want)
  _expect(f"{name}'s mask", mask.shape, want[:over])
  mask = mask.astype(bool)
  where = mask.reshape(*mask.shape, *(1,) * (value.ndim - over))
  return Given(jnp.where(where, value, 0.0).astype(z.dtype), mask)


def _expect(name, shape, want):
  if shape != want:
    raise ValueError(f"cond: {name} must have the shape {want}, not {shape}")


class Vector(nn.Module):
  """A Given vector (batch, d) -> its embedding (batch, dim)."""

  dim: int
  null: str
  kernel_init: Any = nn.linear.default_kernel_init

  @nn.compact
  def __call__(self, given):
    out = nn.Dense(self.dim, kernel_init=self.kernel_init)
    h = out(nn.silu(nn.Dense(self.dim)(given.value)))
    if self.null == "zero":
      return h
    return jnp.where(
      given.mask[:, None],
      h,
      self.param("null", NORMAL, h[0].shape, jnp.float32),
    )


class Sequences(nn.Module):
  """What was told -> {name of a sequence: Given, (batch, length, dim)}.

  A learned null stands at every place where none was said.
  """

  dim: int
  conditions: Any

  @nn.compact
  def __call__(self, told):
    made = {}
    for name, one in of_kind(self.conditions, "sequence").items():
      tokens, mask = (
        nn.Dense(self.dim, name=name)(told[name].value),
        told[name].mask,
      )
      if one.null == "learned":
        none = ~mask.any(1, keepdims=True)
        learned = self.param(f"{name}_null", NORMAL, (self.dim,), jnp.float32)
        tokens = jnp.where(none[..., None], learned, tokens)
        mask = mask | none
      made[name] = Given(tokens, mask)
    return made


def mean(tokens):
  """The mean (batch, dim) of the tokens that were said, 0 where none was."""
  mask = tokens.mask[..., None]
  count = jnp.maximum(mask.sum(1), 1)
  return jnp.where(mask, tokens.value, 0.0).sum(1) / count


def joined(tokens, dtype):
  """All tokens as one sequence and its mask, or None where there are none."""
  if not tokens:
    return None
  value = jnp.concatenate([one.value for one in tokens.values()], axis=1)
  mask = jnp.concatenate([one.mask for one in tokens.values()], axis=1)
  return value.astype(dtype), mask


class Images(nn.Module):
  """z (batch, *sides, c) with the images that were told on its channels.

  Images on a coarser grid, which divides z's, are interpolated linearly.
  """

  conditions: Any

  @nn.compact
  def __call__(self, z, told):
    parts = [z]
    for name, one in of_kind(self.conditions, "image").items():
      value = _onto(name, told[name].value, z.shape)
      mask = told[name].mask.reshape(-1, *(1,) * (z.ndim - 1))
      if one.null == "learned":
        learned = self.param(
          name, nn.initializers.zeros, value.shape[-1:], jnp.float32
        )
        value = jnp.where(mask, value, learned.astype(z.dtype))
      mask = jnp.broadcast_to(mask.astype(z.dtype), (*z.shape[:-1], 1))
      parts += [value, mask]
    return jnp.concatenate(parts, axis=-1) if len(parts) > 1 else z


def _onto(name, value, shape):
  """An image on the grid of z's shape."""
  have, want = value.shape[1:-1], shape[1:-1]
  if len(have) != len(want) or any(map(lambda a, b: b % a, have, want)):
    times = lambda sides: " x ".join(map(str, sides))
    raise ValueError(
      f"cond: {name} must be on a grid that divides z's {times(want)}, not on "
      f"{times(have)}"
    )
  if have == want:
    return value
  return jax.image.resize(value, (*shape[:-1], value.shape[-1]), "linear")
