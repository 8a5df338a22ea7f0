"""Where the network of a few-step method was taught to go, by config.method.

    "any"     to any cleaner level, and to its own, as an ordinary denoiser
    "other"   to cleaner levels only
    "data"    to the data only

Methods that are not here train ordinary networks, which are told of no
destination.
"""

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


def steps_of_student(config, step):
  """How many steps the student of the stage that ends at a step, or goes on
  there, takes: half its teacher's, and half of that with each stage."""
  method, most = config.method, config.teacher.num_steps
  last = (most // method.get("last", 1)).bit_length() - 2
  return most >> (1 + min(max(step - 1, 0) // method.steps_per_stage, last))
