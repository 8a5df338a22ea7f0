"""EDM's augmentation: its geometry, its labels, and how networks are told."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffflow_jax as dfj
from diffflow_jax import config_files, data
from diffflow_jax.cli import Refusal
from diffflow_jax.data import augmentation, inspection
from diffflow_jax.runs import datasets
from diffflow_jax.training import numbers
from tests import commands
from tests.runs import final_arrays

WARP = jax.jit(augmentation.warp)


def a_of(num=1, **given):
  """(num, 8), zero but for a0 … a7 of names."""
  a = np.zeros((num, 8), np.float32)
  for name, value in given.items():
    a[:, int(name[1])] = value
  return a


def images(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_nothing_drawn_is_nothing_done():
  x = images(3, 6, 8, 2)
  np.testing.assert_array_equal(WARP(x, a_of(3)), x)
  np.testing.assert_array_equal(augmentation.label(a_of(3)), np.zeros((3, 9)))


def test_flips_and_whole_pixels_are_exact():
  """Against NumPy's own; beyond the edge as np.pad's "reflect"."""
  x = images(1, 8, 16, 3)
  np.testing.assert_array_equal(WARP(x, a_of(a0=1.0)), x[:, :, ::-1])
  np.testing.assert_array_equal(WARP(x, a_of(a1=1.0)), x[:, ::-1])
  wide = np.pad(x, ((0, 0), (16, 16), (16, 16), (0, 0)), mode="reflect")
  for right, down in ((3, 0), (0, -2), (-7, 5), (12, 11)):
    # a6 of a side of 16 is 2 pixels, a7 of one of 8 is 1
    got = WARP(x, a_of(a6=right / 2.0, a7=down / 1.0))
    want = wide[:, 16 - down : 24 - down, 16 - right : 32 - right]
    np.testing.assert_array_equal(got, want)


def test_a_quarter_turn_and_what_it_is_called():
  x = images(1, 8, 8, 1)
  a = a_of(a3=np.pi / 2)
  got = WARP(x, a)
  np.testing.assert_allclose(got, np.rot90(x, axes=(1, 2)), atol=2e-5)
  np.testing.assert_allclose(
    augmentation.label(a)[0, 3:5], [-1.0, 1.0], atol=1e-6
  )


def by_matrices(a, w, h):
  """Where a point comes from, by Table 6's matrices and one inverse."""
  a0, a1, a2, a3, a4, a5, a6, a7 = a.astype(np.float64)

  def scale(x, y):
    return np.diag([x, y, 1.0])

  def rotate(angle):
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

  move = np.eye(3)
  move[:2, 2] = w / 8 * a6, h / 8 * a7
  by = 2.0**0.2
  stretch = rotate(a4) @ scale(by**a5, by**-a5) @ rotate(-a4)
  flips = scale(1 - 2 * a0, 1) @ scale(1, 1 - 2 * a1)
  whole = move @ stretch @ rotate(-a3) @ scale(by**a2, by**a2) @ flips
  return np.linalg.inv(whole)


def test_all_transforms_compose_in_the_order_of_the_table():
  """An image of its own coordinates, and of a parabola of them, which cubic
  interpolation keeps, becomes those of the places that pixels come from."""
  h, w = 12, 20
  right, down = np.meshgrid(np.arange(w) - 9.5, np.arange(h) - 5.5)
  x = np.stack([right, down, right * down + 0.1 * right**2], axis=-1)
  rng = np.random.default_rng(1)
  a = rng.normal(size=(16, 8)).astype(np.float32) * 0.7
  a[:, :2] = rng.integers(0, 2, (16, 2))
  a[:, 3:5] = rng.uniform(-np.pi, np.pi, (16, 2))
  got = np.asarray(WARP(np.float32(np.stack([x] * 16)), a))
  checked = 0
  for one, image in zip(a, got, strict=True):
    places = np.stack([right, down, np.ones_like(right)], axis=-1)
    u, v, _ = np.moveaxis(places @ by_matrices(one, w, h).T, -1, 0)
    inside = (np.abs(u) < 8.5) & (np.abs(v) < 4.5)
    want = np.stack([u, v, u * v + 0.1 * u**2], axis=-1)
    np.testing.assert_allclose(image[inside], want[inside], atol=2e-4)
    checked += inside.sum()
  assert checked > 500


