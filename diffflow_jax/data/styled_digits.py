"""Digits told of by their label and by the style of their handwriting."""

import dataclasses

import numpy as np

from diffflow_jax.data.digits import digits

NAMES = ("ink", "slant")


def style(x):
  """(ink, slant) of images (num, h, w, 1), (num, 2).

  ink is the mean brightness, from 0 to 1 if x goes from -1 to 1; slant is the
  regression of columns on rows under the ink, in pixels a row, positive where
  the top leans to the right.
  """
  weight = np.clip((np.asarray(x, np.float64)[..., 0] + 1.0) / 2.0, 0.0, 1.0)
  total = weight.sum((1, 2)) + 1e-6
  row, column = np.indices(weight.shape[1:])
  mean = lambda a: (weight * a).sum((1, 2)) / total
  row_mean, column_mean = mean(row), mean(column)
  both = mean(row * column) - row_mean * column_mean
  spread = mean(row * row) - row_mean**2
  slant = -both / np.maximum(spread, 1e-3)
  return np.stack([weight.mean((1, 2)), slant], axis=1)


def standardised(styles):
  """Styles as the condition has them: of mean 0 and deviation 1 in training."""
  images = digits("train")
  real = style(np.asarray(images.to_float(images.x)))
  return ((styles - real.mean(0)) / real.std(0)).astype(np.float32)


def styled_digits(split="train"):
  """`digits` with their labels and `style`, the standardised (ink, slant)."""
  images = digits(split)
  own = standardised(style(np.asarray(images.to_float(images.x))))
  return dataclasses.replace(images, given={"style": own})
