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
