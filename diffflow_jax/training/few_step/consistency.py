"""Consistency: a network that is sent to the data from anywhere on its way."""

import dataclasses

from diffflow_jax.objective import densities, flow_maps
from diffflow_jax.objective.flow_maps import pairs, stabilisers
from diffflow_jax.process import ranges
from diffflow_jax.training.few_step.kind import ASKED, Kind


class _Consistency(Kind):
  """Adjacent levels s, m, and the data as the destination."""

  weighted = False

  def levels(self, objective, key, num, step):
    drawn = self.adjacent(key, num, step)
    return pairs.to_data(objective.schedule, *drawn)


@dataclasses.dataclass(frozen=True)
class Training(_Consistency):
  """Improved consistency training (Song & Dhariwal, arXiv:2310.14189).

  Attributes:
    num_steps: K, over which the grid grows from `first` to `most` levels.
  """

  num_steps: int
  first: int = 10
  most: int = 1280

  def adjacent(self, key, num, step):
    count = pairs.num_levels_at(step, self.num_steps, self.first, self.most)
    return pairs.adjacent(key, num, count)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    loss = flow_maps.improved_consistency_at
    return loss(objective, apply, params, x, eps, *levels, cond)


@dataclasses.dataclass(frozen=True)
class Easy(_Consistency):
  """Easy consistency training (Geng et al., arXiv:2406.14548).

  Attributes:
    steps_per_stage: after so many the two levels come closer.
  """

  steps_per_stage: int

  def adjacent(self, key, num, step):
    return pairs.easy(key, num, step // self.steps_per_stage)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    loss = flow_maps.easy_consistency_at
    return loss(objective, apply, params, x, eps, *levels, cond)


@dataclasses.dataclass(frozen=True)
class Distillation(_Consistency):
  """Consistency distillation (Song et al., arXiv:2303.01469).

  The target is of the averaged network; a step of Heun's, order 2, or of DDIM's
  takes the teacher from a level of the grid to the next.

  Attributes:
    num_levels: of the grid; order: of the step.
  """

  num_levels: int = 40
  order: int = 2
  teacher = ASKED
  weighted = True

  def adjacent(self, key, num, step):
    return pairs.adjacent(key, num, self.num_levels)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    return flow_maps.consistency_distillation_at(
      objective, apply, params, x, eps, *levels, cond,
      teacher=given.teacher, shadow=given.shadow, order=self.order,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Continuous(Kind):
  """sCM, training and distillation (Lu & Song, arXiv:2410.11081).

  Attributes:
    sigma_data: standard deviation of x; norm: c of the normalised tangent.
    warmup: steps until all of the tangent counts.
  """

  sigma_data: float
  norm: float
  warmup: int
  teacher = ASKED
  alone = True

  def levels(self, objective, key, num, step):
    return densities.draw(objective.density, key, num)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    turn = 1.0
    if self.warmup:
      turn = stabilisers.warmed_up(given.step, self.warmup)
    return flow_maps.continuous_consistency_at(
      objective, apply, params, x, eps, levels, cond, teacher=given.teacher,
      sigma_data=self.sigma_data, norm=self.norm, warmup=turn,
    )  # fmt: skip


@ranges.checked(
  num_steps="an integer >= 1", first="an integer >= 2", most=">= first"
)
def improved_consistency(num_steps, first=10, most=1280):
  """`Training`."""
  return Training(num_steps, first, most)


@ranges.checked(steps_per_stage="an integer >= 1")
def easy_consistency(steps_per_stage):
  """`Easy`."""
  return Easy(steps_per_stage)


@ranges.checked(
  num_levels="an integer >= 2",
  order=(lambda order, _: (order == 1) | (order == 2), "1 or 2"),
)
def consistency_distillation(num_levels=40, order=2):
  """`Distillation`."""
  return Distillation(num_levels, order)


@ranges.checked(sigma_data="> 0", norm="> 0", warmup="an integer >= 0")
def continuous_consistency(sigma_data=0.5, norm=0.1, warmup=10_000):
  """`Continuous`."""
  return Continuous(sigma_data, norm, warmup)


METHODS = {
  "continuous_consistency": continuous_consistency,
  "improved_consistency": improved_consistency,
  "easy_consistency": easy_consistency,
  "consistency_distillation": consistency_distillation,
}
