"""The data that a config names: for training, and for its held-out examples."""

import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions
from diffflow_jax.runs import prompts
from diffflow_jax.runs.checks import in_range
from diffflow_jax.runs.lookup import calling, choose


def of(config):
  """(training data, (held-out data, how many of it) or None) of a config.

  Of any images `dataset.augmentation` is the probability of EDM's transforms
  (`data.augmentation`) in training; what is held out stays as it is.

  Raises:
    Refusal: what it names is no data set, or cannot be split so.
  """
  from diffflow_jax.data import augmentation, splits

  spec = dict(config.dataset)
  probability = spec.pop(augmentation.AUGMENTATION, 0.0)
  in_range("config.dataset.augmentation", probability, "in [0, 1]")
  dataset = _dataset("dataset", spec)
  make = lambda settings: _dataset("held_out", {**spec, **settings})
  try:
    train, held = splits.held_out(dataset, config.get("held_out", {}), make)
  except ValueError as error:
    raise Refusal(f"config.held_out: {error}") from error
  if probability:
    make, field = augmentation.augmented, "config.dataset.augmentation"
    train = calling(field, make, train, probability)
  return train, held


def _dataset(field, spec):
  """What a dataset's spec names, if that is a data set."""
  from diffflow_jax.data import DATASETS, checks

  also = ("augmentation",) if field == "dataset" else ()
  dataset = choose(field, spec, DATASETS, also=also)
  try:
    return checks.check_dataset(dataset, f"what {spec['name']} returns")
  except ValueError as error:
    raise Refusal(f"config.{field}: {error}") from error


def held_out_conditions(recipe, index, name):
  """{name: array or (array, mask)} of held-out examples by their index.

  Args:
    recipe: of the run, whose data are read; name: what a message calls index.
  Raises:
    Refusal: the run holds nothing out, or has no such example.
  """
  index = np.atleast_1d(np.asarray(index))
  if index.ndim != 1 or index.dtype.kind not in "iu":
    raise Refusal(f"{name} must be indices of examples, not {index.tolist()!r}")
  known = conditions.asked(recipe.card.conditions)
  if not known:
    raise Refusal(f"{name} has no effect: the data has no conditions")
  held = of(recipe.config)[1]
  if held is None:
    raise Refusal(f"{name}: config.held_out holds no examples out")
  dataset, num = held
  for i in index:
    if not 0 <= i < num:
      raise Refusal(f"{name} must be 0 to {num - 1}, not {i}")
  batch = prompts.examples(dataset, recipe.config.seed, num, index)
  return prompts.paired(prompts.of_batch(known, batch))
