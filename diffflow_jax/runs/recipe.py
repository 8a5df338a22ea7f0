"""From a config to the objective and the network that it names.

What cannot work is refused here in one sentence: unknown names (with the known
ones), unknown fields, a network that does not fit the data.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.cli import Refusal, parse_spec
from diffflow_jax.objective.uncertainty import Uncertainty
from diffflow_jax.runs import checks
from diffflow_jax.runs.lookup import choose, named


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
  network = choose(
    "network", config.network, NETWORKS, num_classes=card.num_classes
  )
  checks.check_network(network, card)
  return Recipe(config, card, made, network)


def init(objective, network, data, seed):
  """The network's variables at step 0, and what a weighting learns.

  A function of the seed; the latter is under "objective" beside the former.

  Args:
    data: a data set, or the card of one.
  """
  z = jnp.zeros((1, *data.shape))
  cond = jnp.zeros((1,), jnp.int32) if data.num_classes else None
  params = network.init(jax.random.key(seed), z, jnp.zeros((1,)), cond)
  weighting = objective.weighting
  if isinstance(weighting, Uncertainty):
    params = {**params, "objective": {"weights": weighting.weights}}
  return params


def objective(spec):
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
  whole = choose("objective", spec, OBJECTIVES)
  if "schedule" in other:
    whole = on_schedule(whole, other.pop("schedule")())
  whole = whole.replace(**other)
  for key, text in made.items():
    name, settings = parse_spec(text, f"config.objective.{key}")
    try:
      one = makers[key](name, whole, **settings)
    except (TypeError, ValueError) as error:
      raise Refusal(f"config.objective.{key}: {error}") from error
    whole = whole.replace(**{key: one})
  return whole
