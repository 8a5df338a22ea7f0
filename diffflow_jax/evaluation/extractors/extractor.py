"""What every metric is a function of: features, and whose they are."""

from collections.abc import Callable
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Features:
  """images (num, ...) -> features (num, dims) float32, batch by batch.

  Attributes:
    metric: what a Fréchet distance of them is called: "fid" for Inception of
      the published weights, else "fd_" and what they are.
    name: for people, with the file or folder.
    fingerprint: of weights and resize: what has another one does not compare.
    dims: how many numbers an example becomes.
    batch: images that go through the network together.
    of: uint8 or float images (at most batch, ...) -> (num, dims).
    logits: features (num, dims) -> (num, C), of which `jax.nn.softmax` is what
      `inception_score` takes; or None.
    shape: of the only images that it takes, or None.
    classes: names of the logits' classes where these are the data's own, as
      `label_agreement` needs them; else ().
    accuracy: in these classes on held-out data, an Estimate, or None.
  """

  metric: str
  name: str
  fingerprint: str
  dims: int
  batch: int
  of: Callable
  logits: Callable | None = None
  shape: tuple | None = None
  classes: tuple = ()
  accuracy: Any = None

  def __call__(self, images):
    """Features of images, uint8 or floats in [-1, 1].

    Raises:
      ValueError: other shapes than the network takes, NaN, no images; what is
        not a row of `dims` for each.
    """
    if not hasattr(images, "shape") or not np.size(images):
      what = np.shape(images) if images is not None else None
      raise ValueError(f"images must be an array (num, ...), not {what}")
    parts = []
    for first in range(0, len(images), self.batch):
      batch = images[first : first + self.batch]
      found = np.asarray(self.of(batch), np.float32)
      if found.shape != (len(batch), self.dims):
        raise ValueError(
          f"{self.name} must make {self.dims} features of each image, but of "
          f"{len(batch)} it makes {found.shape}"
        )
      parts.append(found)
    return np.concatenate(parts)


def padded(run, batch):
  """run(images (batch, ...)) -> (batch, d) as a function of at most batch.

  The last batch of a set is rarely full, and need not be compiled anew.
  """

  def of(images):
    missing = [(0, batch - len(images))] + [(0, 0)] * (images.ndim - 1)
    return np.asarray(run(np.pad(images, missing)))[: len(images)]

  return of
