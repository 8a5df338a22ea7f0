"""A folder of images, with a subfolder for each class or with none."""

import os

from diffflow_jax.data import checks
from diffflow_jax.data.sources import Source

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def folder(path, size, channels=3, undecodable="refuse", flip=False):
  """Images of any size, cropped to their central square and resized.

  Args:
    path: images in it are unlabelled; images in its subfolders, or anywhere
      below them, are labelled 0, 1, … in the order of the subfolders' names.
    size: side of the result; channels: 1 or 3.
    undecodable: "refuse" or "skip" an image that cannot be decoded.
    flip: whether to flip images at random.
  Raises:
    ValueError: no such folder, no images in it or in one of its subfolders.
  """
  from PIL import Image  # comes with matplotlib

  path = checks.check_path(path, os.path.isdir)
  classes = sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
  if classes:
    found = [_images_below(os.path.join(path, name)) for name in classes]
  else:
    found = [_images_below(path)]
  for name, images in zip(classes or [""], found, strict=True):
    if not images:
      raise ValueError(f"there are no images in {os.path.join(path, name)}")
  paths = [image for images in found for image in images]
  labels = [label for label, images in enumerate(found) for _ in images]

  def read(index):
    return Image.open(paths[index]), labels[index]

  return Source(
    num=len(paths),
    read=read,
    name=paths.__getitem__,
    size=size,
    channels=channels,
    num_classes=len(classes),
    undecodable=undecodable,
    flip=flip,
  )


def _images_below(path):
  """Paths of the images in a folder and below it, sorted."""
  return sorted(
    os.path.join(where, name)
    for where, _, names in os.walk(path)
    for name in names
    if name.lower().endswith(SUFFIXES)
  )
