"""Guidance: wrappers of predict, with their numbers as data.

Each wrapper keeps the contract (z, lv, cond) -> (x̂, ε̂), so they nest: threshold
the guided prediction, guide a thresholded one. All work in x̂ and ε̂, which do
not depend on what the network predicts or on the scale.
"""

import logging
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import nodes, predictors, ranges
from diffflow_jax.process.faces import Wrapper
from diffflow_jax.process.levels import bcast
from diffflow_jax.sampling.guidance.inverse_problems import Measured, Replaced
from diffflow_jax.sampling.guidance.strength import AtStrength
from diffflow_jax.sampling.guidance.wrappers import (
  as_floats,
  at_one_level,
  with_x,
  wrapper,
)

log = logging.getLogger("diffflow_jax")

__all__ = [
  "AtStrength",
  "Clipped",
  "DynamicallyClipped",
  "Guided",
  "Measured",
  "Replaced",
  "warn_if_negative",
]


def _both(predict, row, z, cond, null):
  """predict under cond and under null, as one batch of twice the size."""
  twice = lambda a, b: jnp.concatenate([a, b])
  per_sample = lambda c: twice(c, c) if jnp.ndim(c) else c
  out = predictors.at(
    predict,
    jax.tree.map(per_sample, row),
    twice(z, z),
    jax.tree.map(twice, jax.tree.map(jnp.asarray, cond), null),
  )
  given, none = zip(*(jnp.split(y, 2) for y in out), strict=True)
  return given, none


def _like(cond, null):
  """null for each example of cond, whose entries it has where it has none."""
  if isinstance(cond, dict) and isinstance(null, dict):
    if not cond.keys() & null.keys():
      raise ValueError(
        f"guidance needs a condition to leave out: null has {', '.join(null)}, "
        f"cond has {', '.join(cond) or 'none'}"
      )
    null = {name: null.get(name, entry) for name, entry in cond.items()}
  return jax.tree.map(
    lambda n, c: jnp.broadcast_to(
      jnp.asarray(n, jnp.asarray(c).dtype), jnp.shape(c)
    ),
    null,
    cond,
  )


