"""The methods by name: what each needs, and the loss that it takes.

A method is a frozen dataclass of its settings, with

    destination   whether the network is told where it is going
    teacher       fields of config.teacher that it uses, () without one
    density       whether the objective's density and weighting have a part
    counts        the numbers of steps that pictures are drawn in
    levels(objective, key, num, step)    what a batch is trained at
    terms(given, objective, apply, params, x, levels, eps, cond)   its Terms
"""

import dataclasses

from diffflow_jax.objective import densities, losses
from diffflow_jax.process import ranges

SOLVED = ("guidance", "solver", "grid", "num_steps")


@ranges.checked(pairs="an integer >= 0")
def reflow(pairs=0):
  """`Reflow`."""
  return Reflow(pairs)


@dataclasses.dataclass(frozen=True)
class Reflow:
  """Rectified flow's second round (Liu et al., arXiv:2209.03003).

  The ordinary loss, on pairs of noise and what the teacher makes of it.

  Attributes:
    pairs: how many are made ahead; 0 solves anew for every step.
  """

  pairs: int = 0
  destination = False
  teacher = SOLVED
  density = True
  counts = (1, 2, 4)

  def levels(self, objective, key, num, step):
    return densities.draw(objective.density, key, num)

  def terms(self, given, objective, apply, params, x, logsnr, eps, cond):
    x = x if given.solve is None else given.solve(eps, cond)
    return losses.terms_at(objective, apply, params, x, logsnr, eps, cond)


METHODS = {"reflow": reflow}
