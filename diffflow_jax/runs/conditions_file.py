"""conditions.npz: conditions of examples, so that sampling needs no data.

Written when training starts, of data that has more than labels: the first
held-out examples, or training examples where none are held out. What is drawn
without a word about conditions is drawn under these.
"""

import io
import math
import zipfile

import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.runs import prompts
from diffflow_jax.store import paths

NAME = "conditions.npz"
MOST = 256  # examples
MOST_BYTES = 2**24


def is_needed(conditions):
  """Whether there is more to say than labels, which are just counted."""
  asked = conditions_lib.asked(conditions)
  return any(name != conditions_lib.LABEL for name in asked)


def of(run):
  """{name: array} of a TrainingRun's first examples; {} of labels alone."""
  asked = conditions_lib.asked(run.card.conditions)
  if not is_needed(asked):
    return {}
  dataset, num = run.held_out or (run.dataset, MOST)
  size = sum(4 * math.prod(c.shape) + 4 for c in asked.values())
  num = max(1, min(num, MOST, MOST_BYTES // size))
  return prompts.of_batch(
    asked, prompts.examples(dataset, run.config.seed, num)
  )


def cond(arrays, conditions, num_samples):
  """A network's cond of num_samples of the file's examples; None of none."""
  if not arrays:
    return None
  settled = prompts.check(conditions, prompts.paired(arrays), (), NAME)
  return prompts.cond(conditions, settled, num_samples, None)


def pack(arrays):
  """The bytes of the file."""
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def read(folder):
  """{name: array} in a run's folder, masks by names of their own.

  Raises:
    Refusal: it is not there, or damaged.
  """
  path = paths.join(folder, NAME)
  try:
    return unpack(paths.read(path))
  except FileNotFoundError as error:
    raise Refusal(
      f"{folder} has no {NAME}, whose conditions samples are drawn under: give "
      "conditions"
    ) from error
  except OSError as error:
    raise Refusal(f"{path} cannot be read: {paths.reason(error)}") from error
  except ValueError as error:
    raise Refusal(f"{path} {error}") from error


def from_file(path, name):
  """{name: array or (array, mask)} of an .npz: text and text_mask, say.

  Args:
    name: what a message calls it.
  Raises:
    Refusal: there is no such file, or it is damaged.
  """
  try:
    arrays = unpack(paths.read(path))
  except FileNotFoundError as error:
    raise Refusal(f"{name}: there is no file {path}") from error
  except OSError as error:
    raise Refusal(f"{name}: {path}: {paths.reason(error)}") from error
  except ValueError as error:
    raise Refusal(f"{name}: {path} {error}") from error
  return prompts.paired(arrays)


def unpack(data):
  """{name: array} of the bytes of an .npz; nothing is unpickled.

  Raises:
    ValueError: they are none, or damaged.
  """
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      return {name: file[name] for name in file.files}
  except (
    OSError, ValueError, EOFError, AttributeError, KeyError,
    NotImplementedError, zipfile.BadZipFile,
  ) as error:  # fmt: skip
    raise ValueError("is no .npz of arrays, or is damaged") from error
