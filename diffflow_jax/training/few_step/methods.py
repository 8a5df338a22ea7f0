"""The methods by name: what each needs, and the loss that it takes.

A method is a frozen dataclass of its settings, with

    teacher    fields of config.teacher that it uses, None without one
    alone      whether it also learns without the teacher that it can have
    counts     the numbers of steps that pictures are drawn in
    strengths  (low, high) of the guidance that the network is told, or None
    weighted   whether the objective's density and weighting have a part
    levels(objective, key, num, step)    what a batch is trained at, a tuple
    terms(given, objective, apply, params, x, levels, eps, cond)   its Terms

and, where it needs them, on(recipe) -> itself for a run, `pairs` and `stages`.
The losses themselves are `objective.flow_maps`.
"""

from diffflow_jax.training.few_step import (
  along,
  consistency,
  own_legs,
  pairs_methods,
  progressive,
)

METHODS = {
  **pairs_methods.METHODS,
  **progressive.METHODS,
  **consistency.METHODS,
  **along.METHODS,
  **own_legs.METHODS,
}
