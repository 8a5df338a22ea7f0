"""Features that need no file: pixels, and functions of one's own."""

import hashlib
import importlib
import inspect
import math

import numpy as np

from diffflow_jax.evaluation import features as sets
from diffflow_jax.evaluation.extractors.extractor import Features
from diffflow_jax.evaluation.extractors.images import are_images, check_pixels

_BATCH = 256


def pixels(shape):
  """The numbers of an example as they are; bytes k as k/127.5 - 1.

  Args:
    shape: of one example, whatever it is: pictures, points, series. What are
      no pictures have coordinates, and are called so.
  """
  size = math.prod(shape)

  def of(x):
    x = np.asarray(x)
    if x.shape[1:] != tuple(shape):
      raise ValueError(
        f"examples must have shape {tuple(shape)}, not {x.shape[1:]}"
      )
    if are_images(shape):
      check_pixels(x)
    if x.dtype == np.uint8:
      x = x / np.float32(127.5) - np.float32(1.0)
    return sets.rows("examples", x)

  kind = "pixels" if are_images(shape) else "coordinates"
  name = f"{kind} {'x'.join(map(str, shape))}"
  return Features(f"fd_{kind}", name, name, size, _BATCH, of)


def imported(spec, shape):
  """A function images (num, ...) -> (num, d) that "module:attribute" names.

  Its attributes `logits`, `fingerprint` and `batch`, if it has them, are as of
  `Features`; without a fingerprint the text of its module is it.

  Raises:
    ValueError: nothing of that name, no function, or it makes something else of
      two examples.
  """
  module, _, attribute = spec.partition(":")
  try:
    found = getattr(importlib.import_module(module), attribute)
  except Exception as error:  # a module may raise anything
    raise ValueError(f"{spec} cannot be imported: {error}") from error
  if isinstance(found, Features):
    return found
  if not callable(found):
    raise ValueError(
      f"{spec} must be a function: images (num, ...) -> features (num, d), not "
      f"a {type(found).__name__}"
    )
  two = np.zeros((2, *shape), np.uint8 if len(shape) == 3 else np.float32)
  try:
    made = np.asarray(found(two))
  except Exception as error:  # anyone's code
    raise ValueError(
      f"{spec} cannot be called with {two.dtype} of shape {two.shape}: {error}"
    ) from error
  if made.ndim != 2 or len(made) != 2 or made.dtype.kind != "f":
    raise ValueError(
      f"{spec} must return floats (num, d), but of {two.shape} it makes "
      f"{made.dtype} of shape {made.shape}"
    )
  return Features(
    metric=f"fd_{attribute}",
    name=spec,
    fingerprint=f"{spec} {getattr(found, 'fingerprint', _text_of(module))}",
    dims=made.shape[1],
    batch=getattr(found, "batch", _BATCH),
    of=found,
    logits=getattr(found, "logits", None),
  )


def _text_of(module):
  """SHA-256 of a module's source."""
  text = inspect.getsource(importlib.import_module(module))
  return hashlib.sha256(text.encode()).hexdigest()