def test_what_is_drawn_is_the_table_s():
  """Rates and moments within 4 standard errors, and the labels' formulas."""
  num, p = 20000, 0.12
  a = np.asarray(augmentation.draw(jax.random.key(0), num, p))
  assert set(np.unique(a[:, :2])) == {0.0, 1.0}
  near = lambda got, want, std: abs(got - want) < 4 * std / np.sqrt(num)
  assert near(a[:, 0].mean(), 0.5, 0.5)  # the x-flip is drawn for every image
  assert near(a[:, 1].mean(), 0.5 * p, np.sqrt(0.06 * 0.94))
  on = a != 0.0
  for i in range(2, 8):
    assert near(on[:, i].mean(), p, np.sqrt(p * (1 - p))), i
  np.testing.assert_array_equal(on[:, 4], on[:, 5])
  np.testing.assert_array_equal(on[:, 6], on[:, 7])
  both = (on[:, 2] & on[:, 3]).mean()  # independently
  assert near(both, p * p, p)
  for i, var in ((2, 1.0), (5, 1.0), (6, 1.0), (7, 1.0), (3, np.pi**2 / 3)):
    drawn = a[on[:, i], i]
    assert abs(drawn.mean()) < 4 * np.sqrt(var / len(drawn)), i
    spread = np.sqrt(2.0) * var / np.sqrt(len(drawn))
    assert abs(drawn.var() - var) < 4 * spread, i
  want = np.stack(
    [
      *a.T[:3],
      np.cos(a[:, 3]) - 1,
      np.sin(a[:, 3]),
      a[:, 5] * np.cos(a[:, 4]),
      a[:, 5] * np.sin(a[:, 4]),
      *a.T[6:],
    ],
    axis=1,
  )
  np.testing.assert_allclose(augmentation.label(a), want, atol=1e-6)


def test_a_data_set_says_what_was_done():
  digits = data.digits("train")
  seen = data.augmented(digits)
  assert len(seen) == len(digits) and seen.shape == (8, 8, 1)
  assert list(seen.conditions) == ["label", "augmentation"]
  assert seen.conditions["augmentation"].shape == (9,)
  x = seen.to_float(seen.batch(3, 0, 64)["x"])
  key = jax.random.key(3)
  y, told = seen.augment(key, x)
  a = augmentation.draw(key, 64, 0.12)
  np.testing.assert_array_equal(told["augmentation"], augmentation.label(a))
  still = ~np.any(np.asarray(a), axis=1)
  assert 0 < still.sum() < 32
  np.testing.assert_array_equal(y[still], x[still])
  # the look shows them, and finds nothing wrong with it
  shown, *_ = inspection.as_seen(seen, seed=3, size=64)
  np.testing.assert_allclose(shown, y, atol=1e-6)
  assert not dfj.inspect(seen).refusals
  # nothing counts what is drawn without end
  assert not hasattr(data.augmented(_Endless()), "__len__")
  assert seen.values is None and digits.values is not None


class _Endless:
  shape, num_classes = (4, 4, 1), 0

  def batch(self, seed, step, size, process=0, num_processes=1):
    return {"x": np.zeros((size, 4, 4, 1), np.float32)}

  def augment(self, key, x):
    return x

  def to_float(self, x):
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize(
  "dataset,message",
  [
    (lambda: data.ring(), r"images \(h, w, c\), not examples of shape \(2,\)"),
    (
      lambda: data.Arrays(np.zeros((2, 4, 4, 1), np.uint8), flip=True),
      "leave flip out",
    ),
    (
      lambda: data.Arrays(
        np.zeros((2, 4, 4, 1), np.uint8),
        given={"small": np.zeros((2, 2, 2, 1), np.float32)},
      ),
      "not its image small",
    ),
  ],
)
def test_what_cannot_be_augmented_is_refused(dataset, message):
  with pytest.raises(ValueError, match=message):
    data.augmented(dataset())


