"""Datasets in files: read as the formats say, refused where damaged."""

import gc
import gzip
import os
import pathlib

import numpy as np
import pytest

from diffflow_jax import data, learned
from diffflow_jax.data.idx import FASHION_MNIST, read_idx
from tests import files


def refused(load, message):
  """load() is refused in one short sentence."""
  with pytest.raises(ValueError, match=message) as caught:
    load()
  assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_read_as_they_were_written(suffix, tmp_path):
  x, labels = files.mnist_folder(tmp_path, suffix=suffix)
  for split in ("train", "test"):
    d = data.mnist(str(tmp_path), split)
    assert np.array_equal(d.x[..., 0], x) and np.array_equal(d.labels, labels)
    assert d.shape == (6, 5, 1) and d.num_classes == 10
    assert d.class_names == tuple("0123456789")
    garments = data.fashion_mnist(str(tmp_path), split).class_names
    assert garments[0] == "T-shirt/top" and garments[9] == "Ankle boot"


@pytest.mark.skipif(
  not os.path.isdir(FASHION_MNIST), reason="dataset-fashion-mnist not installed"
)
def test_fashion_mnist_is_the_real_one():
  train, test = data.fashion_mnist(), data.fashion_mnist(split="test")
  assert (train.x.shape, test.x.shape) == (
    (60000, 28, 28, 1),
    (10000, 28, 28, 1),
  )
  assert np.all(np.bincount(train.labels) == 6000)


def test_damaged_idx_files_are_refused_by_name(tmp_path):
  files.mnist_folder(tmp_path, suffix="")
  load = lambda: data.mnist(str(tmp_path))
  images = tmp_path / "train-images-idx3-ubyte"
  labels = tmp_path / "train-labels-idx1-ubyte"
  whole = images.read_bytes()

  images.write_bytes(whole[:-7])
  refused(load, f"{images} is damaged or truncated: 593 bytes .*20, 6, 5")
  images.write_bytes(whole + b"1")
  refused(load, f"{images} is damaged or truncated: 601 bytes")
  images.write_bytes(whole[:9])
  refused(load, f"{images} is damaged or truncated")
  images.write_bytes(b"\x89PNG" + whole)
  refused(
    load, f"{images} is not an IDX file of bytes: it starts with 89504e47"
  )
  images.write_bytes(b"")
  refused(load, f"{images} is not an IDX file .* nothing")
  images.unlink()
  refused(load, f"there is no file '{images}.gz'")
  packed = gzip.compress(whole)
  for content in (packed[:-30], packed[:40] + b"?" * 9 + packed[49:], whole):
    (tmp_path / f"{images.name}.gz").write_bytes(content)
    refused(load, f"{images}.gz is damaged or truncated")
  images.write_bytes(whole)

  files.write_idx(labels, np.arange(20) % 10)
  assert len(load().x) == 20
  files.write_idx(labels, np.arange(20))
  refused(load, f"{labels} has label 10 at example 10; labels must be 0 to 9")
  files.write_idx(labels, np.arange(19) % 10)
  refused(load, f"{labels} must hold 20 integer labels, not uint8 .*19")
  files.write_idx(images, np.zeros((0, 6, 5)))
  refused(load, f"{images} must hold images")
  assert read_idx(str(labels)).shape == (19,)


def test_folders_that_are_not_there_are_refused(tmp_path):
  missing = str(tmp_path / "none")
  refused(lambda: data.mnist(missing), f"there is no directory '{missing}'")
  refused(lambda: data.cifar10(missing), f"there is no directory '{missing}'")
  refused(lambda: data.folder(missing, 8), f"there is no directory '{missing}'")
  refused(lambda: data.numpy_arrays(missing), f"there is no file '{missing}'")
  refused(
    lambda: data.fashion_mnist(missing), "none'.*apt install dataset-fashion"
  )
  refused(lambda: data.mnist(missing, "valid"), "split must be one of train")


def test_cifar10_is_planes_of_red_green_and_blue(tmp_path):
  records = files.cifar_folder(tmp_path)
  train, test = (data.cifar10(str(tmp_path), s) for s in ("train", "test"))
  assert train.x.shape == (20, 32, 32, 3) and test.x.shape == (4, 32, 32, 3)
  assert np.array_equal(train.labels[4:8], records[1, :, 0])
  # byte 1 + 1024 c + 32 row + column
  assert train.x[5, 3, 7, 2] == records[1, 1, 1 + 2048 + 3 * 32 + 7]
  assert test.x[3, 31, 0, 1] == records[5, 3, 1 + 1024 + 31 * 32]


