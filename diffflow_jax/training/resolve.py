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
  from diffflow_jax.networks import NETWORKS
  from diffflow_jax.training import ema, generate
  from diffflow_jax.training.optimizers import make_optimizer

  checks.check_ranges(config)
  dataset, held_out = _data(config)
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
    held_out,
  )  # fmt: skip


def _data(config):
  """(training data, (held-out data, how many of it) or None)."""
  from diffflow_jax.data import splits

  dataset = _dataset("dataset", config.dataset)
  make = lambda settings: _dataset("held_out", {**config.dataset, **settings})
  try:
    return splits.held_out(dataset, config.held_out, make)
  except ValueError as error:
    raise Refusal(f"config.held_out: {error}") from error


def _dataset(field, spec):
  """What a dataset's spec names, if that is a data set."""
  from diffflow_jax.data import DATASETS, checks as data_checks

  dataset = choose(field, spec, DATASETS)
  try:
    return data_checks.check_dataset(dataset, f"what {spec['name']} returns")
  except ValueError as error:
    raise Refusal(f"config.{field}: {error}") from error


def _objective(spec):
  """A recipe by name, with what the config exchanges of it.

  Schedule, target, scale are names; weighting and density too, or "name:
  setting=value", as `exchange` has it: what is minimised stays the recipe's
  unless the weighting is exchanged. Another schedule moves the levels that
  training draws, where the recipe draws times uniformly, and those that
  sampling walks over.
  """
  from diffflow_jax.objective.exchange import exchange
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
  named_ones = {
    key: parse_spec(spec.pop(key), f"config.objective.{key}")
    for key in ("density", "weighting")
    if key in spec
  }
  objective = choose("objective", spec, OBJECTIVES)
  if "schedule" in other:
    objective = on_schedule(objective, other.pop("schedule")())
  objective = objective.replace(**other)
  for key in named_ones:  # one by one, so that a refusal names its field
    upto = {k: v for k, v in named_ones.items() if k in (key, "density")}
    try:
      made = exchange(objective, **upto)
    except (TypeError, ValueError) as error:
      raise Refusal(f"config.objective.{key}: {error}") from error
  return made if named_ones else objective
