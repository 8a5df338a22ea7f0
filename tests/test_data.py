"""Datasets: batch n is a function of (seed, n), the same on every topology."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import data
from diffflow_jax.process import levels

ALL = pytest.mark.parametrize("name", data.DATASETS)


@ALL
def test_a_batch_is_a_function_of_seed_and_step(name):
  one, two = data.DATASETS[name](), data.DATASETS[name]()
  two.batch(0, 3, 8)  # what was read before does not matter
  for key, value in one.batch(0, 7, 8).items():
    assert np.array_equal(value, two.batch(0, 7, 8)[key])
  assert not np.array_equal(one.batch(0, 7, 8)["x"], one.batch(0, 8, 8)["x"])
  assert not np.array_equal(one.batch(0, 7, 8)["x"], one.batch(1, 7, 8)["x"])


@ALL
def test_processes_share_one_global_batch(name):
  d = data.DATASETS[name]()
  whole = d.batch(0, 5, 12)
  parts = [d.batch(0, 5, 12, p, 3) for p in range(3)]
  for key, value in whole.items():
    assert np.array_equal(value, np.concatenate([p[key] for p in parts]))


def test_a_batch_that_processes_cannot_share_is_refused():
  with pytest.raises(ValueError, match="8 cannot be split over 3 processes"):
    data.digits().batch(0, 0, 8, 0, 3)


def test_every_epoch_visits_every_example_once_in_a_new_order():
  d = data.Arrays(np.arange(10)[:, None])
  read = np.concatenate([d.batch(0, n, 4)["x"][:, 0] for n in range(10)])
  epochs = read.reshape(4, 10)
  for epoch in epochs:
    assert sorted(epoch) == list(range(10))
  assert len({tuple(e) for e in epochs}) == 4


def test_digits_are_the_real_ones_split_without_overlap():
  train, test, all_ = (data.digits(s) for s in ("train", "test", "all"))
  assert (len(train.x), len(test.x), len(all_.x)) == (1438, 359, 1797)
  rows = lambda d: {x.tobytes() for x in d.x}
  assert len(rows(train) & rows(test)) == 0
  assert rows(train) | rows(test) == rows(all_)
  assert all_.x.max() == all_.max_value == 16
  x = np.asarray(train.to_float(train.x))
  assert x.shape[1:] == train.shape == (8, 8, 1)
  assert x.min() == -1.0 and x.max() == 1.0
  with pytest.raises(ValueError, match="train, test, all, not 'valid'"):
    data.digits("valid")


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
