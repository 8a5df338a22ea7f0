"""From a config to what it names: the one place where names become objects.

Everything that cannot work is refused here, before anything compiles or is
written: unknown names (with the known ones), unknown fields, bad ranges, a
network that does not fit the data.
"""

import dataclasses
from typing import Any

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import card as card_lib, recipe
from diffflow_jax.runs.lookup import choose
from diffflow_jax.training import checks


@dataclasses.dataclass(frozen=True)
class TrainingRun(recipe.Recipe):
  """What a config names: the recipe, and what only training needs.

  Attributes:
    dataset: ours; tx: optax's; learning_rate: step -> rate.
    averages: functions step -> decay, one for each EMA.
    held_out: (dataset, num) of examples that training does not see, or None.
  """

  dataset: Any
  tx: Any
  learning_rate: Any
  averages: tuple
  held_out: Any = None


def resolve(config):
  """A TrainingRun from a config, or a Refusal in one sentence."""
  from diffflow_jax.runs import generate
  from diffflow_jax.training import ema
  from diffflow_jax.training.optimizers import make_optimizer

  checks.check_ranges(config)
  dataset = _data("dataset", config.dataset)
  tx, learning_rate = make_optimizer(config)
  known = recipe.resolve(config, card_lib.of(dataset))
  generate.make_tableau(  # refuses what it cannot make
    known.objective,
    config.sampler.solver,
    config.sampler.grid,
    config.sampler.num_steps,
    ("config.sampler.solver", "config.sampler.grid"),
  )
  return TrainingRun(
    **vars(known),
    dataset=dataset,
    tx=tx,
    learning_rate=learning_rate,
    averages=choose("ema", config.ema, ema.AVERAGES),
    held_out=_held_out(config, dataset),
  )


def _data(field, spec):
  """The data set that a config names, or a Refusal."""
  from diffflow_jax.data import DATASETS

  dataset = choose(field, spec, DATASETS)
  for name in ("shape", "num_classes", "batch", "augment", "to_float"):
    if not hasattr(dataset, name):
      raise Refusal(
        f"config.{field}.name must name what makes a data set with shape, "
        "num_classes, batch, augment and to_float, not "
        f"a {type(dataset).__name__}"
      )
  return dataset


def _held_out(config, dataset):
  """The dataset with the settings of config.held_out over its own, and num."""
  settings = dict(config.held_out)
  num = settings.pop("num")
  if not num:
    return None
  held = _data("held_out", {**config.dataset, **settings})
  there = len(held) if hasattr(held, "__len__") else getattr(held, "num", None)
  if there is not None and num > there:
    raise Refusal(
      f"config.held_out.num must be at most the {there} examples that there "
      f"are, not {num}"
    )
  for what in ("shape", "num_classes"):
    ours, theirs = getattr(dataset, what), getattr(held, what)
    if ours != theirs:
      raise Refusal(
        f"config.held_out: its {what} is {theirs}, the training data's {ours}"
      )
  return held, num
