"""A strength of guidance that the network itself is told."""

from typing import Any

from diffflow_jax.process import conditions, predictors
from diffflow_jax.sampling.guidance.wrappers import as_floats, wrapper


@wrapper
class AtStrength:
  """The predictor of a network that was taught to be guided, at one strength.

  arXiv:2210.03142 §3: cond gets the strength as one more entry
  (`conditions.with_strength`), and there is no second branch. A flow map may be
  told, where `Guided` is of predictions at one level only.

  Attributes:
    predict: of a network with the condition; strength: w, () or (batch,).
  """

  predict: Any
  strength: Any

  def __post_init__(self):
    as_floats(self, "strength")

  def at(self, row, z, cond=None):
    _, inner = row
    told = conditions.with_strength(cond, self.strength, z.shape[0])
    return predictors.at(self.predict, inner, z, told)