def config_of(**dataset):
  import ml_collections

  return ml_collections.ConfigDict(
    dict(
      dataset=dict(name="digits", split="train", **dataset),
      held_out=dict(num=16, split="test"),
    )
  )


def test_a_config_augments_what_is_trained_on_alone():
  train, (held, _) = datasets.of(config_of(augmentation=0.12))
  assert train.probability == 0.12 and isinstance(held, data.Arrays)
  plain, _ = datasets.of(config_of(augmentation=0.0))
  assert isinstance(plain, data.Arrays)
  for value in (1.5, "much"):
    with pytest.raises(Refusal, match="config.dataset.augmentation must be"):
      datasets.of(config_of(augmentation=value))
  with pytest.raises(Refusal, match="config.dataset.augmentation: .*images"):
    config = config_of(augmentation=0.1)
    config.dataset, config.held_out = dict(name="ring", augmentation=0.1), {}
    datasets.of(config)


def test_the_step_tells_the_network_what_was_done_to_every_image():
  """It is never dropped, whatever becomes of the label."""
  from diffflow_jax.objective import objectives
  from diffflow_jax.training import state as state_lib

  dataset, told = data.augmented(data.digits("train"), 0.5), []

  def apply(params, z, logsnr, cond):
    told.append(cond)
    return params["params"] * z

  parts = objectives.flow_matching(), apply, optax.sgd(0.1), dataset, ()
  step = state_lib.make_train_step(*parts, seed=7, label_dropout=1 - 1e-7)
  state = state_lib.TrainState(
    step=jnp.int32(2),
    params={"params": jnp.ones(())},
    ema=(),
    opt_state=optax.sgd(0.1).init({"params": jnp.ones(())}),
    density=(),
    sums=numbers.no_sums(),
    bad_step=jnp.int32(-1),
  )
  step(state, dataset.batch(7, 2, 8))  # not jitted: cond is not traced
  (cond,) = told
  np.testing.assert_array_equal(cond["label"], 10)
  key = jax.random.split(jax.random.fold_in(jax.random.key(7), 2), 4)[3]
  want = augmentation.label(augmentation.draw(key, 8, 0.5))
  np.testing.assert_array_equal(cond["augmentation"].value, want)
  assert np.all(cond["augmentation"].mask)


class Tiny:
  """A network that compiles at once, and goes by what it is told."""

  def __init__(self, num_classes, conditions):
    assert list(conditions) == ["label", "augmentation"]

  def init(self, key, z, logsnr, cond):
    assert cond["augmentation"].value.shape[1:] == (9,)
    return {"params": {"a": jnp.zeros(9), "b": jnp.ones(11)}}

  def apply(self, params, z, logsnr, cond):
    weights = params["params"]
    out = weights["b"][cond["label"]]
    if "augmentation" in cond:
      out = out + cond["augmentation"].value @ weights["a"]
    return out[:, None, None, None] * z


def test_a_run_is_resumed_to_the_same_bits_and_sampled_without(tmp_path):
  """Samples are drawn under the null: the label of nothing done."""
  from diffflow_jax.training.loop import train

  config = config_files.load(f"{commands.ROOT}/configs/digits.py:smoke")
  config.network = dict(name="tests.test_augmentation:Tiny")
  config.dataset.augmentation, config.held_out.num = 0.5, 16
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  train(config, str(whole))
  shutil.copytree(whole, cut)
  shutil.rmtree(cut / "checkpoints" / "6")
  train(config, str(cut))
  one, two = final_arrays(whole, 6), final_arrays(cut, 6)
  assert one.keys() == two.keys()
  for name in one:
    assert np.array_equal(one[name], two[name]), name
  run = dfj.load(whole)
  assert np.all(run.params["params"]["a"]), "the network was told"
  assert run.sample(4, labels=[1], guidance=1.5).shape == (4, 8, 8, 1)
