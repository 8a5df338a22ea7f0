"""Conditions: what a network is told beside z and its level.

`cond` is one pytree: None; the labels (batch,) of data that has classes and
nothing else; or a dict, with one entry for each named condition:

    label      integers (batch,), of which num_classes means "none"
    vector     Given(value (batch, d), mask (batch,))
    sequence   Given(value (batch, length, d), mask (batch, length))
    image      Given(value (batch, *grid, c), mask (batch,)), on x's own grid or
               on one that divides it

Where the mask is False nothing was said: the network puts the condition's own
null there, one that it learns, or zero. A batch of data holds an entry by its
name, and its mask, where it has one, as <name>_mask.
"""

import dataclasses
from typing import Any
import zlib

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

KINDS = ("label", "vector", "sequence", "image")
NULLS = ("learned", "zero")
LABEL = "label"  # the name of a data set's classes
AUGMENTATION = "augmentation"  # of what augmenting did to x; no sample has it
GUIDANCE = "guidance"  # the strength that a network is told; no data has it
ALL = 0  # what is folded into a key for all conditions together


@struct.dataclass
class Given:
  """A condition that is no label: value, and where it was said.

  Attributes:
    value: (batch, ...) floats; mask: bools, as the module says.
  """

  value: Any
  mask: Any


@dataclasses.dataclass(frozen=True)
class Condition:
  """What a data set says of one of its conditions.

  Attributes:
    kind: "label", "vector", "sequence" or "image".
    shape: of one example: () of a label, (d,), (length, d) or (*grid, c).
    num_classes: of a label, else 0.
    null: what stands for "not said": "learned" or "zero".

  Raises:
    ValueError: an unknown kind or null, or a shape that is none of its kind.
  """

  kind: str
  shape: tuple = ()
  num_classes: int = 0
  null: str = "learned"

  def __post_init__(self):
    for name, known in (("kind", KINDS), ("null", NULLS)):
      if getattr(self, name) not in known:
        raise ValueError(
          f"{name} of a condition must be one of {', '.join(known)}, not "
          f"{getattr(self, name)!r}"
        )
    object.__setattr__(self, "shape", tuple(map(int, self.shape)))
    one = f"an {self.kind}" if self.kind == "image" else f"a {self.kind}"
    axes = {"label": (0,), "vector": (1,), "sequence": (2,), "image": (2, 3, 4)}
    if len(self.shape) not in axes[self.kind] or min(self.shape, default=1) < 1:
      raise ValueError(f"{one} cannot have the shape {self.shape}")
    if (self.num_classes > 0) != (self.kind == "label"):
      raise ValueError(f"{one} cannot have num_classes = {self.num_classes}")


def of(dataset):
  """{name: Condition} of a data set, or of the card of one.

  Those that it names, in its order; classes are a label even where it does not
  name them, and then the first.
  """
  known = getattr(dataset, "conditions", None) or {}
  return with_label(dataset.num_classes, known)


def with_label(num_classes, conditions):
  """Conditions and, of data that has classes, the label first."""
  if not num_classes or LABEL in conditions:
    return dict(conditions)
  return {LABEL: Condition("label", (), int(num_classes)), **conditions}


def asked(conditions):
  """Those that a sample is drawn under: all that data say of their own."""
  return {n: c for n, c in conditions.items() if n != AUGMENTATION}


def is_label_only(conditions):
  """Whether cond is the labels themselves and no dict."""
  return list(conditions) == [LABEL] and conditions[LABEL].kind == "label"


def with_told_strength(conditions):
  """Conditions and the strength of guidance, 1 where it is not said."""
  return {**conditions, GUIDANCE: Condition("vector", (1,), null="zero")}


def with_strength(cond, strength, num):
  """cond with the strength of guidance w that the network is told.

  Of about unit size, and 0 where guidance is off: asinh(w - 1).

  Args:
    cond: None, labels (num,), or a dict; strength: w, () or (num,).
  """
  told = jnp.broadcast_to(jnp.asarray(strength, jnp.result_type(float)), (num,))
  value = jnp.arcsinh(told - 1.0)[:, None]
  return {**by_name(cond), GUIDANCE: Given(value, jnp.ones(num, bool))}


def by_name(cond):
  """cond as a dict, labels under their name."""
  if cond is None or isinstance(cond, dict):
    return {} if cond is None else cond
  return {LABEL: cond}


def mask_shape(condition):
  """The shape of one example's mask."""
  return condition.shape[:1] if condition.kind == "sequence" else ()


