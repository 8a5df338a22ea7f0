"""MNIST and its relatives from IDX files, gzipped or not.

The format: two zero bytes, a type (8 is uint8), the number of dimensions, each
of them as a big-endian uint32, then the values.
"""

import gzip
import math
import os
import zlib

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays
from diffflow_jax.data.digits import DIGITS

# where Debian's package dataset-fashion-mnist puts it
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
GARMENTS = (
  "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt",
  "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PREFIXES = {"train": "train", "test": "t10k"}


def read_idx(path):
  """The uint8 array of an IDX file.

  Raises:
    ValueError: it is missing, not IDX of uint8, truncated, or too long.
  """
  checks.check_path(path)
  try:
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
      content = file.read()
  except (OSError, EOFError, zlib.error) as error:
    raise ValueError(f"{path} is damaged or truncated: {error}") from error
  if len(content) < 4 or content[:3] != b"\0\0\x08":
    raise ValueError(
      f"{path} is not an IDX file of bytes: it starts with "
      f"{content[:4].hex() or 'nothing'}, not 000008"
    )
  start = 4 + 4 * content[3]
  if len(content) < start:
    raise ValueError(f"{path} is damaged or truncated: its header is cut off")
  shape = np.frombuffer(content[4:start], ">u4").tolist()
  if len(content) - start != math.prod(shape):
    raise ValueError(
      f"{path} is damaged or truncated: {len(content) - start} bytes of data "
      f"for an array of shape {tuple(shape)}"
    )
  return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def mnist(path, split="train", flip=False, class_names=DIGITS):
  """Images (h, w, 1) and labels 0 … 9 from a folder with MNIST's file names.

  Args:
    path: folder of {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz].
    split: train or test; flip: whether to flip images at random.
    class_names: of the ten labels.
  Raises:
    ValueError: files missing or damaged, labels out of range.
  """
  checks.check_choice("split", split, PREFIXES)
  checks.check_path(path, os.path.isdir)
  images_path = _find(path, f"{PREFIXES[split]}-images-idx3-ubyte")
  labels_path = _find(path, f"{PREFIXES[split]}-labels-idx1-ubyte")
  x = read_idx(images_path)
  if x.ndim != 3 or not x.size:
    raise ValueError(f"{images_path} must hold images, not shape {x.shape}")
  labels = checks.check_labels(read_idx(labels_path), len(x), 10, labels_path)
  return Arrays(
    x[..., None],
    labels,
    10,
    max_value=255,
    flip=flip,
    layout="NHWC",
    class_names=class_names,
  )


def fashion_mnist(path=FASHION_MNIST, split="train", flip=False):
  """Fashion-MNIST, by default where `apt install dataset-fashion-mnist` has it.

  The same as `mnist` of another folder.
  """
  try:
    return mnist(path, split, flip, GARMENTS)
  except ValueError as error:
    if os.path.isdir(path):
      raise
    raise ValueError(
      f"{error} (on Debian: apt install dataset-fashion-mnist; elsewhere set "
      "path to a folder of its IDX files)"
    ) from error


def _find(folder, name):
  """The file, or the gzipped file, of a name."""
  path = os.path.join(folder, name)
  return path if os.path.exists(path) else path + ".gz"
