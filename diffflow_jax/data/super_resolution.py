"""Images told of by a smaller version of themselves."""

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays
from diffflow_jax.data.digits import digits, mnist_5k
from diffflow_jax.data.idx import fashion_mnist

OF = {"fashion_mnist": fashion_mnist, "mnist_5k": mnist_5k, "digits": digits}


def smaller(x, factor):
  """Means of squares of factor x factor pixels: (num, h/f, w/f, c)."""
  num, h, w, c = x.shape
  return x.reshape(num, h // factor, factor, w // factor, factor, c).mean(
    (2, 4)
  )


def super_resolution(of="fashion_mnist", factor=4, split="train", **settings):
  """Images of a data set, without labels, and `low`: `smaller` versions.

  Args:
    of: fashion_mnist, mnist_5k or digits; settings: its own, as path.
  Raises:
    ValueError: an unknown data set, or a factor that does not divide the sides.
  """
  checks.check_choice("of", of, OF)
  images = OF[of](split=split, **settings)
  if factor < 2 or any(side % factor for side in images.shape[:2]):
    raise ValueError(
      f"factor must divide the sides {images.shape[:2]}, not {factor!r}"
    )
  low = smaller(images.x.astype(np.float32), factor)
  low = low * (2.0 / images.max_value) - 1.0
  return Arrays(
    images.x, max_value=images.max_value, given={"low": low.astype(np.float32)}
  )
