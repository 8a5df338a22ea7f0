"""CIFAR-10 from its own binary files."""

import os

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays

FILES = {
  "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
  "test": ["test_batch.bin"],
}
CLASSES = (
  "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse",
  "ship", "truck",
)  # fmt: skip
RECORD = 1 + 3 * 32 * 32  # a label, then red, green and blue, row by row


def cifar10(path, split="train", flip=False):
  """Images (32, 32, 3) and labels 0 … 9 of "CIFAR-10 binary version".

  Args:
    path: the folder cifar-10-batches-bin; split: train or test.
    flip: whether to flip images at random.
  Raises:
    ValueError: files missing or truncated, labels out of range.
  """
  checks.check_choice("split", split, FILES)
  checks.check_path(path, os.path.isdir)
  paths = [os.path.join(path, name) for name in FILES[split]]
  parts = [_records(path) for path in paths]
  for name, part in zip(paths, parts, strict=True):
    if len(part) != len(parts[0]):
      raise ValueError(
        f"{name} is truncated: it holds {len(part)} images, "
        f"{paths[0]} {len(parts[0])}"
      )
    checks.check_labels(part[:, 0], len(part), 10, name)
  records = np.concatenate(parts)
  x = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
  return Arrays(
    np.ascontiguousarray(x),
    records[:, 0].astype(np.int32),
    10,
    max_value=255,
    flip=flip,
    class_names=CLASSES,
  )


def _records(path):
  """The bytes of a file, (num, RECORD)."""
  content = np.fromfile(checks.check_path(path), np.uint8)
  if not content.size or content.size % RECORD:
    raise ValueError(
      f"{path} is truncated: {content.size} bytes are not a number of "
      f"records of {RECORD} bytes"
    )
  return content.reshape(-1, RECORD)
