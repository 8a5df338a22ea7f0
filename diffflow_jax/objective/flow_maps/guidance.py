"""Guidance while training: the map of the guided field, in one evaluation.

MeanFlow, arXiv:2505.13447: the velocity that it learns from becomes

    u_c -> omega u_c + (1 - omega - kappa) û_none + kappa û_cond

whose fixed point is classifier-free guidance of strength omega/(1 - kappa).
Improved MeanFlow's (arXiv:2512.02012) is omega = 1, kappa = 1 - 1/strength. û
are the network's own, at t = s, without gradient. Guidance acts on velocities
alone: Φ_none + w (Φ_cond - Φ_none) is not the guided map.
"""

from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.process import ranges
from diffflow_jax.process.conditions import Given
from diffflow_jax.process.levels import bcast


@ranges.node
class Guidance:
  """How a method's velocity is guided; numbers, or (batch,).

  Equation (trained_guidance) of docs/math.

  Attributes:
    null: what stands for no condition, as of `dfj.Guided`. Examples that say
      just that, whose condition was dropped, are not guided.
    omega, kappa: the weights above; kappa is less than 1, where the strength
      has no bound.
    interval: (lo, hi) logsnr; a pair is guided where its *s* is in [lo, hi), as
      of `dfj.Guided`.
  """

  null: Any
  omega: Any = 1.0
  kappa: Any = 0.0
  interval: Any = (-jnp.inf, jnp.inf)
  _allowed = {"kappa": "< 1"}

  @property
  def strength(self):
    """The scale of guidance that training tends to: omega/(1 - kappa)."""
    return self.omega / (1.0 - self.kappa)


@ranges.checked(strength="> 0")
def of_strength(null, strength, interval=(-jnp.inf, jnp.inf)):
  """Improved MeanFlow's: omega = 1, kappa = 1 - 1/strength.

  Equation (trained_guidance) of docs/math.
  """
  return Guidance(null, 1.0, 1.0 - 1.0 / jnp.asarray(strength), interval)


def guided(guidance, velocity_of, u_c, z, s, cond):
  """The guided velocity in the place of u_c, like it.

  Args:
    velocity_of: cond -> velocity(z, s, t) of the network.
  Raises:
    TypeError: guidance is no Guidance; ValueError: there is no condition.
  """
  if guidance is None:
    return u_c
  if not isinstance(guidance, Guidance):
    raise TypeError(
      "guidance must be a Guidance, as guidance.of_strength(null, 2.0) is, not "
      f"{guidance!r}"
    )
  if cond is None:
    raise ValueError("guidance needs a condition, but cond is None")
  none = _like(cond, guidance.null)
  here = (s >= guidance.interval[0]) & (s < guidance.interval[1])
  on = here & ~_says_nothing(cond, guidance.null)
  omega = jnp.where(on, guidance.omega, 1.0)
  kappa = jnp.where(on, guidance.kappa, 0.0)
  at_rest = lambda cond: jax.lax.stop_gradient(velocity_of(cond)(z, s, s))
  out = bcast(omega, z) * u_c
  out += bcast(1.0 - omega - kappa, z) * at_rest(none)
  if isinstance(guidance.kappa, float) and guidance.kappa == 0.0:
    return out  # one evaluation less
  return out + bcast(kappa, z) * at_rest(cond)


def _entries(cond, null):
  """[(entry, its null)] of what null names."""
  if isinstance(null, dict):
    return [(cond[name], entry) for name, entry in null.items()]
  return [(cond, null)]


def _like(cond, null):
  """null in the place of each example's condition, where null names it."""
  same = lambda entry, none: jax.tree.map(
    lambda n, c: jnp.broadcast_to(jnp.asarray(n, c.dtype), c.shape), none, entry
  )
  if isinstance(null, dict):
    return {**cond, **{n: same(cond[n], null[n]) for n in null}}
  return same(cond, null)


def _says_nothing(cond, null):
  """Whether an example's condition is the null one, (batch,)."""
  out = True
  for entry, none in _entries(cond, null):
    if isinstance(none, Given):
      same = entry.mask == none.mask
    else:
      same = entry == none
    out &= jnp.asarray(same).reshape(same.shape[0], -1).all(axis=1)
  return out
