"""conditions.npz: conditions of examples, so that sampling needs no data.

Written when training starts, of data that has more than labels: the first
held-out examples, or training examples where none are held out. What is drawn
without a word about conditions is drawn under these.
"""

import io
import math

import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.runs import told
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
  return told.of_batch(asked, told.examples(dataset, run.config.seed, num))


def cond(arrays, conditions, num_samples):
  """A network's cond of num_samples of the file's examples; None of none."""
  if not arrays:
    return None
  settled = told.check(conditions, told.paired(arrays), (), NAME)
  return told.cond(conditions, settled, num_samples, None)


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
    return told.unpack(paths.read(path))
  except FileNotFoundError as error:
    raise Refusal(
      f"{folder} has no {NAME}, whose conditions samples are drawn under: give "
      "conditions"
    ) from error
  except OSError as error:
    raise Refusal(f"{path} cannot be read: {paths.reason(error)}") from error
  except ValueError as error:
    raise Refusal(f"{path} {error}") from error
