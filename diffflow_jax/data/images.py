"""From a picture of any kind to uint8 (size, size, channels).

    upright     turned as its EXIF orientation says
    8 bits      16-bit greys spread over their range, floats 0 … 1 too
    opaque      transparent parts on a background, or kept as a fourth channel
    square      cropped to the centre or padded, then resized with antialiasing

Hidden colours, those below a transparent pixel, never show.
"""

import numpy as np

from diffflow_jax.data import checks

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name of so many channels
KERNELS = ("bicubic", "lanczos", "bilinear", "hamming", "box", "nearest")
FITS = ("crop", "pad")
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


def check_options(size, channels, resize, fit, background):
  """Refuses what `to_square` cannot do, before any file is read.

  Raises:
    ValueError: one of them is none of the known.
  """
  from PIL import ImageColor  # comes with matplotlib

  checks.check_choice("channels", channels, MODES)
  checks.check_choice("resize", resize, KERNELS)
  checks.check_choice("fit", fit, FITS)
  if isinstance(size, bool) or not isinstance(size, int) or size < 1:
    raise ValueError(f"size must be an integer >= 1, not {size!r}")
  try:
    ImageColor.getrgb(background)
  except (ValueError, AttributeError, TypeError) as error:
    raise ValueError(
      f'background must be a colour, as "white" or "#ff8800", not '
      f"{background!r}"
    ) from error


def to_square(
  image, size, channels, resize="bicubic", fit="crop", background="white"
):
  """A picture as uint8 (size, size, channels), its aspect kept.

  Args:
    image: Pillow's, or an array (h, w) or (h, w, 1, 3 or 4) of uint8, or of
      uint16 without colours.
    resize: name of the kernel, Pillow's; all but nearest are antialiased.
    fit: "crop" keeps the central square, "pad" the whole picture on the
      background.
    background: colour of what is transparent or padded, where channels is 1 or
      3; with 4 padding is transparent.
  Raises:
    ValueError: numbers whose range does not say what white is; whatever a
      damaged file makes Pillow raise.
  """
  from PIL import Image, ImageOps

  if isinstance(image, np.ndarray):
    image = _of_array(image)
  # a JPEG decodes faster at a fraction of its size, still twice ours
  image.draft("RGB", (2 * size, 2 * size))
  image = eight_bits(ImageOps.exif_transpose(image))
  image = _in_mode(image, MODES[channels], background)
  kernel = Image.Resampling[resize.upper()]
  if fit == "pad":
    colour = (0, 0, 0, 0) if channels == 4 else background
    image = ImageOps.pad(image, (size, size), kernel, colour)
  else:
    image = ImageOps.fit(image, (size, size), kernel)
  x = np.asarray(image).reshape(size, size, channels)
  return _without_hidden(x) if channels == 4 else x


def _of_array(array):
  from PIL import Image

  array = array[..., 0] if array.shape[2:] == (1,) else array
  known = array.dtype == np.uint8 and array.shape[2:] in ((), (3,), (4,))
  if not (known or (array.dtype == np.uint16 and array.ndim == 2)):
    raise ValueError(
      "a picture must be uint8 (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), not "
      f"{array.dtype} of shape {array.shape}"
    )
  return Image.fromarray(array)


def eight_bits(image):
  """The picture with 8 bits a channel; colours and transparency stay.

  16-bit greys 0 … 65535 are spread over 0 … 255, and so are floats 0 … 1: no
  picture's own extremes are taken for black and white.

  Raises:
    ValueError: floats of another range, or integers of 32 bits.
  """
  from PIL import Image

  # Pillow gave mode I to 16-bit PNG and PPM before it had I;16
  wide = image.mode == "I" and image.format in ("PNG", "PPM")
  if image.mode in SIXTEEN_BITS or wide:
    grey = np.asarray(image).astype(np.float32) / 257.0
  elif image.mode in ("F", "I"):
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "I" or not (0.0 <= low and high <= 1.0):
      kind = "floats" if image.mode == "F" else "32-bit integers"
      raise ValueError(
        f"{kind} of {low:g} to {high:g} do not say what white is: save it with "
        "8 or 16 bits, or as floats 0 to 1"
      )
    grey = values * 255.0
  else:
    return image
  return Image.fromarray(np.round(grey).astype(np.uint8))


def _in_mode(image, mode, background):
  """Converted to a mode, what is transparent on the background."""
  from PIL import Image

  if mode == "RGBA":
    return image.convert("RGBA")
  if _is_transparent(image):
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, background)
    image = Image.alpha_composite(ground, image)
  return image.convert(mode)


def _is_transparent(image):
  """Whether any pixel may be: a channel of it, or a colour that means it."""
  return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (
    "transparency" in image.info
  )


def _without_hidden(x):
  """RGBA with black where nothing shows."""
  return np.where(x[..., 3:] == 0, np.uint8(0), x)
