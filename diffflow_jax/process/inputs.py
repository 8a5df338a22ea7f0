"""What public functions refuse in the place of what they are called with."""

import jax
import jax.numpy as jnp
import numpy as np


def check_level(lv):
  """Refuses what is no Level in the place of one.

  Raises:
    TypeError: it has no logsnr, alpha and sigma.
  """
  if not all(hasattr(lv, name) for name in ("logsnr", "alpha", "sigma")):
    raise TypeError(
      "a noise level must be a Level, as levels.level(schedule, scale, t) or "
      f"levels.at_logsnr(scale, logsnr) is, not {lv!r}"
    )


def check_clock(schedule, scale):
  """Refuses names, and recipes, in the place of a schedule and a scale.

  Raises:
    TypeError: the schedule has no pair, or the scale is no function.
  """
  if not hasattr(schedule, "pair"):
    raise TypeError(
      "a schedule must be one, as schedules.Cosine() or schedules.make('flow') "
      f"is, not {schedule!r:.80}"
    )
  check_scale(scale)


def check_scale(scale):
  """Refuses what is no scale, as `check_clock` does."""
  if not callable(scale):
    raise TypeError(
      "a scale must be a function (a, s) -> (alpha, sigma), as levels.vp or "
      f"levels.make('linear') is, not {scale!r:.80}"
    )


def check_key(key):
  """Refuses what is no PRNG key.

  Raises:
    TypeError: it is no array.
  """
  if not isinstance(key, jax.Array | np.ndarray):
    raise TypeError(
      f"key must be a PRNG key, as jax.random.key(0), not {key!r:.40}"
    )


def check_data(name, x):
  """Refuses what is no batch of floats.

  Raises:
    TypeError: no array, or one of integers.
    ValueError: no example in it.
  """
  if not hasattr(x, "dtype"):
    raise TypeError(f"{name} must be an array, not {type(x).__name__}")
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise TypeError(f"{name} must be floats, not {x.dtype}")
  if not jnp.ndim(x) or not x.shape[0]:
    raise ValueError(f"{name} must be a batch (num, ...), not shape {x.shape}")


def check_labels(cond, z):
  """Refuses labels that are not one for each example.

  Raises:
    ValueError: it says how many there are of each.
  """
  label = cond.get("label") if isinstance(cond, dict) else cond
  if not hasattr(label, "dtype") or not jnp.issubdtype(
    label.dtype, jnp.integer
  ):
    return
  if jnp.ndim(label) == 1 and label.shape != z.shape[:1]:
    raise ValueError(
      f"labels must be one for each example, {z.shape[0]}, not {len(label)}"
    )


def check_apply(apply):
  """Refuses a module, or anything else, in the place of its function.

  Raises:
    TypeError: apply is no function, or is what has one.
  """
  if not callable(apply) or hasattr(apply, "apply"):
    raise TypeError(
      "a network must be given as its function (params, z, logsnr, cond) -> "
      f"output, as network.apply, not {_kind(apply)}"
    )


def check_predict(predict):
  """Refuses what cannot be called.

  Raises:
    TypeError: it says what was given.
  """
  if not callable(predict):
    better = ": take its predict" if hasattr(predict, "predict") else ""
    raise TypeError(f"predict must be callable, not {_kind(predict)}{better}")


def _kind(value):
  return type(value).__name__
