"""Examples of any grid as flat pictures, and what they were drawn under.

(h, w, c)        as it is
(t, h, w, c)     frames, or a volume's slices, in a row
more axes        the middle of those before
"""

import numpy as np

from diffflow_jax.process import conditions as conditions_lib

MOST_FRAMES = 8  # of one example, spread evenly from the first to the last
GAP = 0.7  # between what belongs together: neither black (-1) nor white (1)


def flat(x):
  """Examples (n, ..., h, w, c) as pictures (n, H, W, c)."""
  x = np.asarray(x, np.float32)
  while x.ndim > 5:
    x = x[:, x.shape[1] // 2]
  if x.ndim == 4:
    return x
  num = min(MOST_FRAMES, x.shape[1])
  frames = x[:, np.linspace(0, x.shape[1] - 1, num).round().astype(int)]
  return in_a_row(np.moveaxis(frames, 1, 0))


def in_a_row(pictures, axis=2, gap=1):
  """Pictures (n, h, w, c) joined along an axis, with a light gap between."""
  parts = []
  for picture in pictures:
    room = [(0, 0)] * 4
    room[axis] = (gap if parts else 0, 0)
    parts.append(np.pad(picture, room, constant_values=GAP))
  return np.concatenate(parts, axis)


def told(conditions, cond, grid):
  """{name: (n, *grid, c)}: the images in a cond, each pixel a block of x's.

  Args:
    conditions: {name: Condition}; cond: of n examples, or None; grid: x's.
  Returns:
    Values are NaN where nothing is said; {} where no condition is an image.
  """
  images = {}
  for name, condition in conditions.items():
    if condition.kind == "image" and isinstance(cond, dict) and name in cond:
      entry = conditions_lib.as_given(condition, cond[name])
      value = np.array(entry.value, np.float32)
      value[~np.asarray(entry.mask)] = np.nan
      for axis, side in enumerate(grid, 1):
        value = value.repeat(side // value.shape[axis], axis)
      images[name] = value
  return images


def stack_axis(height, width):
  """Along which axis parts of one tile lie: beside each other, or below."""
  return 1 if width <= 2 * height else 0


def legend(names, axis):
  """What the parts of a tile are, in words."""
  return (" | " if axis else " above ").join(names)
