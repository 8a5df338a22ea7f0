"""Data: batch n is a pure function of (seed, n), so nothing need be resumed."""

from diffflow_jax.data.arrays import Arrays
from diffflow_jax.data.augmentation import augmented
from diffflow_jax.data.captions import captions, embed
from diffflow_jax.data.cifar import cifar10
from diffflow_jax.data.digits import digits, mnist_5k
from diffflow_jax.data.folder import folder
from diffflow_jax.data.gaussian_process import gaussian_process
from diffflow_jax.data.idx import fashion_mnist, mnist
from diffflow_jax.data.inspection import Inspection, inspect
from diffflow_jax.data.moving_square import moving_square
from diffflow_jax.data.numpy_files import arrays as numpy_arrays
from diffflow_jax.data.records import array_record, huggingface, tfds
from diffflow_jax.data.sources import Source
from diffflow_jax.data.splits import split
from diffflow_jax.data.styled_digits import styled_digits
from diffflow_jax.data.super_resolution import super_resolution
from diffflow_jax.data.synthetic import synthetic
from diffflow_jax.data.toys import Points, checkerboard, moons, ring

DATASETS = {
  "digits": digits,
  "mnist_5k": mnist_5k,
  "mnist": mnist,
  "fashion_mnist": fashion_mnist,
  "cifar10": cifar10,
  "arrays": numpy_arrays,
  "folder": folder,
  "array_record": array_record,
  "tfds": tfds,
  "huggingface": huggingface,
  "synthetic": synthetic,
  "moons": moons,
  "checkerboard": checkerboard,
  "ring": ring,
  "captions": captions,
  "styled_digits": styled_digits,
  "super_resolution": super_resolution,
  "gaussian_process": gaussian_process,
  "moving_square": moving_square,
}
__all__ = [
  "Arrays",
  "Inspection",
  "Points",
  "Source",
  "augmented",
  "inspect",
  "split",
  "DATASETS",
  "digits",
  "mnist_5k",
  "mnist",
  "fashion_mnist",
  "cifar10",
  "numpy_arrays",
  "folder",
  "array_record",
  "tfds",
  "huggingface",
  "synthetic",
  "moons",
  "checkerboard",
  "ring",
  "captions",
  "embed",
  "styled_digits",
  "super_resolution",
  "gaussian_process",
  "moving_square",
]
