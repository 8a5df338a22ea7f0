"""From a config to the objective and the network that it names.

What cannot work is refused here in one sentence: unknown names (with the known
ones), unknown fields, a network that does not fit the data.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.cli import Refusal, parse_spec
from diffflow_jax.objective import parameters
from diffflow_jax.process import conditions
from diffflow_jax.runs import checks, conditioning, methods
from diffflow_jax.runs.lookup import calling, choose, named


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What sampling needs of a config.

  Attributes:
    config: the ConfigDict; card: of the data; objective, network: ours.
  """

  config: Any
  card: Any
  objective: Any
  network: Any


def resolve(config, card):
  """A Recipe of a config and what is known of its data."""
  from diffflow_jax.networks import NETWORKS

  made = objective(config.objective)
  checks.check_sizes(config.network)
  card = conditioning.resolve(config, card)
  told = {"num_classes": card.num_classes}
  if methods.strengths(config) is not None:
    told["conditions"] = conditions.with_told_strength(card.conditions)
  elif any(name != conditions.LABEL for name in card.conditions):
    told["conditions"] = card.conditions
  network = choose(
    "network", config.network, NETWORKS, adapted=_adapted, **told
  )
  checks.check_network(network, card)
  return Recipe(config, card, made, network)


def _adapted(make):
  """make, which then gives a network where it gives an nnx module."""
  from diffflow_jax import networks

  return networks.adapted(make)


def init(objective, network, data, seed):
  """The network's variables at step 0, and what the objective learns.

  A function of the seed; the latter is under "objective" beside the former.

  Args:
    data: a data set, or the card of one.
  """
  z = jnp.zeros((1, *data.shape))
  cond = conditions.zeros(conditions.of(data), 1)
  params = network.init(jax.random.key(seed), z, jnp.zeros((1,)), cond)
  learned = parameters.initial(objective)
  return {**params, "objective": learned} if learned else params


def _named_settings(spec, field):
  """(name, settings) of "name:setting=value", or of a dict with a name."""
  if isinstance(spec, str):
    return parse_spec(spec, field)
  if not hasattr(spec, "items"):
    raise Refusal(f"{field} must be a name, not {spec!r}")
  settings = dict(spec)
  return settings.pop("name", None), settings


def objective(spec):
  """A recipe by name, with what the config exchanges of it.

  Schedule, target, scale, weighting and density are names, or "name:
  setting=value". As `exchange` has it, what is minimised stays the recipe's
  unless the weighting is exchanged. Another schedule moves the levels that
  training draws, where the recipe draws times uniformly, and those that
  sampling walks over. A learned one is trained, where `check` of
  `objective.learned_schedule` allows it.
  """
  from diffflow_jax.objective import densities, learned_schedule, weightings
  from diffflow_jax.objective.exchange import exchange
  from diffflow_jax.objective.objectives import OBJECTIVES, on_schedule
  from diffflow_jax.process import levels, schedules, targets

  tables = {
    "schedule": schedules.SCHEDULES,
    "target": targets.TARGETS,
    "scale": levels.SCALES,
    "density": densities.DENSITIES,
    "weighting": weightings.WEIGHTINGS,
  }
  spec, asked = dict(spec), {}
  for key, table in tables.items():
    if key in spec:
      field = f"objective.{key}"
      asked[key] = _named_settings(spec.pop(key), f"config.{field}")
      named(field, asked[key][0], table)
  whole = choose("objective", spec, OBJECTIVES, also=tables)
  for key, (name, settings) in asked.items():
    one = functools.partial(calling, f"config.objective.{key}")
    if key == "schedule":
      made = one(schedules.make, name, **settings)
      whole = one(on_schedule, whole, made)
    elif key == "target":
      whole = whole.replace(target=one(targets.make, name, **settings))
    elif key == "scale":
      whole = whole.replace(scale=one(levels.make, name, **settings))
  made = whole
  for key in ("density", "weighting"):  # so that a refusal names its field
    if key in asked:
      upto = {k: v for k, v in asked.items() if k in (key, "density")}
      upto = {k: v for k, v in upto.items() if k in ("density", "weighting")}
      made = calling(f"config.objective.{key}", exchange, whole, **upto)
  calling("config.objective.schedule", learned_schedule.check, made)
  return made