def test_damaged_cifar_files_are_refused_by_name(tmp_path):
  records = files.cifar_folder(tmp_path)
  load = lambda: data.cifar10(str(tmp_path))
  third = tmp_path / "data_batch_3.bin"
  third.write_bytes(records[2].tobytes()[:-5])
  refused(load, f"{third} is truncated: 12287 bytes")
  third.write_bytes(records[2, :3].tobytes())
  refused(load, f"{third} is truncated: it holds 3 images, .*_1.bin 4")
  third.write_bytes(b"")
  refused(load, f"{third} is truncated: 0 bytes")
  records[2, 3, 0] = 10
  third.write_bytes(records[2].tobytes())
  refused(load, f"{third} has label 10 at example 3")
  third.unlink()
  refused(load, f"there is no file '{third}'")


def test_numpy_files_are_mapped_scaled_and_labelled(tmp_path):
  x, labels, images = files.numpy_files(tmp_path)
  path = str(tmp_path / "x.npy")
  d = data.numpy_arrays(
    path, str(tmp_path / "labels.npy"), num_classes=3, scale=0.5
  )
  assert isinstance(d.x, np.memmap) and d.max_value is None
  batch = d.batch(0, 0, 12)
  assert batch["x"].dtype == np.float16  # half as much travels
  assert np.array_equal(np.sort(batch["label"]), np.sort(labels))
  np.testing.assert_allclose(
    np.sort(np.ravel(d.to_float(batch["x"]))),
    np.sort(0.5 * x.astype(np.float32).ravel()),
  )
  assert data.numpy_arrays(path).num_classes == 0
  z = data.numpy_arrays(str(tmp_path / "x.npz"), num_classes=3)
  assert np.array_equal(z.x, images) and np.array_equal(z.labels, labels)
  assert z.max_value == 255


def test_numpy_files_that_cannot_work_are_refused(tmp_path):
  files.numpy_files(tmp_path)
  p = lambda name: str(tmp_path / name)
  load = data.numpy_arrays
  refused(lambda: load(p("x.npy"), num_classes=3), "there is no file ''")
  refused(
    lambda: load(p("x.npy"), p("labels.npy"), 2),
    "labels.npy has label 2 at example 2; labels must be 0 to 1",
  )
  refused(
    lambda: load(p("x.npy"), p("x.npy"), 2), "must hold 12 integer labels"
  )
  refused(
    lambda: load(p("labels.npy")),
    "labels.npy: x must be .num, ...., one row an",
  )
  refused(lambda: load(p("x.npy"), scale=0.0), "scale must be finite and not 0")
  np.save(p("points.npy"), np.zeros((5, 2)))
  refused(lambda: load(p("points.npy"), flip=True), "flip is for images")
  np.savez(p("y.npz"), y=np.zeros((5, 2)))
  refused(lambda: load(p("y.npz")), "must have an array x; it has y")
  np.save(p("object.npy"), np.array([{}]), allow_pickle=True)
  refused(lambda: load(p("object.npy")), "object.npy is damaged or truncated")
  for name in ("x.npy", "x.npz"):
    content = (tmp_path / name).read_bytes()
    for end in (0, 5, len(content) - 40):
      (tmp_path / name).write_bytes(content[:end])
      refused(lambda name=name: load(p(name)), f"{name} is damaged or trunc")


@pytest.mark.skipif(
  not pathlib.Path("/proc/self/fd").exists(), reason="what is open is unknown"
)
@pytest.mark.parametrize("load", [data.numpy_arrays, learned.load])
def test_a_damaged_file_is_not_left_open(tmp_path, load):
  """Numpy's reader leaves it to the garbage collector, which warns."""
  path = tmp_path / "x.npz"
  np.savez(path, x=np.zeros((5, 2)))
  path.write_bytes(path.read_bytes()[:-40])
  gc.disable()
  try:
    refused(lambda: load(str(path)), "x.npz is ")
    opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(999)]
    assert os.path.realpath(path) not in opened
  finally:
    gc.enable()
