"""Where the network of a few-step method was taught to go, by config.method.

    "any"     to any cleaner level, and to its own, as an ordinary denoiser
    "other"   to cleaner levels only
    "data"    to the data only

Methods that are not here train ordinary networks, which are told of no
destination.
"""

import numpy as np

from diffflow_jax.process import ways
from diffflow_jax.runs import samplers

REACHES = {
  "knowledge_distillation": "data",
  "progressive_distillation": "other",
  "improved_consistency": "data",
  "easy_consistency": "data",
  "consistency_distillation": "data",
  "continuous_consistency": "data",
  "mean_flow": "any",
  "improved_mean_flow": "any",
  "shortcut": "any",
  "split_mean_flow": "any",
  "lagrangian": "any",
  "eulerian": "any",
  "progressive_map": "any",
}


def reaches(config):
  """Where a run's network goes: a word of the above, or None for nowhere."""
  return REACHES.get(config.get("method", {}).get("name"))


def strengths(config):
  """(low, high) of the strengths of guidance that it is told, or None."""
  return config.get("method", {}).get("strengths")


def check_way(config, objective, step, levels):
  """Refuses levels between which a network was never taught to go.

  A student of progressive distillation knows the steps of its stage alone.

  Args:
    step: how far it was trained; levels: of a Tableau, or an adaptive start.
  Raises:
    ValueError: it says what to do instead.
  """
  known = reaches(config)
  ways.check(known or "any", levels, objective.schedule)
  if known != "other":
    return
  num, name = steps_of_student(config, step), config.teacher.grid
  grid = samplers.call(
    "config.teacher.grid", name, samplers.GRIDS, objective, num
  ).logsnr
  same = lambda one, two: (
    np.shape(one) == np.shape(two) and np.allclose(one, two, 1e-4, 1e-4)
  )
  if not (same(levels.logsnr, grid[:-1]) and same(levels.to, grid[1:])):
    raise ValueError(
      f"this student was taught the {num} steps of the grid {name} alone: take "
      "num_steps and grid so, or another stage's checkpoint"
    )


def steps_of_student(config, step):
  """How many steps the student of the stage that ends at a step, or goes on
  there, takes: half its teacher's, and half of that with each stage."""
  method, most = config.method, config.teacher.num_steps
  last = (most // method.get("last", 1)).bit_length() - 2
  return most >> (1 + min(max(step - 1, 0) // method.steps_per_stage, last))
