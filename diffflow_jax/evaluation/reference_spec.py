"""What samples are judged against, by one line of text.

    train, held_out, …   data sets by the names that the caller gives them
    folder:PATH          images of the samples' own size, below a folder
    FILE.npz             mu and sigma of TTUR, pytorch-fid and EDM, ADM's files,
                         whose arr_0 are images, and `write_statistics`'s

Images go the way of samples: to bytes first, as they would be saved.
"""

import dataclasses
import hashlib
import io
from typing import Any

import numpy as np

from diffflow_jax.data import Arrays, folder as folders, splits
from diffflow_jax.evaluation import features as sets, reference, streaming
from diffflow_jax.evaluation.extractors.images import are_images, to_bytes
from diffflow_jax.store import paths

DRAWN = 10_000  # examples of data without end
_DRAWN_SEED = 2**32  # beyond those of training


@dataclasses.dataclass(frozen=True)
class Reference:
  """Statistics of a reference under some features.

  Attributes:
    name: for people; fingerprint: of the data, or of the file.
    num: how many examples, or None where a file does not say.
    moments: Moments of their features; features: (num, d) float32, or None
      where nobody asked for them.
  """

  name: str
  fingerprint: str
  num: int | None
  moments: streaming.Moments
  features: Any = None


def reference_of(
  spec, features, card, *, datasets=None, cache=None, keep=False
):
  """The `Reference` that a text names.

  Args:
    spec: as the module says.
    features: `Features`, as of `features_of`.
    card: what has the `shape` of a sample.
    datasets: {name: data set} of those that the text may name; of data without
      end, as the toys are, 10,000 examples are drawn.
    cache: a folder or bucket where the statistics of data sets and folders
      stay, by a fingerprint of data, resolution and features, or None.
    keep: whether `features` are wanted too, as all but Fréchet distances do.
  Raises:
    ValueError: an unknown name; another resolution or other channels than the
      samples'; statistics of other features; no images where `keep` needs them.
  """
  datasets, shape = dict(datasets or {}), tuple(card.shape)
  spec = spec if isinstance(spec, str) else repr(spec)
  kind, _, path = spec.partition(":")
  if spec in datasets:
    dataset = _finite(datasets[spec])
    name = f"{spec}, {len(dataset)} examples"
  elif kind == "folder" and path:
    dataset = _folder(path, shape)
    name = f"{len(dataset)} images of {path}"
  elif spec.endswith(".npz"):
    return _file(spec, features, shape, keep)
  else:
    known = ", ".join([*datasets, "folder:PATH", "FILE.npz"])
    raise ValueError(f"the reference must be one of {known}, not {spec!r}")
  _check_shape(name, dataset.shape, shape)
  return _of_dataset(name, dataset, features, cache, keep)


def _finite(dataset):
  """The data set, or examples drawn from it where it has no end."""
  if splits.is_finite(dataset):
    return dataset
  x = dataset.batch(_DRAWN_SEED, 0, DRAWN)["x"]
  return Arrays(np.asarray(dataset.to_float(x)), scale=1.0)


def _check_shape(name, shape, wanted):
  if tuple(shape) != wanted:
    ours, theirs = ("x".join(map(str, s)) for s in (wanted, shape))
    raise ValueError(f"samples are {ours}, and the reference, {name}, {theirs}")


def _folder(path, shape):
  """The images of a folder, if they are of this shape as they are."""
  from PIL import Image

  if not are_images(shape) or shape[0] != shape[1]:
    raise ValueError(
      "a folder holds square images of 1 or 3 channels, and samples have shape "
      f"{shape}"
    )
  dataset = folders(path, shape[0], shape[2])
  for i in range(len(dataset)):
    try:
      image, _ = dataset.read(i)
    except OSError as error:  # PIL's for what is no image, too
      raise ValueError(
        f"{dataset.name(i)} cannot be read as an image: {paths.reason(error)}"
      ) from error
    with image:
      grey = Image.getmodebase(image.mode) == "L"
      found = (*image.size[::-1], 1 if grey else 3)
    if found[:2] != shape[:2] or found[2] > shape[2]:
      ours, theirs = ("x".join(map(str, s)) for s in (shape, found))
      raise ValueError(
        f"samples are {ours}, and {dataset.name(i)} is {theirs}: save the "
        "reference as the samples are"
      )
  return dataset


def _seen(features, shape):
  """x, floats as a network sees them -> features of what would be saved."""
  quantised = are_images(shape)
  return lambda x: features(to_bytes(x) if quantised else np.asarray(x))


def _of_dataset(name, dataset, features, cache, keep):
  seen, print_ = _seen(features, dataset.shape), reference.fingerprint(dataset)
  if not keep:
    moments = reference.dataset_statistics(
      dataset, seen, features.fingerprint, cache=cache
    )
    return Reference(name, print_, moments.num, moments)
  whole = lambda: np.concatenate(list(reference.feature_chunks(dataset, seen)))
  made_of = {"data": print_, "features": features.fingerprint}
  found = _kept(whole, cache, made_of)
  moments = streaming.moments(found)
  return Reference(name, print_, len(found), moments, found)


def _kept(whole, cache, made_of):
  """whole(), or what a cache has of it."""
  if cache is None:
    return sets.rows("reference", whole())
  path = reference.cached(cache, "features", "npy", **made_of)
  if paths.exists(path):
    try:
      file = io.BytesIO(paths.read(path))
      return sets.rows("reference", np.load(file, allow_pickle=False))
    except (ValueError, EOFError) as error:
      raise ValueError(
        f"{path} is damaged, and can be deleted ({error})"
      ) from error
  found, file = sets.rows("reference", whole()), io.BytesIO()
  np.save(file, found)
  paths.write(path, file.getbuffer())
  return found


def _file(path, features, shape, keep):
  """The Reference of an .npz."""
  try:
    data = paths.read(path)
  except OSError as error:
    raise ValueError(f"{path}: {paths.reason(error)}") from error
  print_ = hashlib.sha256(data).hexdigest()[:32]
  about, there = reference.npz_arrays(path, ("features", "num"))
  is_inception = features.fingerprint.startswith("inception")
  has_moments = "mu" in there and (is_inception or "arr_0" not in there)
  found = moments = None
  if has_moments:
    moments = _moments(path, features, str(about.get("features", "")))
  if keep and "arr_0" not in there:
    raise ValueError(
      f"{path} holds mu and sigma alone, for a Fréchet distance: other metrics "
      "need images, as of a folder or as arr_0"
    )
  if not has_moments or keep:
    images = reference.read_images(path)
    _check_shape(path, images.shape[1:], shape)
    found = sets.rows("reference", features(images), least=2)
    moments = moments if has_moments else streaming.moments(found)
  known = "num" in there or not has_moments
  num = moments.num if known else None
  return Reference(path, print_, num, moments, found if keep else None)


def _moments(path, features, made_by):
  """The Moments of an .npz, if they are of these features."""
  if made_by not in ("", features.fingerprint):
    raise ValueError(
      f"{path} holds statistics of {made_by}, not of {features.fingerprint}"
    )
  moments = reference.read_statistics(path)
  if len(moments.mean) != features.dims:
    raise ValueError(
      f"{path} holds statistics of {len(moments.mean)} features, and "
      f"{features.name} makes {features.dims}"
    )
  return moments
