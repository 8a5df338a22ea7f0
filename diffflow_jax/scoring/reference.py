"""What samples are compared with: real examples, or their statistics."""

import hashlib
import os

import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions
from diffflow_jax.runs import datasets
from diffflow_jax.scoring import pixels
from diffflow_jax.scoring.chunks import Rows
from diffflow_jax.scoring.sides import Side
from diffflow_jax.store import paths

ENDLESS = 10_000  # examples of what is drawn without end
SIZE = 256  # examples at a time


class _Drawn:
  """The first examples of a seed of data without end, as a finite data set."""

  def __init__(self, dataset, seed, num):
    self._batch = dataset.batch(seed, 0, num)
    self.num, self.shape = num, tuple(dataset.shape)
    self.to_float = dataset.to_float
    self.density = getattr(dataset, "density", None)
    self.values = getattr(dataset, "values", None)

  def __len__(self):
    return self.num

  def take(self, index):
    return {name: value[index] for name, value in self._batch.items()}


class _Images:
  """The uint8 images of a file, as a data set."""

  values = np.linspace(-1.0, 1.0, 256)

  def __init__(self, images):
    self.x, self.shape = images, images.shape[1:]

  def __len__(self):
    return len(self.x)

  def take(self, index):
    return {"x": self.x[index]}

  def to_float(self, x):
    return np.asarray(x, np.float32) / 127.5 - 1.0


class Reference:
  """A set of real examples and their features, computed once.

  Attributes:
    name: "train", "held_out", or the path it came from; num: how many examples.
    dataset: what they are, or None of a file of statistics.
    side: a `Side` of their features; moments: those of such a file.
    law: the closed form of the data with log_prob, or None.
  """

  def __init__(self, name, card, features, dataset, cache, moments=None):
    self.name, self.features, self.dataset = name, features, dataset
    self.moments, self.card, self._cache = moments, card, cache
    self.num = len(dataset) if dataset is not None else moments.num
    law = getattr(dataset, "density", None)
    self.law = law if hasattr(law, "log_prob") else None
    self.side = None
    if dataset is not None:
      self.side = Side.of(Rows(self._folder(), self._make, self.num, SIZE))

  @classmethod
  def of(cls, recipe, features, spec="train", cache=None, say=str):
    """The Reference that a spec names.

    Args:
      recipe: of the run; features: as `features_of` gives them.
      spec: "train" or "held_out" of the run's data; a folder of images; an .npz
        of images (arr_0) or of statistics (mu and sigma); or a data set.
      cache: a folder to keep features in, or None.
    Raises:
      Refusal: there is no such data, or of another shape than the run's.
    """
    name, card = say("reference"), recipe.card
    dataset, moments = None, None
    if not isinstance(spec, str | os.PathLike):
      dataset, spec = spec, type(spec).__name__
    elif spec in ("train", "held_out"):
      dataset = _of_config(recipe.config, spec, name)
    elif os.fspath(spec).endswith(".npz"):
      dataset, moments = _of_file(os.fspath(spec), features, name)
    else:
      dataset = _of_folder(os.fspath(spec), card, name)
    if dataset is not None and tuple(dataset.shape) != tuple(card.shape):
      raise Refusal(
        f"{name}: {spec} holds examples of shape {tuple(dataset.shape)}, and "
        f"the run makes {tuple(card.shape)}: resolution and channels must agree"
      )
    if dataset is not None and not hasattr(dataset, "__len__"):
      dataset = _Drawn(dataset, recipe.config.seed + 2**33, ENDLESS)
    return cls(os.fspath(spec), card, features, dataset, cache, moments)

  def fingerprint(self):
    """What it is, in 32 hexadecimal digits; the data's own, or the moments'."""
    if self.dataset is not None:
      return evaluation.fingerprint(self.dataset)
    found = hashlib.sha256(repr(self.num).encode())
    for array in (self.moments.mean, self.moments.scatter):
      found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:32]

  def about(self):
    """{name: value} for JSON."""
    return {
      "of": self.name,
      "num": self.num,
      "data": self.fingerprint(),
      "features": self.features.name,
      "features_fingerprint": self.features.fingerprint,
    }

  def halves(self):
    """Two Sides, disjoint and at random: the floor of every metric."""
    return self.side.half(0), self.side.half(1)

  def examples(self, num):
    """(x as the network sees it, its cond or None) of up to num, spread evenly."""
    num = min(num, self.num)
    batch = self.dataset.take(np.linspace(0, self.num - 1, num).astype(int))
    x = np.asarray(self.dataset.to_float(batch["x"]), np.float32)
    known = conditions.asked(self.card.conditions)
    return x, conditions.from_batch(known, batch) if known else None

  def _folder(self):
    if self._cache is None:
      return None
    key = repr((self.fingerprint(), self.features.fingerprint, SIZE))
    key = hashlib.sha256(key.encode()).hexdigest()[:32]
    return paths.join(self._cache, f"reference-{key}")

  def _make(self, first):
    batch = self.dataset.take(np.arange(first, min(first + SIZE, self.num)))
    x = np.asarray(self.dataset.to_float(batch["x"]), np.float32)
    return featured(self.features, x, batch.get("label"), self.card)


def featured(features, x, labels, card):
  """{name: rows} of a chunk: features, and labels if there are."""
  given = pixels.prepared(x, card)
  made = {"features": np.asarray(features(given), np.float32)}
  if labels is not None:
    made["labels"] = np.asarray(labels)
  return made


def _of_config(config, spec, name):
  train, held = datasets.of(config)
  if spec == "train":
    return train
  if held is None:
    raise Refusal(f"{name}: the run's config.held_out holds no examples out")
  dataset, num = held
  if not hasattr(dataset, "__len__"):
    return _Drawn(dataset, config.seed + 2**32, num)  # as training judges them
  from diffflow_jax.data import splits

  return splits.subset(dataset, np.arange(num))


def _of_file(path, features, name):
  """(data set or None, Moments or None) of an .npz."""
  try:
    with np.load(paths.fetched(path), allow_pickle=False) as file:
      there = file.files
    if "mu" not in there:
      return _Images(evaluation.read_images(path)), None
    moments = evaluation.read_statistics(path)
  except (OSError, ValueError) as error:
    raise Refusal(f"{name}: {paths.reason(error)}") from error
  if len(moments.mean) != features.dims:
    raise Refusal(
      f"{name}: {path} has statistics of {len(moments.mean)} dimensions, and "
      f"{features.name} have {features.dims}"
    )
  return None, moments


def _of_folder(path, card, name):
  from diffflow_jax.data import folder

  if not pixels.are_images(card):
    raise Refusal(
      f"{name} must be train, held_out or an .npz for data of shape "
      f"{tuple(card.shape)}, not {path!r}"
    )
  height, width, channels = card.shape
  if height != width:
    raise Refusal(f"{name}: a folder gives squares, not {height}x{width}")
  try:
    return folder(paths.fetched(path), size=height, channels=channels)
  except (OSError, ValueError) as error:
    raise Refusal(
      f"{name} must be train, held_out, a folder of images or an .npz, and "
      f"{path!r} is none: {paths.reason(error)}"
    ) from error
