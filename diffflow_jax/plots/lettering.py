"""Words in a picture of pixels, by the letters that matplotlib brings along."""

import functools
import os

import numpy as np

SIZE, SPACING = 15, 3  # pixels
MAX_LETTERS = 28


@functools.cache
def _font():
  import matplotlib
  from PIL import ImageFont

  folder = os.path.join(matplotlib.get_data_path(), "fonts", "ttf")
  return ImageFont.truetype(os.path.join(folder, "DejaVuSans.ttf"), SIZE)


def draw(text):
  """Text as grey pixels (h, w), dark on light, each as small as it can be."""
  from PIL import Image, ImageDraw

  canvas = ImageDraw.Draw(Image.new("L", (1, 1)))
  how = dict(font=_font(), spacing=SPACING, align="center")
  left, top, right, bottom = canvas.multiline_textbbox((0, 0), text, **how)
  # from the line's top to its foot, that p and b stand on one line
  ascent, descent = _font().getmetrics()
  top, bottom = min(top, 0), max(bottom, ascent + descent)
  size = int(np.ceil(right - left)), int(np.ceil(bottom - top))
  image = Image.new("L", (max(size[0], 1), size[1]), 255)
  ImageDraw.Draw(image).multiline_text((-left, -top), text, fill=32, **how)
  return np.asarray(image)


def headings(texts, width):
  """Pictures of texts, each at most `width` pixels wide and all equally high.

  In lines where every word fits, else all of them upright, read from below.
  """
  texts = [_shortened(text) for text in texts]
  lines = [_in_lines(text, width) for text in texts]
  pictures = [draw(line) for line in lines]
  if any(p.shape[1] > width for p in pictures):
    pictures = [np.rot90(draw(text)) for text in texts]
  height = max(p.shape[0] for p in pictures)
  above = lambda p: ((height - p.shape[0], 0), (0, 0))
  return [np.pad(p, above(p), constant_values=255) for p in pictures]


def needed(texts):
  """Pixels of width that headings need to stand in lines; 0 for none."""
  words = [word for text in texts for word in _shortened(text).split(" ")]
  return max((draw(word).shape[1] for word in words), default=0)


def _shortened(text):
  text = " ".join(str(text).split())
  if len(text) > MAX_LETTERS:
    text = text[: MAX_LETTERS - 1].rstrip(" ,;") + "…"
  return text


def _in_lines(text, width):
  """Text broken at spaces where it would be wider."""
  lines = []
  for word in text.split(" "):
    longer = f"{lines[-1]} {word}" if lines else word
    if lines and _font().getlength(longer) <= width:
      lines[-1] = longer
    else:
      lines.append(word)
  return "\n".join(lines)
