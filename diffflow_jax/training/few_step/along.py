"""Methods of two free levels, which go by a derivative along the way."""

import dataclasses
from typing import Any

from diffflow_jax.cli import Refusal
from diffflow_jax.objective import densities, flow_maps
from diffflow_jax.objective.flow_maps import guidance as guidance_lib, pairs
from diffflow_jax.process import conditions, ranges
from diffflow_jax.runs import conditioning
from diffflow_jax.training.few_step.kind import ASKED, Kind, checked_strengths


@dataclasses.dataclass(frozen=True)
class MeanFlow(Kind):
  """MeanFlow (Geng et al., arXiv:2505.13447), or improved (arXiv:2512.02012).

  Attributes:
    share: of the pairs of levels that differ; power: of the adaptive weight.
    guidance: the strength whose field is learned; 1 is the data's own.
    null: what that strength goes by; improved: which of the two it is.
  """

  share: float
  power: float
  guidance: float
  improved: bool
  null: Any = None

  def on(self, known):
    """The method with the null condition that guidance goes by.

    Raises:
      Refusal: there is guidance, and no condition that training drops.
    """
    if self.guidance == 1.0:
      return self
    told = known.card.conditions
    names = conditioning.guided(known.config, told) if told else ()
    if not names:
      raise Refusal(
        f"config.method.guidance = {self.guidance:g} needs what the network "
        "says without a condition, which nothing trains: set "
        "config.label_dropout = 0.1, or guidance to 1"
      )
    null = conditions.without(told, names)
    return dataclasses.replace(self, null=null)

  def levels(self, objective, key, num, step):
    return pairs.two_times(key, objective.density, num, self.share)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    loss = (
      flow_maps.improved_mean_flow_at
      if self.improved
      else flow_maps.mean_flow_at
    )
    guidance = None
    if self.null is not None:
      guidance = guidance_lib.of_strength(self.null, self.guidance)
    return loss(
      objective, apply, params, x, eps, *levels, cond,
      power=self.power, guidance=guidance,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Matching(Kind):
  """Lagrangian or Eulerian map distillation (Boffi, arXiv:2406.07507).

  Without a teacher the network's own velocity is (arXiv:2505.18825).

  Attributes:
    loss: at given levels; share: of the pairs of levels that differ.
  """

  loss: Any
  share: float
  teacher = ASKED
  alone = True

  def levels(self, objective, key, num, step):
    return pairs.two_times(key, objective.density, num, self.share)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    return self.loss(
      objective, apply, params, x, eps, *levels, cond, teacher=given.teacher
    )


@dataclasses.dataclass(frozen=True)
class Guidance(Kind):
  """A guided teacher in one evaluation (Meng et al., arXiv:2210.03142).

  An ordinary network learns the field at one strength, config.teacher's, or at
  all of `strengths`, (low, high), of which it is told the one.
  """

  strengths: Any = None
  teacher = property(lambda self: ASKED if self.strengths is None else ())
  counts = ()

  def levels(self, objective, key, num, step):
    return densities.draw(objective.density, key, num)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    at_rest = lambda params, z, logsnr, cond, to: apply(params, z, logsnr, cond)
    loss = flow_maps.guidance_distillation_at
    return loss(
      objective, at_rest, params, x, eps, levels, cond, teacher=given.teacher
    )


_checked = ranges.checked(share="in [0, 1]", power=">= 0", guidance="> 0")


@_checked
def mean_flow(share=0.25, power=0.0, guidance=1.0):
  """`MeanFlow`."""
  return MeanFlow(share, power, guidance, improved=False)


@_checked
def improved_mean_flow(share=0.5, power=0.0, guidance=1.0):
  """`MeanFlow`, improved."""
  return MeanFlow(share, power, guidance, improved=True)


def guidance_distillation(strengths=None):
  """`Guidance`."""
  return Guidance(checked_strengths(strengths))


@ranges.checked(share="in [0, 1]")
def lagrangian(share=0.75):
  """`Matching`, at the point of arrival."""
  return Matching(flow_maps.lagrangian_at, share)


@ranges.checked(share="in [0, 1]")
def eulerian(share=0.75):
  """`Matching`, at the point of departure."""
  return Matching(flow_maps.eulerian_at, share)


METHODS = {
  "lagrangian": lagrangian,
  "eulerian": eulerian,
  "guidance_distillation": guidance_distillation,
  "mean_flow": mean_flow,
  "improved_mean_flow": improved_mean_flow,
}
