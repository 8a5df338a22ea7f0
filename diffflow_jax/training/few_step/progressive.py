"""Progressive distillation: a student of N steps, of N/2, … of one.

Salimans & Ho, arXiv:2202.00512. The first stage's teacher is config.teacher,
each later one's the average of the stage before, which is where it starts, too.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.objective import densities, flow_maps
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.process import ranges
from diffflow_jax.runs import samplers
from diffflow_jax.training.few_step.kind import Kind, checked_strengths
from diffflow_jax.training.few_step.stages import Stages


@dataclasses.dataclass(frozen=True)
class Progressive(Kind):
  """Two steps of the stage before are learned as one.

  Attributes:
    steps_per_stage: of training; last: steps of the last student.
    strengths: (low, high) of the guidance that the network is told, or None.
    grid: logsnr (2N + 1,) of the teacher's steps; stages: of the run.
  """

  steps_per_stage: int
  last: int = 1
  strengths: Any = None
  grid: Any = None
  stages: Any = None

  @property
  def teacher(self):
    """Fields of config.teacher; guidance is told where there are strengths."""
    solved = "grid", "num_steps"
    return solved if self.strengths is not None else ("guidance", *solved)

  def on(self, known):
    """The method on the grid of config.teacher.

    Raises:
      Refusal: its number of steps is no `last` times a power of 2, or its grid
        of half as many steps is not every other level of it.
    """
    config, spec = known.config, known.config.teacher
    if self.last >= spec.num_steps:
      raise Refusal(
        f"config.method.last = {self.last} must be less than the "
        f"{spec.num_steps} steps of its teacher, config.teacher.num_steps"
      )
    halvings = math.log2(spec.num_steps / self.last)
    if halvings % 1:
      raise Refusal(
        f"config.teacher.num_steps = {spec.num_steps} must be config.method."
        f"last = {self.last} times a power of 2: each stage halves it"
      )
    if self.steps_per_stage % config.steps_per_dispatch:
      raise Refusal(
        f"config.method.steps_per_stage = {self.steps_per_stage} must be a "
        f"multiple of config.steps_per_dispatch = {config.steps_per_dispatch}"
      )
    make = lambda num: np.asarray(
      samplers.call(
        "config.teacher.grid", spec.grid, samplers.GRIDS, known.objective, num
      ).logsnr,
      np.float32,
    )
    grid = make(spec.num_steps)
    coarse = make(spec.num_steps // 2)
    if len(grid) != spec.num_steps + 1 or not _same(coarse, grid[::2]):
      raise Refusal(
        f"config.teacher.grid = {spec.grid!r} of {spec.num_steps // 2} steps "
        f"is not every other level of that of {spec.num_steps}: take "
        "uniform_flow, uniform_cosine or uniform_t"
      )
    stages = Stages(self.steps_per_stage, round(halvings))
    return dataclasses.replace(self, grid=grid, stages=stages)

  def levels(self, objective, key, num, step):
    """(s, m, t): every 2^stage-th level of the teacher's grid, three on."""
    each = 2 ** self.stages.of(step)
    count = (len(self.grid) - 1) // (2 * each)
    u = densities.uniforms(key, num)
    i = 2 * jnp.minimum((u * count).astype(jnp.int32), count - 1)
    return tuple(jnp.asarray(self.grid)[(i + j) * each] for j in range(3))

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    own = predictor(objective, apply, given.former, destination=True)
    first = self.stages.of(given.step) == 0

    def teacher(z, lv, cond):
      return jax.lax.cond(
        first,
        lambda: given.teacher(z, lv, cond),
        lambda: own(z, lv, cond),
      )

    loss = flow_maps.progressive_distillation_at
    return loss(
      objective, apply, params, x, eps, *levels, cond, teacher=teacher
    )


def _same(one, two):
  return one.shape == two.shape and np.allclose(one, two, rtol=1e-4, atol=1e-4)


@ranges.checked(steps_per_stage="an integer >= 1", last="an integer >= 1")
def progressive_distillation(steps_per_stage, last=1, strengths=None):
  """`Progressive`."""
  return Progressive(steps_per_stage, last, checked_strengths(strengths))


METHODS = {"progressive_distillation": progressive_distillation}
