"""Checks of what a caller gives, each one sentence; traced values pass.

A check looks at values on the host, where tables are made: nothing of it is in
a compiled program.
"""

import numbers

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import host, levels as levels_lib
from diffflow_jax.process.names import check_classes

MOST_APART = 2.0  # the spread of an initial state and that of its level
ENOUGH = 64  # numbers: their spread is then known far better than that
NOISE = 10.0  # sigma/alpha from which on a state is its noise


def is_traced(tree):
  """Whether any leaf is a tracer, so that its values cannot be looked at."""
  return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def number(name, value, allowed, accept):
  """Refuses a value that is not one number, or that accept(value) denies."""
  if is_traced(value):
    return
  if np.ndim(value) or np.asarray(value).dtype.kind not in "fiu":
    raise ValueError(f"{name} must be one number, {allowed}, not {value!r}")
  if not accept(float(value)):
    raise ValueError(f"{name} must be {allowed}, not {value}")


def integer(name, value, least):
  """Refuses what is no integer >= least; 3.0 and True are none."""
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not (whole and value >= least):
    raise ValueError(f"{name} must be an integer >= {least}, not {value!r}")


def is_real(dtype):
  """Whether a dtype holds real numbers, bfloat16 too, and no complex ones."""
  kinds = jnp.floating, jnp.integer
  known = not isinstance(dtype, str)
  return known and any(jnp.issubdtype(dtype, kind) for kind in kinds)


def flag(name, value):
  """Refuses what is neither True nor False, as the text of a flag."""
  if not isinstance(value, bool | np.bool_):
    raise ValueError(f"{name} must be True or False, not {value!r}")


def order(value, most=3):
  """Refuses an order of a multistep method other than 1 … most."""
  known = range(1, most + 1)
  if type(value) is not int or value not in known:
    raise ValueError(
      f"order must be one of {', '.join(map(str, known))}, not {value!r}"
    )


def in_line(values):
  """An array (N+1,), on the host unless it is a JAX value already."""
  if not isinstance(values, jax.Array):
    values = np.asarray(values, np.float64)
  if values.ndim != 1 or len(values) < 2:
    raise ValueError(
      "a grid needs two levels or more in one dimension, "
      f"not shape {values.shape}"
    )
  return values


def each(name, values, allowed, accept):
  """Refuses a grid with a value, NaN too, that accept(value) denies."""
  for i, value in enumerate([] if is_traced(values) else np.asarray(values)):
    if not accept(value):
      raise ValueError(
        f"level {i} of the grid has {name} = {value:g}, not {allowed}"
      )


def grid(levels, backwards=False):
  """Returns a grid that can be stepped through, or says what is wrong with it.

  Args:
    levels: Level with fields (N+1,), N >= 1.
    backwards: a grid from data to noise, for encoding, is one as well.
  Raises:
    ValueError: no Level, fewer than two levels, NaN, a level that its scale
      cannot hold, or logsnr not increasing.
  """
  if not hasattr(levels, "logsnr"):
    raise ValueError(
      "a grid is a Level with fields (N+1,), as grids.from_logsnr makes it of "
      f"an array, not {type(levels).__name__}"
    )
  if jnp.ndim(levels.logsnr) != 1 or len(levels.logsnr) < 2:
    raise ValueError(
      "a grid needs two levels or more in one dimension, "
      f"not shape {jnp.shape(levels.logsnr)}"
    )
  if is_traced(levels):
    return levels
  logsnr, alpha, sigma = (
    np.asarray(f) for f in (levels.logsnr, levels.alpha, levels.sigma)
  )
  if np.isnan(logsnr).any():
    raise ValueError(
      f"level {int(np.isnan(logsnr).argmax())} of the grid is NaN"
    )
  lost = ~(np.isfinite(alpha) & np.isfinite(sigma))
  if lost.any():
    i = int(lost.argmax())
    raise ValueError(
      f"level {i} of the grid has alpha = {alpha[i]:g}, sigma = {sigma[i]:g}: "
      f"its scale has no logsnr of {logsnr[i]:g}"
    )
  levels_lib.check(levels)
  if backwards and logsnr[0] > logsnr[-1]:
    logsnr = logsnr[::-1]
  stuck = ~(logsnr[1:] > logsnr[:-1])
  if stuck.any():
    i = int(stuck.argmax())
    raise ValueError(
      "a grid goes from noise to data, with logsnr increasing: level "
      f"{i} has {logsnr[i]:g} and level {i + 1} has {logsnr[i + 1]:g}"
    )
  return levels


def on_scale(levels, scale):
  """Refuses a grid whose alpha and sigma are not those of the scale."""
  if is_traced(levels):
    return
  alpha, sigma = (np.asarray(c) for c in (levels.alpha, levels.sigma))
  own = host.evaluate64(lambda a, s: scale(a, s), alpha, sigma)
  if not np.allclose(own, (alpha, sigma), rtol=1e-5, atol=0.0):
    raise ValueError(
      "the grid is on another scale than the one given: scale must be that of "
      f"the grid, whose first level has alpha = {alpha[0]:g} and sigma = "
      f"{sigma[0]:g}"
    )


def shape_of(shape):
  """Refuses a shape of samples with a side that is no integer >= 1."""
  for side in shape:
    integer("each side of shape", side, 1)


