"""An objective: the five independent choices that make a recipe."""

from typing import Any

from flax import struct

from diffflow_jax.objective import densities, omegas, parameters, weighting
from diffflow_jax.process import nodes, schedules
from diffflow_jax.process.predictors import Predictor


@struct.dataclass
class Objective:
  """What a network learns, and on which scale it sees its input.

  Every number in it is a leaf, so it can be an argument of a jitted function;
  your own functions and objects are taken as constants of the trace.

  Attributes:
    schedule: the clock (for target u) and the levels that sampling walks over.
    density: how training draws levels, p(logsnr).
    weighting: logsnr -> log w, what is minimised.
    target: row of the network's output; scale: of its input.
  """

  schedule: Any
  density: Any
  weighting: Any
  target: Any
  scale: Any

  def __post_init__(self):
    if isinstance(self.weighting, omegas.FACTORS):
      name = type(self.weighting).__name__
      raise ValueError(
        f"weighting must be w(logsnr), but {name} is a factor omega of an MSE: "
        f"use weightings.mse(recipe, targets.eps, omegas.{name}(...))"
      )
    nodes.hold_nodes(self, "density", "weighting", "target", "scale")


def on_schedule(objective, schedule):
  """The objective with another schedule, for its clock and for sampling.

  Times that were uniform on the old schedule are uniform on the new one; a
  density that has no schedule (EDM's, SD3's) stays. What is minimised stays the
  recipe's: the weighting is a function of logsnr.

  Raises:
    ValueError: what `schedules.check` finds wrong with it.
  """
  schedules.check(schedule)
  density = objective.density
  if isinstance(density, densities.UniformTime):
    density = densities.UniformTime(schedule)
  return objective.replace(schedule=schedule, density=density)


def check(objective):
  """Refuses a name, or anything else, in the place of an objective.

  Raises:
    TypeError: it has no weighting.
  """
  if not hasattr(objective, "weighting"):
    raise TypeError(
      "objective must be one, as objectives.make('edm') is, not "
      f"{objective!r:.80}"
    )


def predictor(objective, apply, params, *, destination=None, reaches="any"):
  """The Predictor of a network that was trained on an objective.

  A schedule that was trained with it is taken from params.

  Args:
    destination: whether it is a flow map, whose apply is told where it goes as
      its fifth argument; None for what the network whose method apply is says
      by its own `destination`, and False where it says nothing.
    reaches: where a flow map was taught to go, a word of `ways`.
  Raises:
    TypeError: objective is none, or apply is no function, as a network's.
    ValueError: reaches is unknown.
  """
  check(objective)
  objective = parameters.settled(objective, params)
  if destination is None:
    network = getattr(apply, "__self__", None)
    destination = bool(getattr(network, "destination", False))
  return Predictor(
    params,
    objective.schedule,
    apply,
    objective.target,
    objective.scale,
    destination,
    reaches,
  )


def plain_mse(schedule, target, scale, *, loss_target=None, density=None):
  """Draw levels from the density and take the MSE of loss_target.

  Times are uniform and the MSE is of the network's own output if they are None.
  """
  schedules.check(schedule)
  density = densities.UniformTime(schedule) if density is None else density
  loss_target = target if loss_target is None else loss_target
  implied = weighting.TargetMSE(schedule, density, loss_target, scale)
  return Objective(schedule, density, implied, target, scale)
