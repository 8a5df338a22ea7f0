"""Held-out examples: a split of any data set, and none in both parts."""

import numpy as np
import pytest

from diffflow_jax import data
from diffflow_jax.data import splits
from tests import files
from tests.test_data_files import refused

X = files.RNG().integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
OWN = data.Arrays(X, np.arange(40) % 4)


def _rows(dataset):
  """The contents of all examples."""
  return _contents(dataset.take(np.arange(len(dataset))))


def _contents(batch):
  return {row.tobytes() for row in batch["x"]}


class _Bare:
  """A data set of one's own with no more than it must have."""

  shape, num_classes = (4, 4, 1), 0

  def __init__(self, x):
    self._x = x

  def batch(self, seed, step, size, process=0, num_processes=1):
    rng = np.random.default_rng((seed, step))
    return {"x": self._x[rng.integers(0, len(self._x), size)]}

  def augment(self, key, x):
    return x

  def to_float(self, x):
    return np.float32(x / 127.5 - 1)


class _Countable(_Bare):
  def __len__(self):
    return len(self._x)

  def take(self, index):
    return {"x": self._x[index]}


MADE = {
  "arrays": lambda root: OWN,
  "mapped": lambda root: data.numpy_arrays(str(root / "x.npy")),
  "folder": lambda root: data.folder(str(root / "images"), 8),
  "own": lambda root: _Countable(X),
  "split again": lambda root: splits.split(OWN, num=3)[0],
}


@pytest.mark.parametrize("name", MADE)
def test_both_parts_are_all_and_nothing_is_in_both(name, tmp_path):
  np.save(tmp_path / "x.npy", X)
  files.image_folder(tmp_path / "images")
  whole = MADE[name](tmp_path)
  train, held = splits.split(whole, fraction=0.25)
  assert len(held) == len(whole) // 4
  assert len(train) + len(held) == len(whole)
  assert not _rows(train) & _rows(held)
  assert _rows(train) | _rows(held) == _rows(whole)
  again = splits.split(MADE[name](tmp_path), num=len(whole) // 4)
  assert _rows(again[1]) == _rows(held)  # the same two, whenever it is asked
  for part in (train, held):
    # an epoch reads all of its own and nothing else
    assert _contents(part.batch(5, 0, len(part))) == _rows(part)
    assert part.shape == whole.shape and part.num_classes == whole.num_classes
    one, two = (part.batch(0, 1, 6, p, 2)["x"] for p in range(2))
    both = part.batch(0, 1, 6)["x"]
    assert np.array_equal(both, np.concatenate([one, two]))
  assert splits.overlap(train, held, len(held)) == 0.0
  assert splits.overlap(whole, held, len(held)) == 1.0


def test_labels_go_with_their_examples():
  train, held = splits.split(OWN, num=10)
  of = {x.tobytes(): k for x, k in zip(X, OWN.labels, strict=True)}
  for part in (train, held):
    batch = part.batch(3, 0, 8)
    assert [of[x.tobytes()] for x in batch["x"]] == list(batch["label"])
    assert len(part.labels) == len(part)


def test_copies_of_a_held_out_example_are_not_trained_on():
  twice = data.Arrays(np.concatenate([X, X]))
  train, held = splits.split(twice, num=20)
  assert not _rows(train) & _rows(held)
  assert len(train) < 60


def test_a_configs_held_out_is_a_split_or_other_data():
  make = lambda settings: data.digits(**settings)
  d = data.digits()
  train, (held, num) = splits.held_out(d, dict(num=100), make)
  assert num == 100 and len(train) == len(d) - 100
  assert not _rows(train) & _rows(held)
  train, (held, num) = splits.held_out(d, dict(num=50, split="test"), make)
  assert train is d and len(held) == 359 and num == 50
  assert splits.held_out(d, dict(num=0), make) == (d, None)
  _, (_, num) = splits.held_out(d, dict(fraction=0.1), make)
  assert num == 144
  moons = data.moons()  # drawn without end: another seed draws others
  assert splits.held_out(moons, dict(num=9), make) == (moons, (moons, 9))


def test_held_out_examples_that_are_trained_on_are_refused():
  d = data.digits()
  refused(
    lambda: splits.check_apart(d, data.digits("all"), 300),
    "8.% of the held-out examples .* are training examples: give num",
  )
  splits.check_apart(d, data.digits("test"), 300)
  splits.check_apart(data.moons(), data.moons(), 300)
  bare = _Bare(X)  # nothing to split by, and the same examples for any seed
  refused(lambda: splits.check_apart(bare, bare, 20), "100% of the held-out")


def test_the_same_files_under_another_setting_are_refused(tmp_path):
  files.image_folder(tmp_path)
  one, two = (data.folder(str(tmp_path), size) for size in (8, 9))
  refused(lambda: splits.check_apart(one, two, 4), "100% of the held-out")


@pytest.mark.parametrize(
  "settings,words",
  [
    (dict(fraction=1.0), r"fraction must be in \(0, 1\), not 1.0"),
    (dict(fraction=0), r"fraction must be in \(0, 1\), not 0"),
    (dict(num=40), "40 of 40 examples cannot be held out"),
    (dict(num=3, fraction=0.1), "give one of num and fraction"),
    (dict(fraction=0.1, flip=True), "with flip give num"),
    (dict(num=41, flip=True), "num = 41, but the held-out data has 40"),
  ],
)
def test_splits_that_cannot_be_are_refused(settings, words):
  make = lambda other: OWN
  refused(lambda: splits.held_out(OWN, settings, make), words)


def test_what_cannot_be_split_says_what_it_lacks():
  refused(lambda: splits.split(data.moons(), num=3), "no len.. and take")
  refused(
    lambda: splits.held_out(_Bare(X), dict(fraction=0.1), None),
    "with a _Bare give num",
  )
