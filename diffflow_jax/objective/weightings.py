"""Weightings w(logsnr): what is minimised, relative to the eps-MSE.

    L_w = ½ ∫ w(λ) E‖eps - ε̂‖² dλ        (Kingma & Gao, arXiv:2303.00848 §2)

A weighting is a function logsnr -> **log w**. Your own takes two lines:

    def my_weighting(logsnr):
      return jax.nn.log_sigmoid(2.0 - logsnr)

See `objective.weighting` for the contract and for the ½, and `omegas` for the
factors of min-SNR, P2 and soft-min-SNR: they are no weightings, and become one
by `mse`, with the density that levels are drawn from.
"""

import inspect

from diffflow_jax.objective import objectives
from diffflow_jax.objective.omegas import OMEGAS
from diffflow_jax.objective.uncertainty import Uncertainty, uncertainty
from diffflow_jax.objective.weighting import (
  ELBO,
  Monotonic,
  Sigmoid,
  TargetMSE,
  elbo,
  log_gain,
)
from diffflow_jax.process import targets
from diffflow_jax.process.names import make_from

__all__ = [
  "ELBO",
  "Monotonic",
  "Sigmoid",
  "TargetMSE",
  "Uncertainty",
  "WEIGHTINGS",
  "edm",
  "edm_monotonic",
  "elbo",
  "log_gain",
  "make",
  "mse",
  "sd3",
  "uncertainty",
]


def mse(recipe, target=None, omega=elbo):
  """w of omega times a target's MSE, levels drawn as the recipe draws them.

  The recipe gives schedule, density and scale, and the target if that is None:
  `mse(recipe, targets.v)` is the v-MSE on the recipe's schedule,
  `mse(recipe, targets.eps, omegas.min_snr(5.0))` is min-SNR's. What it draws
  from later does not change w. "own_mse" is the plain MSE of the network's
  output, as papers mean it, of a recipe that already has the density it trains
  with.

  Equation (implied) of docs/math.
  """
  target = recipe.target if target is None else target
  return TargetMSE(recipe.schedule, recipe.density, target, recipe.scale, omega)


def edm(sigma_data=0.5, p_mean=-1.2, p_std=1.2):
  """w = 2 N(λ; -2 P_m, 4 P_s²) (e^-λ + s_d²)/s_d², `objectives.edm`'s.

  Equation (implied) of docs/math.
  """
  return objectives.edm(sigma_data, p_mean, p_std).weighting


def edm_monotonic(sigma_data=0.5, p_mean=-1.2, p_std=1.2):
  """EDM's above its maximum, the maximum below: arXiv:2303.00848.

  Equation (implied) of docs/math.
  """
  return Monotonic(edm(sigma_data, p_mean, p_std))


def sd3(mean=0.0, std=1.0, shift=1.0):
  """w = 2 N(λ; -2 mean - 2 log shift, 4 std²)(1 + e^(-λ/2))², SD3's.

  Equation (implied) of docs/math.
  """
  return objectives.sd3(mean, std, shift).weighting


def _mse_of(target):
  return lambda recipe: mse(recipe, target)


def _omega(factory):
  """omega on the eps-MSE: takes the recipe, then the factory's numbers."""

  def make(recipe, **numbers):
    return mse(recipe, targets.eps, factory(**numbers))

  given = inspect.signature(make).parameters["recipe"]
  numbers = inspect.signature(factory).parameters.values()
  make.__signature__ = inspect.Signature([given, *numbers])
  return make


# name -> factory of plain numbers. Where the first argument is `recipe`, w is
# of the Objective that is given there: its density, schedule and scale, or the
# weighting that is changed.
WEIGHTINGS = {
  "elbo": ELBO,
  "sigmoid": Sigmoid,
  "edm": edm,
  "edm_monotonic": edm_monotonic,
  "sd3": sd3,
  "monotonic": lambda recipe: Monotonic(recipe.weighting),
  "uncertainty": lambda recipe, num_channels=128: uncertainty(
    recipe.weighting, num_channels
  ),
  "own_mse": lambda recipe: mse(recipe),
  **{
    f"{name}_mse": _mse_of(targets.TARGETS[name])
    for name in ("x", "eps", "v", "u", "score", "F")
  },
  **{name: _omega(make) for name, make in OMEGAS.items() if name != "one"},
}


def make(name, recipe=None, **kwargs):
  """The weighting of a name: make("sigmoid", bias=2.0), make("v_mse", recipe).

  Raises:
    ValueError: unknown name or argument, a recipe that is missing, or a number
      out of its range.
  """
  return make_from(WEIGHTINGS, "weighting", name, kwargs, recipe)