def start(table, shape, z):
  """(z or None, the samples' shape), each from the other where it can be."""
  if z is None:
    if getattr(shape, "ndim", 0):
      raise ValueError(
        f"shape is an array of shape {shape.shape}: give z=, to start from it"
      )
    if not isinstance(shape, tuple | list) or not shape:
      raise ValueError(
        "shape must be (num_samples, ...), or z given to start from, "
        f"not {shape!r}"
      )
    shape_of(shape)
    sigma = table.start.sigma
    if not is_traced(sigma) and sigma == 0.0:
      raise ValueError("the tableau starts at data, sigma = 0: z must be given")
    return None, tuple(shape)
  if not isinstance(z, jax.Array):  # NumPy's go to the device with the call
    z = np.asarray(z, jnp.result_type(np.asarray(z)))
  if not jnp.issubdtype(z.dtype, jnp.floating):
    raise ValueError(f"z must be floats, not {z.dtype}")
  if shape is not None and z.shape != tuple(shape):
    raise ValueError(f"z has shape {z.shape}, but shape is {tuple(shape)}")
  _spread(z, table.start)
  return z, z.shape


def _spread(z, level):
  """Refuses a state that is not of the level it is said to start at.

  At noise its spread is sigma, and at no level is it less: z = alpha x + sigma
  eps. Above it depends on the data.
  """
  if is_traced((z, level)) or z.size < ENOUGH:
    return
  if not getattr(z, "is_fully_addressable", True):  # NumPy's are
    return
  alpha, sigma = float(level.alpha), float(level.sigma)
  spread = float(jnp.sqrt(jnp.mean(jnp.square(z.astype(jnp.float32)))))
  too_wide = spread > MOST_APART * sigma and sigma > NOISE * alpha
  if spread < sigma / MOST_APART or too_wide:
    raise ValueError(
      f"z has a spread of {spread:.3g}, but the grid starts at sigma = "
      f"{sigma:.3g}: give {sigma:.3g} * normal noise, or leave z out and give "
      "shape"
    )


def innermost(predict):
  """What is under guidance, thresholding and other wrappers of predict."""
  while hasattr(predict, "predict"):
    predict = predict.predict
  return predict


def destination(predict, levels):
  """Refuses a flow map's table for a predictor that is none.

  Args:
    levels: of a table's evaluations; to is None where no flow map is needed.
  """
  if levels.to is None or getattr(innermost(predict), "destination", False):
    return
  raise ValueError(
    "the tableau is a flow map's, as solvers.flow_map makes it, and predict is "
    "not told where it goes: take another solver, as solvers.ddim, or a "
    "predictor with destination=True"
  )


def labels(predict, cond):
  """Refuses known labels that the network under predict has no class for."""
  predict = innermost(predict)
  network = getattr(getattr(predict, "apply", None), "__self__", None)
  num_classes = getattr(network, "num_classes", None)
  if isinstance(cond, dict):
    cond = cond.get("label")
  if num_classes is not None:
    check_classes(cond, num_classes)


def key(table, given, z):
  """Refuses what is no PRNG key, and None where something is drawn."""
  if given is None:
    quiet = not is_traced(table.mix) and not table.mix[..., -1].any()
    if z is None or not quiet:
      raise ValueError("key is None, but noise is drawn: give a PRNG key")
  elif not isinstance(given, jax.Array | np.ndarray):
    raise ValueError(
      f"key must be a PRNG key, as jax.random.key(0), not {given}"
    )


def noise(table, given, z, key, brownian):
  """Refuses draws that are not one for each row, or beside another source."""
  if given is None:
    return
  if z is None or key is not None or brownian is not None:
    raise ValueError(
      "noise takes the place of key and brownian, and needs z to start from"
    )
  wanted = (table.mix.shape[0], *z.shape)
  kind = getattr(given, "dtype", type(given).__name__)
  if not is_real(kind):
    raise ValueError(f"noise must be an array of real numbers, not {kind}")
  if given.shape != wanted:
    raise ValueError(
      "noise must have one draw for each row of the tableau, shape "
      f"{wanted}, not {given.shape}"
    )


def prediction(out, z):
  """Returns what predict returned, or says that it is no pair of z's shape."""
  shapes = [jnp.shape(y) for y in out] if isinstance(out, tuple | list) else []
  if shapes != [z.shape, z.shape]:
    got = f"shapes {shapes}" if shapes else type(out).__name__
    raise ValueError(
      f"predict must return (x̂, ε̂), each of shape {z.shape}, not {got}"
    )
  return out


def numbers_at_pure_noise(predict, table, out, z, cond):
  """Refuses samples that are NaN because predict is, at alpha = 0 alone."""
  if is_traced((out, table)) or not out.is_fully_addressable:
    return
  # on the host: a look at the samples is no program of its own
  if not np.isneginf(table.levels.logsnr[0]) or not np.isnan(out).any():
    return
  first = jax.tree.map(jnp.asarray, table.levels[0])
  near = first.replace(logsnr=-30.0, alpha=first.sigma * np.exp(-15.0))
  lost = lambda lv: bool(jnp.isnan(predict(z, lv, cond)[1]).any())
  if lost(first) and not lost(near):
    raise ValueError(
      "the samples are NaN, because predict is NaN at pure noise, logsnr = "
      "-inf: its network must map -inf to numbers, as networks.logsnr_features "
      "and jnp.tanh do, or the grid must start at a finite logsnr"
    )


def no_noise_backwards(levels, noisy):
  """Refuses noise on a concrete grid from data to noise.

  Raises:
    ValueError: noisy, and the grid's logsnr falls; or it is no grid.
  """
  grid(levels, backwards=True)
  if is_traced((levels, noisy)):
    return
  if np.any(noisy) and levels.logsnr[0] > levels.logsnr[-1]:
    raise ValueError(
      "a grid from data to noise takes no noise: use eta = 0, or a "
      "deterministic solver"
    )
