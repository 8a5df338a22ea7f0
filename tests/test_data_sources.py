"""Datasets read when needed: folders of images, records, other libraries."""

import importlib
import io
import logging
import os

import numpy as np
from PIL import Image
import pytest

from diffflow_jax import data, plots
from diffflow_jax.data import images, records
from diffflow_jax.data.protobuf import parse_example
from tests import files
from tests.test_data_files import refused


def _png(array):
  stream = io.BytesIO()
  Image.fromarray(array).save(stream, "png")
  return stream.getvalue()


def test_a_folder_is_labelled_by_its_subfolders(tmp_path):
  files.image_folder(tmp_path, ("a_dark", "b_bright"))
  (tmp_path / "a_dark" / "notes.txt").write_text("no image")
  d = data.folder(str(tmp_path), 8)
  assert d.num == 12 and d.num_classes == 2 and d.shape == (8, 8, 3)
  batch = d.batch(0, 0, 12)
  assert np.array_equal(np.bincount(batch["label"]), [6, 6])
  brightness = batch["x"].mean((1, 2, 3))
  np.testing.assert_allclose(brightness, 60 + 120 * batch["label"], atol=5)
  one = data.folder(str(tmp_path / "a_dark"), 8, channels=1)
  assert one.num_classes == 0 and one.num == 6
  assert one.batch(0, 0, 4)["x"].shape == (4, 8, 8, 1)


def test_images_are_cropped_to_the_central_square_and_resized():
  # a wide image whose colour is its column: the middle third stays
  wide = np.broadcast_to(
    np.arange(90, dtype=np.uint8)[None, :, None], (30, 90, 3)
  )
  x = images.to_square(np.ascontiguousarray(wide), 10, 3)
  assert x.shape == (10, 10, 3) and x.dtype == np.uint8
  # averages of columns 30 … 59, three at a time
  np.testing.assert_allclose(x[5, :, 0], 31 + 3 * np.arange(10), atol=1)
  tall = images.to_square(np.ascontiguousarray(wide.swapaxes(0, 1)), 10, 3)
  assert np.array_equal(tall, x.swapaxes(0, 1))
  grey = images.to_square(wide[..., :1].copy(), 10, 3)
  assert np.array_equal(grey, x)
  assert images.to_square(wide.copy(), 10, 1).shape == (10, 10, 1)
  clear = Image.fromarray(wide).convert("RGBA")
  assert np.array_equal(images.to_square(clear, 10, 3), x)


def test_an_image_that_cannot_be_decoded_is_refused_or_skipped_and_counted(
  tmp_path, caplog
):
  files.image_folder(tmp_path)
  bad = [tmp_path / "cat" / "0.jpg", tmp_path / "dog" / "3.png"]
  bad[0].write_bytes(bad[0].read_bytes()[:200])
  bad[1].write_bytes(b"not an image")
  refusing = data.folder(str(tmp_path), 8)
  refused(lambda: refusing.batch(0, 0, 12), "(0.jpg|3.png) cannot be decoded: ")

  d = data.folder(str(tmp_path), 8, undecodable="skip")
  with caplog.at_level(logging.WARNING, "diffflow_jax"):
    for step in range(3):
      batch = d.batch(0, step, 12)
  assert d.skipped == {str(path) for path in bad}
  assert len(caplog.records) == 2 and "(2 so far)" in caplog.text
  # the next image took the place of each, with its label
  assert np.array_equal(np.bincount(batch["label"]), [6, 6])
  fresh = data.folder(str(tmp_path), 8, undecodable="skip")
  for key, value in fresh.batch(0, 2, 12).items():  # whatever was read before
    assert np.array_equal(value, batch[key])

  for path in tmp_path.glob("*/*"):
    path.write_bytes(b"?")
  refused(lambda: d.batch(0, 0, 12), "100 images in a row cannot be decoded")


def test_sources_that_cannot_work_are_refused(tmp_path):
  refused(lambda: data.folder(str(tmp_path), 8), "there are no images in ")
  files.image_folder(tmp_path)
  (tmp_path / "empty").mkdir()
  refused(lambda: data.folder(str(tmp_path), 8), "no images in .*empty")
  (tmp_path / "empty").rmdir()
  os.mkfifo(tmp_path / "cat" / "pipe.png")  # reading it would wait for ever
  refused(lambda: data.folder(str(tmp_path), 8), "cat/pipe.png is no file")
  (tmp_path / "cat" / "pipe.png").unlink()
  load = lambda **k: data.folder(str(tmp_path), **{"size": 8, **k})
  refused(lambda: load(size=0), "size must be an integer >= 1, not 0")
  refused(lambda: load(channels=2), "channels must be one of 1, 3, 4, not 2")
  refused(lambda: load(undecodable="ignore"), "must be one of refuse, skip")


