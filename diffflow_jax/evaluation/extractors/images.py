"""What goes into a network that judges images: bytes, as they would be saved.

    uint8     ⌊clip(127.5 x + 128, 0, 255)⌋ of x in [-1, 1]                (1)

StyleGAN3's, EDM's and EDM2's rule, 127.5 (x + 1) rounded; ADM's evaluator
truncates, half a level darker.
"""

import jax.numpy as jnp
import numpy as np

CHANNELS = (1, 3)


def are_images(shape):
  """Whether examples of a shape are pictures, grey or of colours.

  Four channels may be transparency or latents, which have no bytes.
  """
  return len(shape) == 3 and shape[-1] in CHANNELS


def check_pixels(images):
  """Refuses an array that is neither uint8 nor floats in about [-1, 1].

  Raises:
    TypeError: integers of another kind, or no numbers.
    ValueError: NaN, or floats that look like 0 to 255.
  """
  if images.dtype == np.uint8:
    return
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(
      f"images must be uint8, or floats in [-1, 1], not {images.dtype}"
    )
  low, high = (float(f(initial=0.0)) for f in (images.min, images.max))
  if not np.isfinite(low + high):
    raise ValueError("images must be finite, and hold NaN or infinite pixels")
  if low >= 0 and high > 2:  # a sampler's, however far astray, go both ways
    raise ValueError(
      f"images must be uint8, or floats in [-1, 1], but go from {low:g} to "
      f"{high:g}"
    )


def to_bytes(images):
  """uint8 images of floats in [-1, 1], by eq. (1); bytes stay as they are.

  Raises:
    TypeError, ValueError: as `check_pixels`.
  """
  images = np.asarray(images)
  check_pixels(images)
  if images.dtype == np.uint8:
    return images
  images = 127.5 * images.astype(np.float32) + 128.0
  return np.clip(images, 0.0, 255.0).astype(np.uint8)


def check_images(images):
  """Refuses what is no set of pictures.

  Raises:
    ValueError: other than (num, height, width, 1 or 3), or nothing in it.
  """
  shape = np.shape(images)
  if len(shape) != 4 or shape[-1] not in CHANNELS or 0 in shape:
    raise ValueError(
      "images must be (num, height, width, channels) of 1 or 3 channels, not "
      f"of shape {shape}"
    )


def colours(images):
  """uint8 (n, h, w, 3) of images of one channel or three."""
  check_images(images)
  images = to_bytes(images)
  return np.broadcast_to(images, (*images.shape[:3], 3))