def null(condition):
  """The entry of cond that says nothing, to be broadcast over a batch."""
  if condition.kind == "label":
    return np.int32(condition.num_classes)
  return Given(np.float32(0.0), np.False_)


def zeros(conditions, size):
  """A cond of `size` examples, to initialise a network with, or None."""
  one = {name: _zero(c, size) for name, c in conditions.items()}
  if not one:
    return None
  return one[LABEL] if is_label_only(conditions) else one


def _zero(condition, size):
  if condition.kind == "label":
    return jnp.zeros((size,), jnp.int32)
  return Given(
    jnp.zeros((size, *condition.shape)),
    jnp.ones((size, *mask_shape(condition)), bool),
  )


def from_batch(conditions, batch):
  """cond of a batch of data; what the batch does not hold is left out.

  A number that was not said is zero here, whatever the batch has in its place.
  """
  if is_label_only(conditions):
    return batch[LABEL]
  held = {n: c for n, c in conditions.items() if n in batch}
  return {n: _entry(c, batch, n) for n, c in held.items()} or None


def _entry(condition, batch, name):
  value = batch[name]
  if condition.kind == "label":
    return value
  value = jnp.asarray(value, jnp.float32)
  mask = batch.get(mask_name(name))
  if mask is None:
    return as_given(condition, value)
  mask = jnp.asarray(mask, bool)
  rows = mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
  return Given(jnp.where(rows, value, 0.0), mask)


def mask_name(name):
  """What the mask of a condition is called in a batch or a file."""
  return f"{name}_mask"


def dropped(conditions, cond, key, rates, together=0.0):
  """cond with each condition left out of some examples, for guidance.

  Args:
    key: PRNG key; each condition draws from one of its own name.
    rates: {name: share of the examples that lose it}, independently; one that
      it does not name is kept.
    together: share of the examples that lose all of them.
  """
  alone = is_label_only(conditions)
  entries = {LABEL: cond} if alone else dict(cond)
  num = num_examples(cond)
  everything = None
  if together:
    every = jax.random.fold_in(key, ALL)
    everything = jax.random.bernoulli(every, together, (num,))
  for name, entry in entries.items():
    lost, rate = everything, rates.get(name, 0.0)
    if rate:
      own = key if alone else jax.random.fold_in(key, zlib.crc32(name.encode()))
      lost = jax.random.bernoulli(own, rate, (num,))
      lost = lost if everything is None else lost | everything
    if lost is not None:
      entries[name] = drop(conditions[name], entry, lost)
  return entries[LABEL] if alone else entries


def drop(condition, entry, dropped):
  """The entry of cond with its null where dropped (batch,) is True."""
  if condition.kind == "label":
    return jnp.where(dropped, condition.num_classes, entry)
  rows = dropped.reshape(-1, *(1,) * (entry.mask.ndim - 1))
  return Given(entry.value, entry.mask & ~rows)


def without(conditions, names=None):
  """The null of these conditions, or of all: `Guided`'s reference.

  What it does not name is kept as it is given, so that one condition is guided
  and another kept.
  """
  if is_label_only(conditions):
    return null(conditions[LABEL])
  names = conditions if names is None else names
  return {name: null(conditions[name]) for name in names}


def as_given(condition, entry):
  """A Given of an entry, which may be an array: said everywhere."""
  if isinstance(entry, Given):
    return entry
  entry = jnp.asarray(entry)
  over = 1 + len(mask_shape(condition))
  return Given(entry, jnp.ones(entry.shape[:over], bool))


def unlike_floats(value, kind):
  """Why an array cannot be a condition that is no label, or None.

  Integers are an encoder's tokens, or counts: nothing of about unit size. An
  image of uint8 has its scale.
  """
  if jnp.issubdtype(value.dtype, jnp.floating):
    return None
  if kind == "image" and value.dtype == np.uint8:
    return None
  if value.dtype.kind not in "iub":
    return f"holds {value.dtype}, which are no numbers"
  return (
    f"holds {value.dtype}, but must be floats, about ±1: give "
    "array.astype(np.float32)"
  )


def floats(value):
  """A NumPy array of such a condition as float32; uint8 goes from -1 to 1."""
  if value.dtype == np.uint8:
    return value.astype(np.float32) * np.float32(2.0 / 255.0) - np.float32(1.0)
  return np.ascontiguousarray(value, np.float32)


def num_examples(cond):
  """How many examples a cond is of."""
  return jax.tree.leaves(cond)[0].shape[0]
