"""A folder of images, with a subfolder for each class or with none."""

import logging
import os

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.sources import Source

log = logging.getLogger("diffflow_jax")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
# pictures, too, that are not read, as not every Pillow does
OTHERS = (".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga", ".ppm", ".pgm")
JUNK = ("__MACOSX",)  # what archives leave behind; names that start with a dot


def folder(
  path, size, channels=3, undecodable="refuse", flip=False, resize="bicubic",
  fit="crop", background="white",
):  # fmt: skip
  """Images of any size, made square, their aspect kept, and resized.

  Hidden files and folders are left out, as .DS_Store, ._a.png and
  .ipynb_checkpoints, and so is __MACOSX. JPEGs are turned as their EXIF says.

  Args:
    path: images in it are unlabelled; images in its subfolders, or anywhere
      below them, are labelled 0, 1, … in the order of the subfolders' names.
    size: side of the result; channels: 1, 3, or 4 to keep transparency.
    undecodable: "refuse" or "skip" an image that cannot be decoded.
    flip: whether to flip images at random.
    resize: bicubic, lanczos, bilinear, hamming, box (antialiased) or nearest.
    fit: "crop" to the central square, or "pad" to a square on the background.
    background: colour of padding and of what is transparent.
  Raises:
    ValueError: no such folder, no images in it or in one of its subfolders,
      images both in it and in subfolders.
  """
  from PIL import Image  # comes with matplotlib

  path = checks.check_path(path, os.path.isdir)
  entries = [entry for entry in os.scandir(path) if not _is_junk(entry.name)]
  classes = sorted(e.name for e in entries if os.path.isdir(e.path))
  loose = sorted(
    e.name for e in entries if _is_image(e.name) and e.name not in classes
  )
  for name in classes:
    _check_no_loop(path, name)
  if classes and loose:
    raise ValueError(
      f"{path} holds images, as {loose[0]}, and folders, as {classes[0]}: "
      "either all images lie in a folder of their class or none does"
    )
  if classes:
    found = [_images_below(os.path.join(path, name)) for name in classes]
  else:
    found = [_images_below(path)]
  _warn_of_others(path)
  for name, images in zip(classes or [""], found, strict=True):
    if not images:
      where = os.path.normpath(os.path.join(path, name))
      raise ValueError(
        f"there are no images in {_shown(where)}: none of its files ends in "
        f"{', '.join(SUFFIXES)}"
      )
  paths = [image for images in found for image in images]
  for image in paths:
    if os.path.exists(image) and not os.path.isfile(image):
      raise ValueError(f"{_shown(image)} is no file")
  labels = np.repeat(np.arange(len(found)), [len(images) for images in found])

  def read(index):
    return Image.open(paths[index]), int(labels[index])

  return Source(
    num=len(paths),
    read=read,
    name=lambda index: _shown(paths[index]),
    size=size,
    channels=channels,
    num_classes=len(classes),
    undecodable=undecodable,
    flip=flip,
    resize=resize,
    fit=fit,
    background=background,
    labels=labels.astype(np.int32) if classes else None,
    class_names=tuple(map(_shown, classes)),
  )


def _check_no_loop(path, name):
  """Refuses a link back to the folder, whose images would get two labels."""
  top, real = os.path.realpath(path), os.path.realpath(os.path.join(path, name))
  if os.path.commonpath([top, real]) == real:
    raise ValueError(
      f"{os.path.join(path, name)} is a link to {real}, which holds {path}"
    )


def _shown(path):
  """A path on one line, whatever bytes its name is made of."""
  text = path.encode("utf-8", "backslashreplace").decode()
  return text.replace("\n", "\\n")


def _is_junk(name):
  return name.startswith(".") or name in JUNK


def _is_image(name):
  return name.lower().endswith(SUFFIXES)


def _warn_of_others(path):
  """Says which pictures in a folder are not read for their kind."""
  others = _images_below(path, OTHERS)
  if others:
    log.warning(
      "%d pictures of other kinds are left out, as %s: known are %s",
      len(others),
      _shown(others[0]),
      ", ".join(SUFFIXES),
    )


def _images_below(path, suffixes=SUFFIXES):
  """Paths of the images in a folder and below it, sorted."""
  found = []
  for where, folders, names in os.walk(path):
    folders[:] = [name for name in folders if not _is_junk(name)]
    found += [
      os.path.join(where, name)
      for name in names
      if name.lower().endswith(suffixes) and not _is_junk(name)
    ]
  return sorted(found)
