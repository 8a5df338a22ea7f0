"""From a config to what it names: the one place where names become objects.

Everything that cannot work is refused here, before anything compiles or is
written: unknown names (with the known ones), unknown fields, bad ranges, a
network that does not fit the data.
"""

import dataclasses
from typing import Any

from diffflow_jax.cli import Refusal, parse_spec
from diffflow_jax.training import checks
from diffflow_jax.training.lookup import choose, named


@dataclasses.dataclass(frozen=True)
class Run:
  """What a config names.

  Attributes:
    config: the ConfigDict; dataset, objective, network: ours; tx: optax's.
    averages: functions step -> decay, one for each EMA.
    held_out: (dataset, num) of examples that training does not see, or None.
  """

  config: Any
  dataset: Any
  objective: Any
  network: Any
  tx: Any
  learning_rate: Any
  averages: tuple
  held_out: Any = None


def resolve(config):
  """A Run from a config, or a Refusal in one sentence."""
  from diffflow_jax.data import DATASETS
  from diffflow_jax.networks import NETWORKS
  from diffflow_jax.training import ema, generate
  from diffflow_jax.training.optimizers import make_optimizer

  checks.check_ranges(config)
  dataset = choose("dataset", config.dataset, DATASETS)
  tx, learning_rate = make_optimizer(config)
  objective = _objective(config.objective)
  generate.make_tableau(  # refuses what it cannot make
    objective,
    config.sampler.solver,
    config.sampler.grid,
    config.sampler.num_steps,
    ("config.sampler.solver", "config.sampler.grid"),
  )
  averages = choose("ema", config.ema, ema.AVERAGES)
  checks.check_sizes(config.network)
  network = choose(
    "network", config.network, NETWORKS, num_classes=dataset.num_classes
  )
  checks.check_network(network, dataset)
  return Run(
    config, dataset, objective, network, tx, learning_rate, averages,
    _held_out(config, dataset),
  )  # fmt: skip


def _held_out(config, dataset):
  """The dataset with the settings of config.held_out over its own, and num."""
  from diffflow_jax.data import DATASETS

  settings = dict(config.held_out)
  num = settings.pop("num")
  if not num:
    return None
  held = choose("held_out", {**config.dataset, **settings}, DATASETS)
  for what in ("shape", "num_classes"):
    ours, theirs = getattr(dataset, what), getattr(held, what)
    if ours != theirs:
      raise Refusal(
        f"config.held_out: its {what} is {theirs}, the training data's {ours}"
      )
  return held, num


def _objective(spec):
  """A recipe by name, with what the config exchanges of it.

  Schedule, target, scale are names; weighting and density too, or "name:
  setting=value". What is minimised stays the recipe's unless the weighting is
  exchanged. Another schedule moves the levels that training draws, where the
  recipe draws times uniformly, and those that sampling walks over.
  """
  from diffflow_jax.objective import densities, weightings
  from diffflow_jax.objective.objectives import OBJECTIVES, on_schedule
  from diffflow_jax.process.levels import SCALES
  from diffflow_jax.process.schedules import SCHEDULES
  from diffflow_jax.process.targets import TARGETS

  spec = dict(spec)
  tables = {"schedule": SCHEDULES, "target": TARGETS, "scale": SCALES}
  other = {
    key: named(f"objective.{key}", spec.pop(key), table)
    for key, table in tables.items()
    if key in spec
  }
  # the weighting first: its formula may be of the recipe's own density
  makers = {"weighting": weightings.make, "density": densities.make}
  made = {key: spec.pop(key) for key in makers if key in spec}
  objective = choose("objective", spec, OBJECTIVES)
  if "schedule" in other:
    objective = on_schedule(objective, other.pop("schedule")())
  objective = objective.replace(**other)
  for key, text in made.items():
    name, settings = parse_spec(text, f"config.objective.{key}")
    try:
      one = makers[key](name, objective, **settings)
    except (TypeError, ValueError) as error:
      raise Refusal(f"config.objective.{key}: {error}") from error
    objective = objective.replace(**{key: one})
  return objective
