"""What an array of examples is: its axes, its type, the range of its numbers.

Everything here is decided when a data set is made, in one sentence each, and
looks at a bounded number of examples.
"""

import math

import numpy as np

from diffflow_jax.data import checks

LAYOUTS = (
  "NHWC", "NCHW", "NHW", "NC", "NLC", "NCL", "NTHWC", "NCTHW", "NTCHW",
)  # fmt: skip
# what `as_examples` gives
PLAIN = {2: "NC", 3: "NLC", 4: "NHWC", 5: "NTHWC"}
MOST_CHANNELS = 4  # an axis no longer than that is one of channels
MOST_LOOKED_AT = 256
FAR = 4.0  # numbers that a recipe expects are mostly within ±1, never beyond
FEW = 1e-3  # the share beyond it that tails of a normal law have, and more


def spread_rows(num, most):
  """At most that many indices below num, spread evenly."""
  return np.unique(np.linspace(0, num - 1, min(num, most)).astype(np.int64))


def as_examples(x, layout=None):
  """An array as (num, ..., channels), a view where that can be.

  Args:
    x: anything NumPy takes; memory-mapped arrays stay mapped.
    layout: what its axes are, one of LAYOUTS; None where the shape says it:
      (n, h, w, c), (n, h, w) of integers or square, (n, c).
  Raises:
    ValueError: no numbers, no examples, or axes that could be either.
  """
  if isinstance(x, np.ma.MaskedArray):
    raise ValueError("x is a masked array: fill it, as x.filled(0), or drop it")
  try:
    x = x if isinstance(x, np.ndarray) else np.asarray(x)
  except (ValueError, TypeError, RuntimeError) as error:
    reason = str(error).splitlines()[0]  # rows of different lengths, torch's
    raise ValueError(f"x is no array: {reason}") from error
  is_known = x.dtype.kind in "biu" or checks.is_float(x.dtype)
  if not is_known:
    what = f"{x.dtype}"
    what = "records with fields" if x.dtype.names else what
    if x.dtype == np.object_:
      rows = "objects, as rows of different shapes"
      what = rows if x.ndim else f"a {type(x.item()).__name__}"
    raise ValueError(f"x must hold integers or floats, not {what}")
  if x.ndim < 2:
    raise ValueError(
      f"x must be (num, ...), one row an example, not of shape {x.shape}"
      + (": give x[:, None]" if x.ndim == 1 and x.size else "")
    )
  if not x.size:
    raise ValueError(f"x has no examples: its shape is {x.shape}")
  if layout is None:
    return _by_shape(x)
  checks.check_choice("layout", layout, LAYOUTS)
  if len(layout) != x.ndim:
    raise ValueError(f"layout {layout!r} does not fit x of shape {x.shape}")
  if layout == "NHW":
    return x[..., None]
  return np.moveaxis(x, layout.index("C"), -1)


def _by_shape(x):
  """x with its channels last, or the question which axis they are."""
  if x.ndim == 3:
    if x.dtype.kind in "biu" or x.shape[1] == x.shape[2]:
      return x[..., None]
    raise ValueError(
      f'x of shape {x.shape} may be images or series: say layout="NHW" '
      '(images of one channel), "NLC" or "NCL" (series)'
    )
  if x.ndim in (4, 5) and looks_channels_first(x.shape[1:]):
    first = '"NCHW"' if x.ndim == 4 else '"NCTHW" or "NTCHW"'
    raise ValueError(
      f"x of shape {x.shape} looks as if channels came first: say "
      f'layout={first}, or "{PLAIN[x.ndim]}" if they do come last'
    )
  return x


def looks_channels_first(shape):
  """Whether a shape is rather (channels, h, w) than (h, w, channels).

  Of four axes, rather (channels, t, h, w) or (t, channels, h, w) than
  (t, h, w, channels), where t may be a depth.
  """
  if len(shape) == 4:
    t, a, b, c = shape
    cube = t <= MOST_CHANNELS and a == b == c
    return c > MOST_CHANNELS and (cube or min(t, a) <= MOST_CHANNELS < b != a)
  a, b, c = shape
  few = a <= MOST_CHANNELS < min(b, c)
  return few or (b == c > a and c > MOST_CHANNELS)


def largest_integer(dtype, max_value):
  """The integer that means 1.0, or None for floats.

  Raises:
    ValueError: an integer type whose largest number says nothing, or a
      max_value that floats have not.
  """
  if checks.is_float(dtype):
    if max_value is not None:
      raise ValueError(
        f"max_value = {max_value} is for integers; for floats give range=(low, "
        "high)"
      )
    return None
  if max_value is None:
    if dtype == np.uint8:
      return 255
    if dtype == np.bool_:
      return 1
    raise ValueError(
      f"x holds {dtype}: say max_value, the integer that means white, or give "
      "floats"
    )
  if not (_is_number(max_value) and max_value > 0):
    raise ValueError(f"max_value must be above 0, not {max_value!r}")
  return max_value


def check_range(x):
  """Refuses floats that are far from what any recipe expects.

  Raises:
    ValueError: more than a thousandth of them is beyond ±4.
  """
  some = np.asarray(x[spread_rows(len(x), MOST_LOOKED_AT)])
  wide = np.float64 if some.dtype.itemsize > 4 else np.float32
  some = some.astype(wide)  # 1e300 is a number here, and infinite to a network
  some = some[np.isfinite(some)]
  if some.size and np.mean(np.abs(some) > FAR) > FEW:
    low, high = some.min(), some.max()
    raise ValueError(
      f"x holds floats of {low:g} to {high:g}, but noise has variance 1: say "
      "range=(low, high), what becomes -1 and 1, or scale=, a factor (1 to "
      "train on them as they are)"
    )


def check_scaling(dtype, scale, range):
  """Refuses a scale or a range that cannot be, or two of them.

  Raises:
    ValueError: as that.
  """
  if range is not None:
    low_high = tuple(range) if np.iterable(range) else ()
    if len(low_high) != 2 or not all(map(_is_number, low_high)):
      raise ValueError(f"range must be (low, high), not {range!r}")
    if not low_high[0] < low_high[1]:
      raise ValueError(f"range must be (low, high), low < high, not {range!r}")
    if scale is not None:
      raise ValueError("give scale or range, not both")
  if scale is not None and (not _is_number(scale) or scale == 0.0):
    raise ValueError(f"scale must be finite and not 0, not {scale!r}")
  if not checks.is_float(dtype) and (scale, range) != (None, None):
    name = "range" if scale is None else "scale"
    raise ValueError(f"{name} is for floats; {dtype} has max_value")


def _is_number(value):
  """Whether it is a finite number, and no bool."""
  try:
    return not isinstance(value, bool) and math.isfinite(value)
  except TypeError:  # a text, a list
    return False
