"""A bright square that moves over a dark torus: the smallest video.

x (num, frames, side, side, 1) in {-1, 1}. With b the square's own DFT, a place
that is uniform on the torus and steps v of one pixel to the left or the right,

    E X_t(k) X_s(k)* = |2 b(k)|² E_v exp(-2πi k·v (t - s)/side)      k ≠ 0
"""

import numpy as np

from diffflow_jax.data.toys import Points
from diffflow_jax.process import ranges

COUNT = "an integer >= 1"
STEPS = np.array([(0, 1), (0, -1)])  # of rows and columns


@ranges.checked(frames=COUNT, side=COUNT, width=COUNT)
def moving_square(frames=4, side=8, width=3):
  """Videos of a square of width x width pixels that moves one pixel a frame.

  Raises:
    ValueError: a square that fills the side.
  """
  if width >= side:
    raise ValueError(f"width must be below the side of {side}, not {width}")

  def draw(rng, num):
    start = rng.integers(0, side, (num, 1, 2))
    step = STEPS[rng.integers(0, len(STEPS), num)][:, None]
    corner = start + step * np.arange(frames)[:, None]
    # (num, frames, axis, side): whether a row or a column meets the square
    inside = (np.arange(side) - corner[..., None]) % side < width
    both = inside[:, :, 0, :, None] & inside[:, :, 1, None, :]
    return 2.0 * both[..., None] - 1.0

  return Points(draw, shape=(frames, side, side, 1))
