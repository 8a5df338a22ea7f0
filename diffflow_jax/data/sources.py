"""Datasets that do not fit in memory: examples are read when they are needed.

Anything with a length that can be read at any index is such a source: a folder
of images, a grain RandomAccessDataSource, a Hugging Face dataset. The order is
that of `Arrays`, a function of (seed, step); threads only read ahead within a
batch.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import logging
import os

import numpy as np

from diffflow_jax.data import checks, given, images
from diffflow_jax.data.arrays import indices, random_flip, spread, values

log = logging.getLogger("diffflow_jax")

UNDECODABLE = ("refuse", "skip")
MOST_IN_A_ROW = 100
MANY_FRAMES = ("GIF", "WEBP", "TIFF", "PNG")  # formats that may hold several


@dataclasses.dataclass(frozen=True)
class Source:
  """Images (size, size, channels) of uint8 and labels, read by `read`.

  Attributes:
    num: how many examples; read: index -> (Pillow image or array, label), and
      third, where there are conditions, {name: floats, or (floats, mask)}.
    name: index -> what an error calls the example.
    undecodable: "refuse" raises for an image that cannot be decoded; "skip"
      takes the next one that can, with its label, and counts it in `skipped`.
    flip: whether `augment` flips images left to right.
    resize, fit, background: how `images.to_square` makes them of one size.
    labels: of all examples where they are known without reading them, or None.
    class_names: of the labels, or () where nobody knows them.
    conditions: {name: Condition} of what `read` says beside the label.
    skipped: names of the images that were skipped so far; noted: what was said
      once.
  """

  num: int
  read: Callable
  name: Callable
  size: int
  channels: int = 3
  num_classes: int = 0
  undecodable: str = "refuse"
  flip: bool = False
  resize: str = "bicubic"
  fit: str = "crop"
  background: str = "white"
  labels: np.ndarray | None = None
  class_names: tuple[str, ...] = ()
  conditions: dict = dataclasses.field(default_factory=dict)
  skipped: set = dataclasses.field(default_factory=set)
  noted: set = dataclasses.field(default_factory=set)

  def __post_init__(self):
    checks.check_choice("undecodable", self.undecodable, UNDECODABLE)
    images.check_options(
      self.size, self.channels, self.resize, self.fit, self.background
    )
    if self.num < 1:
      raise ValueError("the dataset has no examples")
    names = checks.check_names(self.class_names, self.num_classes)
    object.__setattr__(self, "class_names", names)
    given.check_flip(self.flip, self.conditions)

  def __len__(self):
    return self.num

  @property
  def shape(self):
    return (self.size, self.size, self.channels)

  @property
  def values(self):
    return values(255)

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x=..., label=..., ...).

    Raises:
      ValueError: an image cannot be decoded, or a label is out of range.
    """
    return self.take(
      indices(self.num, seed, step, size, process, num_processes)
    )

  def take(self, index):
    """The examples of an array of indices: dict(x=..., label=..., ...).

    Raises:
      ValueError: as `batch`.
    """
    # decoding releases Python's lock
    with ThreadPoolExecutor(min(32, 2 * num_cores())) as pool:
      found = list(pool.map(self._example, index.tolist()))
    x, labels, said = zip(*found, strict=True)
    batch = {"x": np.stack(x)}
    if self.num_classes:
      batch["label"] = np.array(labels, np.int32)
    return batch | given.stacked(self.conditions, said)

  def subset(self, index):
    """The examples of an array of indices as a data set of their own."""
    return dataclasses.replace(
      self,
      num=len(index),
      read=lambda i: self.read(int(index[i])),
      name=lambda i: self.name(int(index[i])),
      labels=None if self.labels is None else self.labels[index],
      skipped=set(),
    )

  def augment(self, key, x):
    """x, of any type, with random flips if the dataset asks for them."""
    return random_flip(key, x) if self.flip else x

  def to_float(self, x):
    """float32 in [-1, 1]."""
    return spread(x, 255)

  def _example(self, index):
    """(x, label, said) of an index, or of the next that can be decoded."""
    for i in range(index, index + MOST_IN_A_ROW):
      i %= self.num
      try:
        image, label, *said = self.read(i)
        self._note_frames(i, image)
        x = images.to_square(
          image,
          self.size,
          self.channels,
          self.resize,
          self.fit,
          self.background,
        )
      except (
        Exception
      ) as error:  # whatever a damaged file makes a decoder raise
        if isinstance(error, OSError) and error.errno is not None:
          raise  # the disk's, not the picture's: skipping would move the order
        self._note(i, error)
        continue
      return x, self._check_label(i, label), self._check_said(i, said)
    raise ValueError(
      f"{MOST_IN_A_ROW} images in a row cannot be decoded, "
      f"from {self.name(index)} on"
    )

  def _note(self, index, error):
    name = self.name(index)
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if self.undecodable == "refuse":
      raise ValueError(
        f"{name} cannot be decoded: {reason} "
        '(undecodable="skip" would leave it out)'
      ) from error
    if name not in self.skipped:
      self.skipped.add(name)
      log.warning(
        "%s cannot be decoded and is skipped (%d so far): %s",
        name,
        len(self.skipped),
        reason,
      )

  def _note_frames(self, index, image):
    """Says once that there are pictures of which only the first is read."""
    known = getattr(image, "format", None) in MANY_FRAMES
    if known and "frames" not in self.noted and image.n_frames > 1:
      self.noted.add("frames")
      log.warning(
        "%s holds %d pictures: the first of a file is read, here and elsewhere",
        self.name(index),
        image.n_frames,
      )

  def _check_said(self, index, said):
    """{name: (value, mask or None)} of the conditions of an example."""
    if not self.conditions:
      return {}
    try:
      return given.of_example(self.conditions, said[0] if said else {})
    except ValueError as error:
      raise ValueError(f"{self.name(index)}: {error}") from error

  def _check_label(self, index, label):
    if self.num_classes and not 0 <= label < self.num_classes:
      raise ValueError(
        f"{self.name(index)} has label {label}; labels must be 0 to "
        f"{self.num_classes - 1}"
      )
    return label


def num_cores():
  """The cores that this process may use, fewer than there are under SLURM."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
