"""Objectives: the named recipes, each one row of independent choices.

recipe          network output  scale    levels drawn         minimises
flow_matching   u               linear   t uniform, Flow      u-MSE
ddpm            v               vp       t uniform, Cosine    eps-MSE
edm             F               Unit     log-normal sigma     F-MSE
"""

from collections.abc import Callable
from typing import Any

from flax import struct

from diffflow_jax.objective import densities, weightings
from diffflow_jax.process import levels, schedules, targets
from diffflow_jax.process.predictors import Predictor


@struct.dataclass
class Objective:
  """What a network learns, and on which scale it sees its input.

  Attributes:
    schedule: the clock (for target u) and the levels that sampling walks over.
    density: how training draws levels, p(logsnr).
    weighting: logsnr -> log w, what is minimised.
    target: row of the network's output; scale: of its input.
  """

  schedule: Any
  density: Any
  weighting: Any
  target: Callable = struct.field(pytree_node=False)
  scale: Callable = struct.field(pytree_node=False)


def predictor(objective, apply, params):
  """The Predictor of a network that was trained on an objective."""
  return Predictor(
    params, objective.schedule, apply, objective.target, objective.scale
  )


def _plain_mse(schedule, density, target, scale, loss_target=None):
  """Draw levels from the density and take the MSE of loss_target."""
  loss_target = target if loss_target is None else loss_target
  weighting = weightings.TargetMSE(schedule, density, loss_target, scale)
  return Objective(schedule, density, weighting, target, scale)


def flow_matching():
  """Conditional flow matching on straight lines, t uniform, u-MSE.

  Lipman et al., arXiv:2210.02747 eq. 23 with sigma_min = 0; rectified flow,
  Liu et al., arXiv:2209.03003 eq. 1. w = exp(-logsnr/2).
  """
  schedule = schedules.Flow()
  density = densities.UniformTime(schedule)
  return _plain_mse(schedule, density, targets.u, levels.linear)


def ddpm():
  """DDPM's eps-MSE on the cosine schedule, by a network that predicts v.

  L_simple of Ho et al., arXiv:2006.11239 eq. 14; cosine schedule,
  arXiv:2102.09672; v, arXiv:2202.00512. w = sech(logsnr/2)/π.
  """
  schedule = schedules.Cosine()
  density = densities.UniformTime(schedule)
  return _plain_mse(schedule, density, targets.v, levels.vp, targets.eps)


def edm(sigma_data=0.5, p_mean=-1.2, p_std=1.2):
  """EDM: log-normal noise levels, preconditioned network, its plain MSE.

  Karras et al., arXiv:2206.00364 eq. 8 and Table 1.
  """
  return _plain_mse(
    schedules.Karras(),
    densities.Normal(-2.0 * p_mean, 2.0 * p_std),
    targets.F(sigma_data),
    levels.Unit(sigma_data),
  )


OBJECTIVES = {"flow_matching": flow_matching, "ddpm": ddpm, "edm": edm}
