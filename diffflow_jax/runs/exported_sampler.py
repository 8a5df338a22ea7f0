"""A whole sampler as one file that runs with jax alone.

Network, parameters, guidance and table become one StableHLO program by
`jax.export`, for CPU, CUDA and TPU:

    (key, labels) -> samples (batch, ...)    key (2,) uint32, labels (batch,)

(key) -> samples where the run has no classes, and (key, told) where its data
say more than labels: told is a dict of plain arrays, labels under "label" and
every other condition as <name> and <name>_mask, False where it is not said; the
label that is not said is -1. Needs flatbuffers to be written and to be read.
"""

import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions
from diffflow_jax.process.levels import bcast
from diffflow_jax.runs import conditioning
from diffflow_jax.sampling.tableau import Tableau, sample
from diffflow_jax.store import paths

PLATFORMS = ("cpu", "cuda", "tpu")
KEYS = "threefry2x32"  # what jax.random.PRNGKey makes, unless it is told to
UNSAID = -1  # the label that is not said, among other conditions


@dataclasses.dataclass(frozen=True)
class Sampler:
  """What is exported.

  Attributes:
    recipe: of the run; predict: with guidance; tableau: of the solver.
    how: the `Settings` that they were made of; batch: samples of one call.
  """

  recipe: Any
  predict: Any
  tableau: Any
  how: Any
  batch: int

  def __call__(self, key, told=None):
    """Samples (batch, ...), those of `Run.sample` with the key's seed.

    What cannot be told gives NaN: a label that is no class, and nothing of a
    condition that training never dropped, as NaN in its place.

    Args:
      told: labels, or the dict of arrays.
    """
    card, cond, ok = self.recipe.card, told, None
    if isinstance(told, dict):
      told, ok = self._settled(told)
      cond = conditions.from_batch(card.conditions, told)
    elif told is not None:
      ok = (told >= 0) & (told < card.num_classes)
    x = sample(
      self.predict,
      self.tableau,
      jax.random.wrap_key_data(key, impl=KEYS),
      (self.batch, *card.shape),
      cond=cond,
    )
    return x if ok is None else jnp.where(bcast(ok, x), x, jnp.nan)

  def _settled(self, told):
    """told, its labels the network's, and where it can be told, (batch,)."""
    card, ok = self.recipe.card, jnp.ones(self.batch, bool)
    never = conditioning.never_dropped(self.recipe.config, card.conditions)
    for name, one in conditions.asked(card.conditions).items():
      value = told[name]
      if one.kind == "label":
        none = value == UNSAID
        ok &= (value >= 0) & (value < one.num_classes) | none & (
          name not in never
        )
        told = {**told, name: jnp.where(none, one.num_classes, value)}
      elif name in never:
        ok &= ~jnp.isnan(value).reshape(self.batch, -1).any(axis=1)
    return told, ok

  def told(self):
    """[what a caller has to say], as abstract arrays, or []."""
    known = self.recipe.card.conditions
    cond = jax.eval_shape(lambda: conditions.zeros(known, self.batch))
    if cond is None or conditions.is_label_only(known):
      return [] if cond is None else [cond]
    arrays = {}
    for name in conditions.asked(known):
      entry = cond[name]
      if isinstance(entry, conditions.Given):
        arrays |= {name: entry.value, conditions.mask_name(name): entry.mask}
      else:
        arrays[name] = entry
    return [arrays]

  def serialized(self):
    """The program as bytes, parameters included."""
    from jax import export

    inputs = [jax.ShapeDtypeStruct((2,), jnp.uint32), *self.told()]
    program = export.export(jax.jit(self.__call__), platforms=PLATFORMS)
    try:
      return bytes(program(*inputs).serialize())
    except ImportError as error:
      raise Refusal(
        "an exported sampler needs flatbuffers: pip install flatbuffers"
      ) from error


def check(tableau, name):
  """Refuses a sampler that is no table."""
  if not isinstance(tableau, Tableau):
    raise Refusal(f"{name} must be a table to be exported, not adaptive")


def load_exported(path):
  """The sampler in a file that `export` wrote: (key, told) -> samples.

      draw = dfj.load_exported("digits/sampler.jaxexport")
      samples = draw(jax.random.key(0), labels)

  Sample i is that of `Run.sample(batch, seed=0, labels=labels, ...)` to
  rounding; further samples have other keys.

  Args:
    path: of the file; may be a URL.
  Returns:
    A function of a key and of labels (batch,), of the key alone for a run
    without classes, or of a key and {name: array or (array, mask)} for a run of
    more conditions, as `Run.cond` gives it too; what is left out, or None, is
    not said. It returns float32 NumPy samples (batch, ...), and raises a
    ValueError for what does not fit, or may not be left out.
  Raises:
    Refusal: there is no such file, or it is no exported sampler.
  """
  file = os.path.expanduser(os.fspath(path))
  try:
    data = paths.read(file)
  except OSError as error:
    raise Refusal(f"{file} cannot be read: {paths.reason(error)}") from error
  try:
    from jax import export

    program = export.deserialize(bytearray(data))
  except ImportError as error:
    raise Refusal(
      "an exported sampler needs flatbuffers: pip install flatbuffers"
    ) from error
  except Exception as error:  # whatever flatbuffers and MLIR find wrong with it
    raise Refusal(f"{file} is no exported sampler, or is damaged") from error

  (_, *wanted), _ = jax.tree.unflatten(program.in_tree, program.in_avals)

  def draw(key, told=None):
    key = _key_data(key)
    if wanted and isinstance(wanted[0], dict):
      rest = [_arrays(told, wanted[0])]
    else:
      rest = _labels(told, wanted)
    x = np.asarray(program.call(key, *rest))
    odd = np.isnan(x).all(axis=tuple(range(1, x.ndim)))
    if rest and odd.any():
      raise ValueError(_why_odd(told, wanted[0], odd))
    return x

  return draw


