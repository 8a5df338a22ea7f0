"""Images that need no files: to try a config, and to measure speed."""

import numpy as np

from diffflow_jax.data.arrays import Arrays
from diffflow_jax.process import ranges

COUNT = "an integer >= 1"


@ranges.checked(side=COUNT, channels=COUNT, num_classes=COUNT, num=COUNT)
def synthetic(side=32, channels=3, num_classes=10, num=512):
  """Discs of a random size and place, whose colour is their class.

  uint8 (side, side, channels); labels 0 … num_classes - 1 in turn.

  Raises:
    ValueError: a number that is not at least 1.
  """
  rng = np.random.Generator(np.random.Philox(key=0))
  colours = rng.integers(64, 256, (num_classes, channels), dtype=np.uint8)
  labels = np.arange(num, dtype=np.int32) % num_classes
  centre = rng.uniform(0.25, 0.75, (num, 2, 1, 1)) * side
  radius = rng.uniform(0.1, 0.25, (num, 1, 1)) * side
  distance = np.hypot(
    *(np.indices((side, side))[:, None] - centre.swapaxes(0, 1))
  )
  inside = (distance < radius)[..., None]
  x = np.where(inside, colours[labels][:, None, None], np.uint8(16))
  return Arrays(x, labels, num_classes, max_value=255)