@wrapper
class Guided(Wrapper):
  """Classifier-free guidance, arXiv:2207.12598 eq. 6 with w = 1 + theirs.

      x̂ = x̂_null + w (x̂_cond - x̂_null),   the same for ε̂

  The maps between targets are affine and the weights sum to 1, so this is the
  same whatever the network predicts and whatever the scale.

  Equation (guidance) of docs/math. Equation (guidance_rescale) of docs/math.

  Attributes:
    predict: what is guided.
    null: the reference's condition, as one entry of cond or all of it, a pytree
      like it: the one that means none, or a negative one. Of a dict it may hold
      some names only: the reference has the others as they are given.
    strength: w; 1 is off, 0 the reference. A number or (batch,): the two are
      two programs, so broadcast the number where both are to share one.
    interval: (lo, hi) logsnr inside which w holds; outside it is 1
      (arXiv:2404.07724: sigma/alpha in (e^{-hi/2}, e^{-lo/2}]).
    rescale: φ in [0, 1]; x̂ <- φ x̂ std(x̂_cond)/std(x̂) + (1-φ) x̂, standard
      deviations over a sample (arXiv:2305.08891 eq. 15-16, here in x̂, which
      does not depend on the network's target).
    weak: a weaker predictor as the reference, under the same cond
      (autoguidance, arXiv:2406.02507); null is then not used.
    batched: both branches as one batch, or as two calls in half the memory.
    plus_plus: CFG++ (arXiv:2406.08070): inside the interval w in [0, 1] on x̂,
      and the reference's own ε̂; for `ddim` and its kin, which renoise with ε̂
      as it comes.

  Raises:
    ValueError: rescale or interval is none; or, when called, there is no weak
      predictor, and condition or null is missing, or a flow map goes to another
      level.
  """

  predict: Any
  null: Any = None
  strength: Any = 1.0
  interval: Any = (-jnp.inf, jnp.inf)
  rescale: Any = 0.0
  weak: Any = None
  batched: bool = struct.field(pytree_node=False, default=True)
  plus_plus: bool = struct.field(pytree_node=False, default=False)
  _allowed = {"rescale": "in [0, 1]"}

  def __post_init__(self):
    as_floats(self, "strength", "interval", "rescale")
    lo, hi = self.interval
    if nodes.concrete(hi):
      rises = lambda lo, _: lo < np.asarray(hi)
      ranges.check("interval", lo, (rises, "(lo, hi), lo < hi"))

  def prepare(self, lv):
    at_one_level(lv)
    both = [self.predict] if self.weak is None else [self.predict, self.weak]
    return lv, *(predictors.prepare(predict, lv) for predict in both)

  def _branches(self, rows, z, cond):
    call = lambda cond: predictors.at(self.predict, rows[0], z, cond)
    if self.weak is not None:
      return call(cond), predictors.at(self.weak, rows[1], z, cond)
    for name, value in dict(cond=cond, null=self.null).items():
      if value is None:
        raise ValueError(
          "guidance needs a condition and a null one, or a weak predictor: "
          f"{name} is None"
        )
    null = _like(cond, self.null)
    if self.batched:
      return _both(self.predict, rows[0], z, cond, null)
    return call(cond), call(null)

  def at(self, row, z, cond=None):
    lv, *rows = row
    given, none = self._branches(rows, z, cond)
    lo, hi = self.interval
    inside = (lv.logsnr >= lo) & (lv.logsnr < hi)
    w = jnp.where(inside, self.strength, 1.0).astype(z.dtype)
    mix = lambda c, n: n + bcast(w, z) * (c - n)
    x_hat, eps_hat = (mix(c, n) for c, n in zip(given, none, strict=True))
    x_hat, eps_hat = jax.lax.cond(
      jnp.any(self.rescale != 0.0),
      self._rescaled,
      lambda x_hat, eps_hat, given, lv: (x_hat, eps_hat),
      *(x_hat, eps_hat, given[0], lv),
    )
    if self.plus_plus:
      eps_hat = jnp.where(bcast(inside, z), none[1], given[1])
    return x_hat, eps_hat

  def _rescaled(self, x_hat, eps_hat, given, lv):
    axes = tuple(range(1, x_hat.ndim))
    spread = lambda y: jnp.std(y, axis=axes, keepdims=True)
    wide = spread(x_hat)
    factor = jnp.where(
      wide > 0, spread(given) / jnp.where(wide > 0, wide, 1.0), 1.0
    )
    phi = bcast(jnp.asarray(self.rescale, x_hat.dtype), x_hat)
    new = with_x(x_hat * (1.0 + phi * (factor - 1.0)), x_hat, eps_hat, lv)
    return tuple(y.astype(x_hat.dtype) for y in new)


def warn_if_negative(name, strength):
  """Says so where a setting of that name guides away from the condition."""
  if strength < 0:
    log.warning("%s = %g is below 0: away from the label", name, strength)


@wrapper
class Clipped(Wrapper):
  """Static thresholding: x̂ clipped to [-limit, limit], ε̂ to match.

  arXiv:2006.11239's clip, arXiv:2205.11487 §2.3. Goes around guidance.

  Equation (clipped) of docs/math.
  """

  predict: Any
  limit: Any = 1.0
  _allowed = {"limit": "> 0"}

  def __post_init__(self):
    as_floats(self, "limit")

  def at(self, row, z, cond=None):
    lv, inner = row
    x_hat, eps_hat = predictors.at(self.predict, inner, z, cond)
    return with_x(jnp.clip(x_hat, -self.limit, self.limit), x_hat, eps_hat, lv)


@wrapper
class DynamicallyClipped(Wrapper):
  """Dynamic thresholding, arXiv:2205.11487 §2.3: x̂ <- clip(x̂, -s, s) limit/s.

  s is the larger of limit and a sample's percentile of |x̂|.

  Equation (clipped) of docs/math.
  """

  predict: Any
  percentile: Any = 99.5
  limit: Any = 1.0
  _allowed = {"percentile": "in [0, 100]", "limit": "> 0"}

  def __post_init__(self):
    as_floats(self, "percentile", "limit")

  def at(self, row, z, cond=None):
    lv, inner = row
    x_hat, eps_hat = predictors.at(self.predict, inner, z, cond)
    size = jnp.abs(x_hat).reshape(x_hat.shape[0], -1)
    s = jnp.maximum(jnp.percentile(size, self.percentile, axis=1), self.limit)
    s = bcast(s, x_hat)
    return with_x(jnp.clip(x_hat, -s, s) * (self.limit / s), x_hat, eps_hat, lv)
