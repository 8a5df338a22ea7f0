"""Methods that learn from pairs: noise, and what the teacher makes of it."""

import dataclasses

import jax.numpy as jnp

from diffflow_jax.objective import densities, flow_maps, losses
from diffflow_jax.process import ranges
from diffflow_jax.training.few_step.kind import SOLVED, Kind


@dataclasses.dataclass(frozen=True)
class Reflow(Kind):
  """Rectified flow's next round (Liu et al., arXiv:2209.03003).

  The ordinary loss on pairs; the network is an ordinary one. A student may be
  the teacher of another round.

  Attributes:
    pairs: how many are made ahead; 0 solves anew for every step.
  """

  pairs: int = 0
  teacher = SOLVED

  def levels(self, objective, key, num, step):
    return densities.draw(objective.density, key, num)

  def terms(self, given, objective, apply, params, x, logsnr, eps, cond):
    x = given.solved(x, eps, cond)
    return losses.terms_at(objective, apply, params, x, logsnr, eps, cond)


@dataclasses.dataclass(frozen=True)
class KnowledgeDistillation(Kind):
  """From noise to data in one step (Luhman & Luhman, arXiv:2101.02388).

  Attributes:
    pairs: as of `Reflow`.
  """

  pairs: int = 0
  teacher = SOLVED
  counts = (1,)
  weighted = False

  def levels(self, objective, key, num, step):
    return ()

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    x, schedule = given.solved(x, eps, cond), objective.schedule
    s, t = (
      schedule.logsnr(jnp.asarray(time))
      for time in (getattr(schedule, "last", 1.0), 0.0)
    )
    loss = flow_maps.knowledge_distillation_at
    return loss(objective, apply, params, x, eps, s, t, cond)


_checked = ranges.checked(pairs="an integer >= 0")
METHODS = {
  "reflow": _checked(lambda pairs=0: Reflow(pairs)),
  "knowledge_distillation": _checked(
    lambda pairs=0: KnowledgeDistillation(pairs)
  ),
}