def test_pictures_of_kinds_that_are_not_read_are_said(tmp_path, caplog):
  files.image_folder(tmp_path)
  assert not caplog.text
  data.folder(str(tmp_path), 8)
  for name in ("a.avif", "B.HEIC", ".c.jp2", "notes.txt"):
    (tmp_path / "cat" / name).write_bytes(b"?")
  data.folder(str(tmp_path), 8)
  (line,) = caplog.messages
  assert line.startswith("2 pictures of other kinds are left out, as ")
  assert "cat/B.HEIC: known are .png, .jpg" in line


@pytest.mark.filterwarnings("error")
def test_classes_may_have_names_of_any_letters_and_bytes(tmp_path):
  names = [os.fsencode(n) for n in ("猫", "🐈", "a\nb", "$\\frac$")] + [b"\xff"]
  for name in names:
    os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    where = os.path.join(os.fsencode(tmp_path), name, b"0.png")
    with open(where, "wb") as file:
      Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(file, "PNG")
  d = data.folder(str(tmp_path), 8)
  assert set(d.class_names) == {"猫", "🐈", "a\\nb", "$\\frac$", "\\udcff"}
  x = np.zeros((5, 8, 8, 3), np.float32)
  plots.save_batch(tmp_path / "a.png", x, np.arange(5), d.class_names)
  x = np.zeros((5, 8, 1), np.float32)
  plots.save_series(tmp_path / "b.png", x, np.arange(5), d.class_names)


def _example(**features):
  """A serialised tf.train.Example, by Google's protobuf library."""
  descriptor_pb2 = pytest.importorskip("google.protobuf.descriptor_pb2")
  from google.protobuf import descriptor_pool, message_factory

  file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t")
  kinds = {"BytesList": 12, "FloatList": 2, "Int64List": 3}
  for name, kind in kinds.items():
    file.message_type.add(name=name).field.add(
      name="value", number=1, label=3, type=kind
    )
  message = file.message_type.add(name="Feature")
  for number, name in enumerate(kinds, start=1):
    message.field.add(
      name=name, number=number, label=1, type=11, type_name=f".t.{name}"
    )
  message = file.message_type.add(name="Features")
  entry = message.nested_type.add(name="FeatureEntry")
  entry.options.map_entry = True
  entry.field.add(name="key", number=1, label=1, type=9)
  entry.field.add(
    name="value", number=2, label=1, type=11, type_name=".t.Feature"
  )
  message.field.add(
    name="feature", number=1, label=3, type=11,
    type_name=".t.Features.FeatureEntry",
  )  # fmt: skip
  file.message_type.add(name="Example").field.add(
    name="features", number=1, label=1, type=11, type_name=".t.Features"
  )
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  made = message_factory.GetMessageClass(
    pool.FindMessageTypeByName("t.Example")
  )()
  for name, (kind, values) in features.items():
    getattr(made.features.feature[name], kind).value.extend(values)
  return made.SerializeToString()


def test_examples_are_parsed_as_googles_library_wrote_them():
  message = _example(
    image=("BytesList", [b"\0png", b"", bytes(300)]),
    label=("Int64List", [7, 0, -1, 2**40, -(2**63)]),
    box=("FloatList", [0.5, -2.0]),
    empty=("Int64List", []),
  )
  assert parse_example(message) == {
    "image": [b"\0png", b"", bytes(300)],
    "label": [7, 0, -1, 2**40, -(2**63)],
    "box": [0.5, -2.0],
    "empty": [],
  }
  with pytest.raises((ValueError, IndexError)):
    parse_example(message[:-1])


def test_array_record_files_are_read_by_grain(tmp_path):
  pytest.importorskip("grain")
  writer = pytest.importorskip("array_record.python.array_record_module")
  images = files.RNG().integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
  for shard in range(3):
    path = tmp_path / f"train-{shard}.array_record"
    out = writer.ArrayRecordWriter(str(path), "group_size:1")
    for i in range(3 * shard, 3 * shard + 3):
      png = ("BytesList", [_png(images[i])])
      out.write(_example(image=png, label=("Int64List", [i % 3])))
    out.close()
  pattern = str(tmp_path / "train-*.array_record")
  d = data.array_record(pattern, 8, num_classes=3)
  batch = d.batch(0, 0, 9)
  pairs = lambda x, labels: {
    (image.tobytes(), int(k)) for image, k in zip(x, labels, strict=True)
  }
  assert pairs(batch["x"], batch["label"]) == pairs(images, np.arange(9) % 3)
  few = data.array_record(pattern, 8, num_classes=2)
  refused(lambda: few.batch(0, 0, 9), "has label 2; labels must be 0 to 1")
  other = data.array_record(pattern, 8, image="picture")
  refused(lambda: other.batch(0, 0, 9), "record . of .* cannot be decoded")
  refused(lambda: data.array_record("nowhere-*", 8), "no file 'nowhere-")
  path.write_bytes(path.read_bytes()[:50])
  refused(lambda: data.array_record(str(path), 8), "cannot be read: ")


