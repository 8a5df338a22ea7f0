"""What a number may be, said once: its words are its test and its message.

    "finite"   "> 0"   ">= 0"   "in [0, 1)"   "< sigma_max"   "an integer >= 1"

"< sigma_max" is another number of the same call. All but an interval that ends
in inf exclude ±inf, and all exclude NaN. Where a range is no interval, a pair
(accept, words) says it, and a list is several ranges. Numbers without a range
are finite.

Values are looked at where they are known, an array in all its entries; what is
traced passes. Functions say it by `checked`, pytree dataclasses by `node` and
`_allowed`. JAX makes a node of leaves without its constructor, so a gradient or
a placeholder in the place of a number is never refused.
"""

import dataclasses
import functools
import inspect
import math
import numbers
import operator
import re
from typing import dataclass_transform

import jax
import numpy as np

_NUMBERS = (numbers.Real, np.ndarray, np.generic, jax.Array)
_SIDES = {
  ">": operator.gt,
  ">=": operator.ge,
  "<": operator.lt,
  "<=": operator.le,
}


def check(name, value, allowed="finite", others=None):
  """Says so where a value is known and out of its range.

  Args:
    allowed: words, (accept, words), or a list of those.
    others: {name: value} that the words may name.
  Raises:
    ValueError: no number, NaN, or out of range.
  """
  if isinstance(allowed, list):
    for one in allowed:
      check(name, value, one, others)
    return
  accept, words = _reads(allowed) if isinstance(allowed, str) else allowed
  known = _known(name, value, words)
  if known is None:
    return
  whole = words.startswith("an integer")
  if whole and known.dtype.kind not in "iu":
    raise ValueError(f"{name} must be {words}, not {value!r}")
  inside = np.broadcast_to(accept(known, others or {}), known.shape)
  if not inside.all():
    bad = known[~inside].flat[0] if known.ndim else value
    lost = np.isinf(np.float64(bad)) and words != "finite"
    more = " and finite" if lost and "inf" not in words else ""
    other = (others or {}).get(words.rpartition(" ")[2])
    more += f" = {other}" if other is not None else ""
    said = "a finite number" if words == "finite" else words
    raise ValueError(f"{name} must be {said}{more}, not {bad}")


def _known(name, value, words):
  """The value as an array, or None where it is not known yet."""
  if isinstance(value, jax.core.Tracer):
    return None
  if isinstance(value, jax.Array) and not value.is_fully_addressable:
    return None
  if isinstance(value, _NUMBERS):
    array = np.asarray(value)
    if array.dtype == object:  # an integer beyond 64 bits
      array = np.asarray(np.iinfo(np.int64).max * (1 if value > 0 else -1))
    if array.dtype.kind in "iu":
      return array
    if jax.dtypes.issubdtype(array.dtype, np.floating):
      return array.astype(np.float64)
  elif hasattr(value, "dtype"):  # a jax.ShapeDtypeStruct
    return None
  what = words if words.startswith("an ") else f"a number, {words}"
  what = "a finite number" if words == "finite" else what
  raise ValueError(f"{name} must be {what}, not {value!r}")


@functools.cache
def _reads(words):
  """(accept, words) of words."""
  if words == "finite":
    return lambda v, others: np.isfinite(v), words
  if found := re.fullmatch(r"in ([\[(])(.+), (.+)([\])])", words):
    left, low, high, right = found.groups()
    low, high = float(low), float(high)
    above = operator.ge if left == "[" else operator.gt
    below = operator.le if right == "]" else operator.lt
    return lambda v, others: above(v, low) & below(v, high), words
  found = re.fullmatch(r"(?:an integer )?([<>]=?) (\S+)", words)
  compare, bound = _SIDES[found[1]], found[2]

  def accept(v, others):
    limit = others[bound] if bound in others else float(bound)
    if not isinstance(limit, _NUMBERS) or isinstance(limit, jax.core.Tracer):
      return np.isfinite(v)  # not known yet, or refused by its own range
    return np.isfinite(v) & compare(v, np.asarray(limit))

  return accept, words


def _of_default(default):
  """The range of a number that says none, by its default: finite or None."""
  number = isinstance(default, numbers.Real) and not isinstance(default, bool)
  return "finite" if number and math.isfinite(default) else None


def checked(fn=None, **allowed):
  """Decorates a function: its arguments are checked before it runs.

    @ranges.checked(p_std="> 0")
    def log_normal(p_mean=-1.2, p_std=1.2): ...

  None passes where it is the default.
  """
  if fn is None:
    return functools.partial(checked, **allowed)
  signature = inspect.signature(fn)
  table = {n: _of_default(p.default) for n, p in signature.parameters.items()}
  table = {n: a for n, a in (table | allowed).items() if a is not None}
  defaults = {n: signature.parameters[n].default for n in table}

  @functools.wraps(fn)
  def call(*args, **kwargs):
    try:
      given = signature.bind(*args, **kwargs)
    except TypeError:
      return fn(*args, **kwargs)  # Python's own words, with the function's name
    given.apply_defaults()
    for name, one in table.items():
      value = given.arguments[name]
      if value is not None or defaults[name] is not None:
        check(name, value, one, given.arguments)
    return fn(*args, **kwargs)

  return call


def check_fields(instance):
  """Checks the numbers of a `node` by the `_allowed` of its class."""
  name = type(instance).__name__
  allowed = getattr(instance, "_allowed", {})
  for field in dataclasses.fields(instance):
    one = allowed.get(field.name, _of_default(field.default))
    value = getattr(instance, field.name)
    if one is not None and not (value is None and field.default is None):
      check(f"{name}: {field.name}", value, one, vars(instance))


@dataclass_transform(frozen_default=True)
def node(cls):
  """A frozen pytree dataclass, as flax.struct.dataclass, with its ranges.

  Fields of flax.struct.field(pytree_node=False) are no leaves. The constructor
  and `replace` check; what jit, grad, vmap and jax.tree.map make does not run
  them.
  """
  cls = dataclasses.dataclass(frozen=True)(cls)
  plain = cls.__init__

  @functools.wraps(plain)
  def init(self, *args, **kwargs):
    plain(self, *args, **kwargs)
    check_fields(self)

  cls.__init__ = init
  cls.replace = lambda self, **updates: dataclasses.replace(self, **updates)
  is_leaf = lambda field: field.metadata.get("pytree_node", True)
  data = [f.name for f in dataclasses.fields(cls) if is_leaf(f)]
  meta = [f.name for f in dataclasses.fields(cls) if not is_leaf(f)]
  names = [*data, *meta]
  keys = [jax.tree_util.GetAttrKey(name) for name in data]

  def flatten(self):
    return (
      tuple(getattr(self, name) for name in data),
      tuple(getattr(self, name) for name in meta),
    )

  def flatten_with_keys(self):
    leaves, static = flatten(self)
    return tuple(zip(keys, leaves, strict=True)), static

  def unflatten(static, leaves):
    self = object.__new__(cls)
    vars(self).update(zip(names, (*leaves, *static), strict=True))
    return self

  jax.tree_util.register_pytree_with_keys(
    cls, flatten_with_keys, unflatten, flatten
  )
  return cls
