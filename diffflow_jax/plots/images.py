"""Image samples as one picture."""

import numpy as np

from diffflow_jax.plots.class_grid import class_grid, to_pixels


def image_grid(images, columns=None, pad=1):
  """Images (n, h, w, c) in [-1, 1] as one uint8 picture (H, W, 1 or 3).

  Row by row, `columns` wide (about square if None), `pad` light pixels between.
  """
  cells = to_pixels(images)
  n, h, w, c = cells.shape
  columns = columns or int(np.ceil(np.sqrt(n)))
  rows = -(-n // columns)
  grid = np.full((rows * columns, h + pad, w + pad, c), 255, np.uint8)
  grid[:n, :h, :w] = cells
  grid = grid.reshape(rows, columns, h + pad, w + pad, c)
  picture = grid.transpose(0, 2, 1, 3, 4).reshape(
    rows * (h + pad), columns * (w + pad), c
  )
  return picture[: picture.shape[0] - pad, : picture.shape[1] - pad]


def save_images(path, images, labels=None, names=(), beside=None):
  """Writes `class_grid(images, labels, names, beside)` as a PNG."""
  from PIL import Image  # comes with matplotlib

  picture = class_grid(images, labels, names, beside)
  Image.fromarray(
    picture.squeeze(-1) if picture.shape[-1] == 1 else picture
  ).save(path)