def test_hugging_face_datasets_are_read_from_disk(tmp_path):
  library = pytest.importorskip("datasets")
  images = files.RNG().integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
  features = library.Features(
    image=library.Image(), label=library.ClassLabel(names=["cat", "dog"])
  )
  made = library.Dataset.from_dict(
    {
      "image": [Image.fromarray(x) for x in images],
      "label": [0, 1, 0, 1, 0, 1],
    },
    features=features,
  )
  library.DatasetDict(train=made).save_to_disk(str(tmp_path / "saved"))
  load = lambda **k: data.huggingface(str(tmp_path / "saved"), 8, **k)
  d = load()
  assert d.num_classes == 2 and d.num == 6
  batch = d.batch(0, 0, 6)
  assert {x.tobytes() for x in batch["x"]} == {x.tobytes() for x in images}
  of = {image.tobytes(): i % 2 for i, image in enumerate(images)}
  assert list(batch["label"]) == [of[x.tobytes()] for x in batch["x"]]
  assert load(label="").num_classes == 0
  refused(lambda: load(image="img"), "must be one of image, label, not 'img'")
  refused(lambda: load(split="test"), "Hugging Face cannot load ")


def test_tfds_datasets_are_read_as_random_access_sources(tmp_path):
  library = pytest.importorskip("tensorflow_datasets")
  images = files.RNG().integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

  class Tiny(library.core.GeneratorBasedBuilder):
    VERSION = library.core.Version("1.0.0")
    name = "tiny"

    def _info(self):
      return self.dataset_info_from_configs(
        features=library.features.FeaturesDict(
          {
            "image": library.features.Image(shape=(8, 8, 3)),
            "label": library.features.ClassLabel(num_classes=3),
          }
        )
      )

    def _split_generators(self, manager):
      return {"train": self._generate_examples()}

    def _generate_examples(self):
      for i, x in enumerate(images):
        yield i, {"image": io.BytesIO(_png(x)), "label": i % 3}

  builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
  builder.download_and_prepare()
  d = data.tfds("tiny", 8, path=str(tmp_path))
  assert d.num_classes == 3 and d.num == 6
  batch = d.batch(0, 0, 6)
  assert {x.tobytes() for x in batch["x"]} == {x.tobytes() for x in images}
  refused(
    lambda: data.tfds("tinny", 8, path=str(tmp_path)),
    "TFDS cannot read 'tinny'",
  )
  refused(
    lambda: data.tfds("tiny", 8, "test", str(tmp_path)),
    "TFDS cannot read 'tiny'",
  )


class _Library:
  """A stand-in for a data library: two images with labels."""

  class Label:
    num_classes = 2

  def __init__(self, labels=(0, 1)):
    grey = lambda k: np.full((4, 6, 3), 100 * k, np.uint8)
    self._examples = [{"image": grey(k), "label": k} for k in labels]
    self.features = {"image": None, "label": self.Label(), "size": None}

  def __len__(self):
    return len(self._examples)

  def __getitem__(self, index):
    return self._examples[index]


@pytest.mark.parametrize("labels", [(0, 1), (1, 2)])
def test_labels_come_with_the_features_of_a_library(labels, monkeypatch):
  library = _Library(labels)
  library.load_from_disk = lambda path: library
  monkeypatch.setattr(records, "_library", lambda module, package: library)
  d = data.huggingface("somewhere", 4)
  if labels == (0, 1):
    batch = d.batch(0, 0, 2)
    assert d.num_classes == 2 and sorted(batch["label"]) == [0, 1]
    assert np.array_equal(batch["x"].max((1, 2, 3)), 100 * batch["label"])
  else:
    refused(
      lambda: d.batch(0, 0, 2),
      "example 1 of somewhere/train has label 2; labels must be 0 to 1",
    )
  refused(
    lambda: data.huggingface("somewhere", 4, label="size"),
    "size of somewhere/train is not a class label",
  )


def test_libraries_that_are_not_installed_are_named(monkeypatch):
  def missing(module):
    raise ImportError(module)

  monkeypatch.setattr(importlib, "import_module", missing)
  for load, package in (
    (lambda: data.array_record("x", 8), "grain"),
    (lambda: data.tfds("x", 8), "tensorflow-datasets"),
    (lambda: data.huggingface("x", 8), "datasets"),
  ):
    refused(load, f"pip install {package}")