def _why_odd(told, wanted, odd):
  """What a caller said wrong, where samples are NaN as odd (batch,) has it."""
  labels, lacks = told, []
  if isinstance(told, dict):
    labels = told.get(conditions.LABEL)
    lacks = [name for name in _names(wanted) if told.get(name) is None]
  if lacks and odd.all():
    more = "" if labels is None else ", or no label is a class"
    return (
      f"{' or '.join(lacks)} must be said, as training never dropped it{more}"
    )
  i = int(odd.argmax())
  return f"labels[{i}] is no class: {int(np.asarray(labels)[i])}"


def _names(wanted):
  """Those of conditions, without their masks."""
  masks = {conditions.mask_name(name) for name in wanted}
  return [name for name in wanted if name not in masks]


def _key_data(key):
  """A key's two numbers, of the kind that the program draws with."""
  data = key
  if jax.dtypes.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
    data = jax.random.key_data(key)
  if getattr(data, "shape", None) != (2,) or data.dtype != np.uint32:
    raise ValueError(
      f"key must be a {KEYS} key, as jax.random.key(0), not {key!r}"
    )
  return data


def _arrays(told, wanted):
  """{name: array} as the program takes them, of values and masks by name."""
  names = _names(wanted)
  if not isinstance(told, dict):
    raise ValueError(
      f"conditions must be a dict of {', '.join(names)}, not "
      f"{type(told).__name__}"
    )
  for name in told:
    if name not in names:
      raise ValueError(
        f"there is no condition {name!r}, only {', '.join(names)}"
      )
  arrays = {}
  for name in names:
    masked = conditions.mask_name(name)
    if masked not in wanted:  # a label
      unsaid = np.full(wanted[name].shape, UNSAID)
      label = told.get(name)
      label = unsaid if label is None else label
      (arrays[name],) = _labels(label, [wanted[name]])
      continue
    shape, mask_shape = wanted[name].shape, wanted[masked].shape
    if told.get(name) is None:  # NaN says so where it may not be left out
      arrays[name] = np.full(shape, np.nan, np.float32)
      arrays[masked] = np.zeros(mask_shape, bool)
      continue
    value, mask = _value_and_mask(name, told[name], shape, mask_shape)
    for key, array in ((name, value), (masked, mask)):
      if array.shape != wanted[key].shape:
        raise ValueError(
          f"{key} must have shape {wanted[key].shape}, not {array.shape}"
        )
    if mask.dtype != np.bool_:
      raise ValueError(
        f"{masked} must hold bools, True where it is said, not {mask.dtype}"
      )
    said = mask.reshape(mask.shape + (1,) * (value.ndim - mask.ndim))
    value = np.where(said, value, np.float32(0.0))
    if not np.isfinite(value).all():
      raise ValueError(f"{name} holds NaN or infinity")
    arrays |= {name: value, masked: mask}
  return arrays


def _value_and_mask(name, entry, shape, mask_shape):
  """(value, mask) of an entry."""
  if isinstance(entry, conditions.Given):  # of `Run.cond`
    entry = entry.value, entry.mask
  value, mask = entry if isinstance(entry, tuple) else (entry, None)
  mask = np.ones(mask_shape, bool) if mask is None else np.asarray(mask)
  is_image = len(mask_shape) == 1 and len(shape) > 2
  kind = "image" if is_image else "vector or sequence"
  value = np.asarray(value)
  why = conditions.unlike_floats(value, kind)
  if why:
    raise ValueError(f"{name} {why}")
  return conditions.floats(value), mask


def _labels(labels, wanted):
  """[labels] as the program takes them, or []."""
  if not wanted:
    if labels is not None:
      raise ValueError("labels: the sampler was exported from a run without")
    return []
  if labels is None or np.shape(labels) != wanted[0].shape:
    what = "None" if labels is None else f"shape {np.shape(labels)}"
    raise ValueError(f"labels must have shape {wanted[0].shape}, not {what}")
  labels = np.asarray(labels)
  if labels.dtype.kind not in "iu":
    raise ValueError(f"labels must be integers, not {labels.dtype}")
  return [labels.astype(np.int32)]
