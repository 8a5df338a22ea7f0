"""Methods that learn a long step from two shorter ones of the same network."""

import dataclasses

import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities, flow_maps
from diffflow_jax.objective.flow_maps import pairs
from diffflow_jax.process import ranges
from diffflow_jax.training.few_step.kind import ASKED, Kind


class _Legs(Kind):
  """The first `share` of a batch is of two legs, the rest at rest."""

  stop = True

  def levels(self, objective, key, num, step):
    own, still = jax.random.split(key)
    first = self.first(num)
    legs = self.legs(objective, own, max(first, 1))
    rest = densities.draw(objective.density, still, num)[first:]
    return tuple(jnp.concatenate([one[:first], rest]) for one in legs)

  def first(self, num):
    return round(self.share * num)

  def terms(self, given, objective, apply, params, x, levels, eps, cond):
    return flow_maps.self_consistency_at(
      objective, apply, params, x, eps, *levels, cond,
      num=self.first(x.shape[0]), stop=self.stop, teacher=given.teacher,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shortcut(_Legs):
  """Shortcut models (Frans et al., arXiv:2410.12557).

  Attributes:
    share: of a batch on self-consistency; finest: the least step is 1/finest.
  """

  share: float
  finest: int

  def legs(self, objective, key, num):
    return pairs.dyadic(key, objective.schedule, num, self.finest)


@dataclasses.dataclass(frozen=True)
class Split(_Legs):
  """SplitMeanFlow (Guo et al., arXiv:2507.16884).

  Attributes:
    share: of a batch on self-consistency.
  """

  share: float

  def legs(self, objective, key, num):
    keys = jax.random.split(key)
    s, t = pairs.two_times(keys[0], objective.density, num, 1.0)
    return s, pairs.between(keys[1], objective.schedule, s, t), t


@dataclasses.dataclass(frozen=True)
class ProgressiveMap(Split):
  """Progressive map matching (Boffi et al., arXiv:2406.07507).

  With gradient through both legs; without a teacher, self-distillation.
  """

  stop = False
  teacher = ASKED
  alone = True


_checked = ranges.checked(share="in [0, 1]")


@ranges.checked(share="in [0, 1]", finest="an integer >= 2")
def shortcut(share=0.25, finest=128):
  """`Shortcut`."""
  if finest & (finest - 1):
    raise ValueError(f"finest must be a power of 2, not {finest}")
  return Shortcut(share, finest)


@_checked
def split_mean_flow(share=0.5):
  """`Split`."""
  return Split(share)


@_checked
def progressive_map(share=0.5):
  """`ProgressiveMap`."""
  return ProgressiveMap(share)


METHODS = {
  "shortcut": shortcut,
  "split_mean_flow": split_mean_flow,
  "progressive_map": progressive_map,
}
