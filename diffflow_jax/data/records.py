"""Datasets of other libraries: ArrayRecord by grain, TFDS, Hugging Face.

They are read at random indices, in our order; none of TensorFlow is needed.
"""

import glob
import importlib
import io

from diffflow_jax.data import checks
from diffflow_jax.data.protobuf import parse_example
from diffflow_jax.data.sources import Source


def array_record(
  path, size, num_classes=0, image="image", label="label", channels=3,
  undecodable="refuse", flip=False, resize="bicubic", fit="crop",
  background="white",
):  # fmt: skip
  """ArrayRecord files of tf.train.Examples, as TFDS writes them.

  Args:
    path: a file, or a pattern such as data/train-*.array_record.
    size, channels: of the result, cropped and resized.
    num_classes: 0 ignores labels; image, label: names of the features, encoded
      bytes (PNG, JPEG) and an integer.
    undecodable: "refuse" or "skip" an image that cannot be decoded.
    flip: whether to flip images at random.
    resize, fit, background: as in `folder`.
  Raises:
    ValueError: no such files, or damaged ones; grain is not installed.
  """
  from PIL import Image  # comes with matplotlib

  pictures = dict(resize=resize, fit=fit, background=background)
  sources = _library("grain.sources", "grain")
  paths = sorted(glob.glob(checks.fetched(path)))
  if not paths:
    raise ValueError(f"there is no file {path!r}")
  try:
    records = sources.ArrayRecordDataSource(paths)
    num = len(records)
  except Exception as error:  # whatever a damaged file makes the reader raise
    reason = (str(error).splitlines() or ["not an ArrayRecord"])[0]
    raise ValueError(f"{path} cannot be read: {reason}") from error

  def read(index):
    features = parse_example(records[index])
    decoded = Image.open(io.BytesIO(features[image][0]))
    return decoded, features[label][0] if num_classes else None

  return Source(
    num,
    read,
    lambda index: f"record {index} of {path}",
    size,
    channels,
    num_classes,
    undecodable,
    flip,
    **pictures,
  )


def tfds(
  builder, size, split="train", path=None, image="image", label="label",
  channels=3, undecodable="refuse", flip=False, resize="bicubic", fit="crop",
  background="white",
):  # fmt: skip
  """A dataset of tensorflow_datasets that was prepared as array_record.

  Args:
    builder: its name, as imagenet2012; path: TFDS's data_dir.
    split: of TFDS; the others as in `array_record`, with label "" for none.
  Raises:
    ValueError: no such dataset, split or feature; it is not prepared.
  """
  library = _library("tensorflow_datasets", "tensorflow-datasets")
  try:
    made = library.builder(builder, data_dir=path, file_format="array_record")
    source = made.as_data_source(split=split)
    num, features = len(source), made.info.features
  except Exception as error:  # TFDS has its own for each of these
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(f"TFDS cannot read {builder!r}: {reason}") from error
  return _labelled(
    source, num, features, f"{builder}/{split}", size, image, label, channels,
    undecodable, flip, resize=resize, fit=fit, background=background,
  )  # fmt: skip


def huggingface(
  path, size, split="train", image="image", label="label", channels=3,
  undecodable="refuse", flip=False, resize="bicubic", fit="crop",
  background="white",
):  # fmt: skip
  """A dataset of the Hugging Face library: from its hub, or saved on disk.

  Args:
    path: what datasets.load_dataset takes, or a folder of save_to_disk.
    The others as in `array_record`, with label "" for none.
  Raises:
    ValueError: no such dataset, split or column.
  """
  library = _library("datasets", "datasets")
  try:
    try:
      source = library.load_from_disk(path)
      source = source[split] if hasattr(source, "keys") else source
    except FileNotFoundError:
      source = library.load_dataset(path, split=split)
    num, features = len(source), source.features
  except Exception as error:  # hub, network, split, format
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(f"Hugging Face cannot load {path!r}: {reason}") from error
  return _labelled(
    source, num, features, f"{path}/{split}", size, image, label, channels,
    undecodable, flip, resize=resize, fit=fit, background=background,
  )  # fmt: skip


def _labelled(
  source, num, features, where, size, image, label, channels, undecodable, flip,
  **pictures,
):  # fmt: skip
  """A Source of dicts, whose features know the number of classes."""
  for name in filter(None, (image, label)):
    checks.check_choice(f"a feature of {where}", name, tuple(features))
  num_classes = getattr(features[label], "num_classes", None) if label else 0
  if num_classes is None:
    raise ValueError(f"{label} of {where} is not a class label")

  def read(index):
    example = source[index]
    return example[image], int(example[label]) if label else None

  return Source(
    num,
    read,
    lambda index: f"example {index} of {where}",
    size,
    channels,
    num_classes,
    undecodable,
    flip,
    class_names=getattr(features[label], "names", None) or () if label else (),
    **pictures,
  )


def _library(module, package):
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ValueError(f"this needs {package}: pip install {package}") from error
