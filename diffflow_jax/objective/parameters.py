"""What of an objective is trained with the network: params["objective"].

    weighting   Uncertainty      {"weights": (num_channels,)}
    schedule    Learned          {"schedule": {its fields}}

Averages, checkpoints and exports hold it with the network's own parameters.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from diffflow_jax.objective import densities
from diffflow_jax.objective.uncertainty import Uncertainty
from diffflow_jax.process.learned import Learned


def learns_schedule(objective):
  """Whether the schedule is one that is trained."""
  return isinstance(objective.schedule, Learned)


def initial(objective):
  """The numbers at step 0, {} where the objective has none to be trained."""
  learned = {}
  if isinstance(objective.weighting, Uncertainty):
    learned["weights"] = objective.weighting.weights
  if learns_schedule(objective):
    learned["schedule"] = {
      name: jnp.asarray(value, jnp.float32)
      for name, value in vars(objective.schedule).items()
    }
  return learned


def settled(objective, params):
  """The objective with the numbers that params hold of it, if they hold any.

  Levels are then drawn, clipped and walked over as the trained schedule has it.
  """
  learned = params.get("objective", {}) if isinstance(params, Mapping) else {}
  if "weights" in learned and isinstance(objective.weighting, Uncertainty):
    weighting = objective.weighting.replace(weights=learned["weights"])
    objective = objective.replace(weighting=weighting)
  if "schedule" in learned and learns_schedule(objective):
    schedule = objective.schedule.replace(**learned["schedule"])
    density = densities.UniformTime(schedule)
    objective = objective.replace(schedule=schedule, density=density)
  return objective
