"""Predictors: the one contract that samplers know.

    predict(z, lv, cond) -> (x̂, ε̂)

z is on the scale of the Level lv, whose fields are () or (batch,). Anything
that keeps this contract can be sampled: a network wrapped by `Predictor`, a
closed form, guidance around another predictor.

A predictor may also offer the same in two parts,

    row = predict.prepare(lv),    predict.at(row, z, cond) -> (x̂, ε̂)

the first of which looks at levels alone: a sampler calls it once, for all its
levels, on the host where they are known there. The leaves of a row have the
shape of the levels' fields.

A flow map, predict.destination = True, goes from lv to lv.to along the
probability-flow ODE, from s to t say, and predicts the pair of that whole step,

    alpha_s x̂ + sigma_s ε̂ = z        alpha_t x̂ + sigma_t ε̂ = z_t

for which DDIM's step is exact. At lv.to = lv.logsnr, or None, it is an ordinary
denoiser, if it was taught that (`ways`).
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import host, inputs, levels, nodes, targets, ways


def prepare(predict, lv):
  """What predict needs to know of levels: its own row, or the levels."""
  inputs.check_predict(predict)
  return predict.prepare(lv) if hasattr(predict, "prepare") else lv


def at(predict, row, z, cond=None):
  """predict(z, lv, cond), given what `prepare` made of lv."""
  in_parts = hasattr(predict, "prepare")
  return predict.at(row, z, cond) if in_parts else predict(z, row, cond)


def _row(destination, parts, lv):
  schedule, target, scale = parts
  # levels in float32 at least: a bf16 logsnr has lost its second decimal
  wide = jnp.promote_types(jnp.result_type(lv.logsnr), jnp.float32)
  lo, hi = schedule.logsnr(jnp.array([1.0, 0.0], wide))
  trained = lambda logsnr: jnp.clip(jnp.asarray(logsnr, wide), lo, hi)
  told = (trained(lv.logsnr),)
  if destination:
    told += told if lv.to is None else (trained(lv.to),)
  own = levels.at_logsnr(scale, told[0], schedule)
  moved = jnp.asarray(levels.rescale(lv, own), wide)
  return told, moved, *targets.solve(target, own)


@functools.lru_cache(maxsize=256)
def _known_row(destination, structure, leaves):
  numbers = [np.frombuffer(*leaf[:2]).reshape(leaf[2]) for leaf in leaves]
  row = functools.partial(_row, destination)
  return host.evaluate64(row, *structure.unflatten(numbers))


@struct.dataclass
class Predictor:
  """A trained network, callable from any schedule and any scale.

  Calls `apply(params, z, logsnr, cond)` with z moved to the scale it was
  trained on and logsnr of shape (batch,), clipped to the trained range (a level
  that the network never saw is replaced by the nearest one that it did):

      z_own = z rescale(lv, own),  ŷ = apply(z_own),  (x̂, ε̂) from ŷ's row

  x̂ and ε̂ do not depend on the scale, so they carry over unchanged. They are of
  z's dtype; levels and the conversion are of float32 or wider. At the exact
  ends of a schedule logsnr is -inf (pure noise) or inf (data), and the network
  is handed just that: it must map it to numbers, as `networks.logsnr_features`
  does.

  With destination it is a flow map: it calls apply(params, z, logsnr, cond, to)
  with to, (batch,) and in the trained range too, the log-SNR of the level that
  it goes to. ŷ is its row taken at the level it leaves from, and the pair is
  that of the whole step, by the same solution (module).

  Equation (solve) of docs/math.

  Raises:
    TypeError: apply is no function.
    ValueError: a target or a scale is a name, or reaches is unknown; when
      called, a flow map is to go where it was never taught to, or to leave from
      a level at which its target says nothing of x (`ways`).
  """

  params: Any
  schedule: Any
  apply: Callable = struct.field(pytree_node=False)
  target: Any
  scale: Any
  destination: bool = struct.field(pytree_node=False, default=False)
  reaches: str = struct.field(pytree_node=False, default="any")

  def __post_init__(self):
    inputs.check_apply(self.apply)
    ways.check_reaches(self.reaches)
    nodes.hold_nodes(self, "target", "scale")

  def __call__(self, z, lv, cond=None):
    inputs.check_level(lv)
    return self.at(self.prepare(lv), z, cond)

  def prepare(self, lv):
    """((logsnr, to), z_own's factor of z, the four of the target's solution).

    (logsnr,) alone is told what has no destination.
    """
    ways.check(self.reaches, lv, self.schedule)
    mine = self.schedule, self.target, self.scale
    leaves, structure = jax.tree.flatten((mine, lv))
    known = nodes.concrete(leaves)
    if not known or not all(isinstance(l, host.NUMBERS) for l in leaves):
      return _row(self.destination, mine, lv)
    arrays = map(np.asarray, leaves)
    row = _known_row(
      self.destination,
      structure,
      tuple((a.tobytes(), a.dtype, a.shape) for a in arrays),
    )
    if self.destination:
      ways.check_start(row[0], row[3])
    return row

  def at(self, row, z, cond=None):
    """(x̂, ε̂) of z at the level that row was prepared for."""
    inputs.check_data("z", z)
    inputs.check_labels(cond, z)
    z = jnp.asarray(z)  # NumPy's float64 is float32, unless JAX has the former
    wide = jnp.promote_types(z.dtype, jnp.float32)
    told, moved, *solution = jax.tree.map(lambda c: jnp.asarray(c, wide), row)
    z_own = levels.bcast(moved, z) * z
    logsnr, *to = (jnp.broadcast_to(c, z.shape[:1]) for c in told)
    y = self.apply(self.params, z_own.astype(z.dtype), logsnr, cond, *to)
    x_z, x_y, eps_z, eps_y = (levels.bcast(c, z) for c in solution)
    both = x_z * z_own + x_y * y, eps_z * z_own + eps_y * y
    return tuple(part.astype(z.dtype) for part in both)


@struct.dataclass
class PredictorOf:
  """The predictor of a plain function: see `predictor_of`."""

  fn: Any
  target: Any
  scale: Any
  destination: bool = struct.field(pytree_node=False, default=False)
  reaches: str = struct.field(pytree_node=False, default="any")

  def __post_init__(self):
    inputs.check_predict(self.fn)
    ways.check_reaches(self.reaches)
    nodes.hold_nodes(self, "fn", "target", "scale")

  def __call__(self, z, lv, cond=None):
    inputs.check_level(lv)
    inputs.check_data("z", z)
    ways.check(self.reaches, lv)
    z = jnp.asarray(z)
    wide = jnp.promote_types(z.dtype, jnp.float32)
    own = jax.tree.map(lambda c: jnp.asarray(c, wide), lv)
    to = (
      (own.logsnr if own.to is None else own.to) if self.destination else None
    )
    if self.scale is not None:
      own = levels.at_logsnr(self.scale, own.logsnr)
    own = own.replace(to=to)
    z_own = levels.bcast(levels.rescale(lv, own), z) * z
    each = jax.tree.map(lambda c: jnp.broadcast_to(c, z.shape[:1]), own)
    y = self.fn(z_own.astype(z.dtype), each, cond)
    if jnp.shape(y) != z.shape:
      raise ValueError(
        f"fn must return one array of z's shape {z.shape}, not {jnp.shape(y)}"
      )
    both = targets.to_x_eps(self.target, y, z_own, own)
    return tuple(part.astype(z.dtype) for part in both)


def predictor_of(
  fn, target=targets.x, scale=None, *, destination=False, reaches="any"
):
  """The predictor of a function of one's own, without an objective.

      predictor_of(lambda z, lv, cond: denoise(z, lv.sigma), scale=levels.ve)

  is that of EDM's or k-diffusion's D(z; sigma), and of a network eps(z, t) on
  the vp scale and a schedule's time

      predictor_of(lambda z, lv, cond: net(z, schedule.t(lv.logsnr)),
                   targets.eps, levels.vp)

  Args:
    fn: (z, lv, cond) -> the prediction, of z's shape; z is on `scale`, and lv a
      Level on it with logsnr, alpha and sigma (batch,) each. What fn holds is
      a constant of the program, but for the arguments of a
      jax.tree_util.Partial.
    target: the row that fn predicts.
    scale: that fn takes z on; None for the one that the caller's levels are on.
    destination: fn is a flow map to lv.to, a log-SNR (batch,), and predicts the
      row of the pair of that step (module); reaches: where it was taught to go,
      of `ways`.
  Raises:
    TypeError: fn is no function.
    ValueError: reaches is unknown; when called, it is to go where it was never
      taught to; what fn returns is not of z's shape.
  """
  return PredictorOf(fn, target, scale, destination, reaches)
