"""EDM's non-leaking augmentation: images are transformed, and the network told.

Karras et al., arXiv:2206.00364 app. F.2, Table 6. Each row is drawn for itself
with the given probability, the x-flip for every image, in this order:

    transform     drawn                            it is told
    x-flip        a0 of {0, 1}                     a0
    y-flip        a1 of {0, 1}                     a1
    scaling       a2 ~ N(0, 1), by 2^(a2/5)        a2
    rotation      a3 ~ U(-π, π)                    cos a3 - 1, sin a3
    anisotropy    a4 ~ U(-π, π), a5 ~ N(0, 1)      a5 cos a4, a5 sin a4
    translation   a6, a7 ~ N(0, 1), by a6 W/8      a6, a7
                  and a7 H/8

The label is all zeros where nothing was done, and that is what samples are
drawn under: they are not transformed, though the data were. What is not drawn
leaves a_i at 0.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import ranges
from diffflow_jax.process.conditions import AUGMENTATION, Condition, of

NUM_LABELS = 9
GROWTH = 2.0**0.2  # A_scale and A_aniso of Table 6
SHIFT = 1.0 / 8.0  # A_trans, of the image's sides


def draw(key, num, probability):
  """a_0 … a_7 of num images, (num, 8)."""
  on_key, coin_key, angle_key, normal_key = jax.random.split(key, 4)
  rates = jnp.array([1.0] + [probability] * 5)
  on = jax.random.bernoulli(on_key, rates, (num, 6))
  coin = jax.random.bernoulli(coin_key, 0.5, (num, 2))
  angle = jax.random.uniform(
    angle_key, (num, 2), minval=-math.pi, maxval=math.pi
  )
  normal = jax.random.normal(normal_key, (num, 4))
  drawn = jnp.stack(
    [
      *coin.T,
      normal[:, 0],
      *angle.T,
      normal[:, 1],
      *normal[:, 2:].T,
    ],
    axis=1,
  )
  row = np.array([0, 1, 2, 3, 4, 4, 5, 5])  # of the table, for each a_i
  return jnp.where(on[:, row], drawn, 0.0)


def label(a):
  """What the network is told of a (num, 8): (num, 9), 0 where a is 0."""
  a0, a1, a2, a3, a4, a5, a6, a7 = a.T
  turned = jnp.cos(a3) - 1.0, jnp.sin(a3)
  stretched = a5 * jnp.cos(a4), a5 * jnp.sin(a4)
  return jnp.stack([a0, a1, a2, *turned, *stretched, a6, a7], axis=1)


def warp(x, a):
  """Images (num, h, w, c) transformed as a (num, 8) says.

  Values between the pixels are cubic (Keys, 1981, slope -1/2), beyond the edge
  those of the image reflected at the middle of its last pixels. Flips, and
  translations by whole pixels, are exact; there is no low-pass, for what is
  shrunk.
  """
  return jax.vmap(_warp)(x, a)


def _warp(x, a):
  """One image: where each of its pixels comes from, and what is there."""
  h, w, _ = x.shape
  a0, a1, a2, a3, a4, a5, a6, a7 = a
  right = (jnp.arange(w) - 0.5 * (w - 1))[None, :] - a6 * (SHIFT * w)
  down = (jnp.arange(h) - 0.5 * (h - 1))[:, None] - a7 * (SHIFT * h)
  # each transform undone, the last one first
  right, down = _turn(right, down, -a4)
  stretch = GROWTH**a5
  right, down = _turn(right / stretch, down * stretch, a4)
  right, down = _turn(right, down, a3)  # y points down: a3 is to the left
  grow = GROWTH**a2
  right = right / grow * (1.0 - 2.0 * a0)
  down = down / grow * (1.0 - 2.0 * a1)
  rows, columns = down + 0.5 * (h - 1), right + 0.5 * (w - 1)
  return sum(
    (row_weight * column_weight)[..., None] * x[row, column]
    for row, row_weight in _taps(rows, h)
    for column, column_weight in _taps(columns, w)
  ).astype(x.dtype)


def _turn(right, down, angle):
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return cos * right - sin * down, sin * right + cos * down


def _taps(place, size):
  """Four (index, weight) of the pixels about a place on an axis."""
  first = jnp.floor(place)
  for offset in (-1, 0, 1, 2):
    index = first + offset
    d = jnp.abs(place - index)
    near = (1.5 * d - 2.5) * d * d + 1.0
    far = ((-0.5 * d + 2.5) * d - 4.0) * d + 2.0
    yield _reflected(index.astype(jnp.int32), size), jnp.where(d < 1, near, far)


def _reflected(index, size):
  """An index of any size as one of 0 … size-1: … 2 1 0 1 2 …"""
  index = jnp.abs(index) % max(1, 2 * (size - 1))
  return jnp.minimum(index, 2 * (size - 1) - index)


def augment(key, x, probability):
  """(x transformed, its labels (batch, 9)) of floats (batch, h, w, c)."""
  a = draw(key, x.shape[0], probability)
  return warp(x, a), label(a)


def augmented_batch(dataset, key, x):
  """(x, {name: vectors}) of what a data set's `augment` returns."""
  out = dataset.augment(key, x)
  return out if isinstance(out, tuple) else (out, {})


class Augmented:
  """A data set whose images are augmented, with all else that it has."""

  values = None  # between those of the pixels

  def __init__(self, dataset, probability):
    self.dataset, self.probability = dataset, probability

  def __getattr__(self, name):
    if name == "dataset":  # while copied or unpickled
      raise AttributeError(name)
    return getattr(self.dataset, name)

  @property
  def conditions(self):
    """The data set's own, and what augmenting did."""
    return {**of(self.dataset), AUGMENTATION: CONDITION}

  def augment(self, key, x):
    """(x, {"augmentation": (batch, 9)}) of floats (batch, h, w, c)."""
    x, told = augment(key, x, self.probability)
    return x, {AUGMENTATION: told}


class _Counted(Augmented):
  def __len__(self):
    return len(self.dataset)


CONDITION = Condition("vector", (NUM_LABELS,), null="zero")


@ranges.checked(probability="in [0, 1]")
def augmented(dataset, probability=0.12):
  """A data set whose images are augmented while they train.

  Args:
    dataset: of images (h, w, c); probability: of each transform but the x-flip.
      EDM takes 0.12 on CIFAR-10 and 0.15 on faces.
  Raises:
    ValueError: no images, ones that are flipped already, or that have a picture
      among their conditions, which would stay as it is.
  """
  if len(dataset.shape) != 3:
    raise ValueError(
      "augmentation is for images (h, w, c), not examples of shape "
      f"{tuple(dataset.shape)}"
    )
  if getattr(dataset, "flip", False):
    raise ValueError(
      "augmentation has flips of its own, which the network is told of: leave "
      "flip out"
    )
  for name, condition in of(dataset).items():
    if condition.kind == "image":
      raise ValueError(
        f"augmentation would turn x and not its image {name}: leave it out"
      )
  counted = hasattr(dataset, "__len__")
  return (_Counted if counted else Augmented)(dataset, probability)
