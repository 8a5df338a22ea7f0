"""scikit-learn's handwritten digits: 1797 real 8x8 images, no download."""

import numpy as np

from diffflow_jax.data.arrays import Arrays

SPLITS = ("train", "test", "all")


def digits(split="train"):
  """8x8x1 images with values 0 … 16 and labels 0 … 9.

  Every fifth example of a fixed shuffle is held out: 1438 train, 359 test.

  Raises:
    ValueError: unknown split.
  """
  from sklearn import datasets  # slow to import, and only needed here

  if split not in SPLITS:
    raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
  raw = datasets.load_digits()
  order = np.random.Generator(np.random.Philox(key=0)).permutation(1797)
  held_out = np.arange(1797) % 5 == 4
  keep = {"train": ~held_out, "test": held_out, "all": held_out | ~held_out}
  index = order[keep[split]]
  return Arrays(
    x=raw.images[index].astype(np.uint8)[..., None],
    labels=raw.target[index].astype(np.int32),
    num_classes=10,
    max_value=16,
  )
