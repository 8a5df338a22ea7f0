"""Image samples as one picture."""

import numpy as np


def image_grid(images, columns=None, pad=1):
  """Images (n, h, w, c) in [-1, 1] as one uint8 picture (H, W, c).

  Row by row, `columns` wide (about square if None), `pad` light pixels between.
  """
  images = np.asarray(images, np.float32)
  n, h, w, c = images.shape
  columns = columns or int(np.ceil(np.sqrt(n)))
  rows = -(-n // columns)
  grid = np.full((rows * columns, h + pad, w + pad, c), 255, np.uint8)
  scaled = np.clip((images + 1.0) * 127.5, 0, 255)
  grid[:n, :h, :w] = np.round(np.nan_to_num(scaled)).astype(np.uint8)
  grid = grid.reshape(rows, columns, h + pad, w + pad, c)
  picture = grid.transpose(0, 2, 1, 3, 4).reshape(
    rows * (h + pad), columns * (w + pad), c
  )
  return picture[: picture.shape[0] - pad, : picture.shape[1] - pad]


def save_images(path, images, columns=None, min_side=32):
  """Writes a grid of images as a PNG, small ones enlarged to be readable."""
  from PIL import Image  # comes with matplotlib

  picture = image_grid(images, columns)
  zoom = max(1, min_side // np.shape(images)[1])
  picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
  mode = picture[..., 0] if picture.shape[-1] == 1 else picture
  Image.fromarray(mode).save(path)
