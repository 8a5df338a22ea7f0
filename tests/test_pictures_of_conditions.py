"""Pictures of data of any axes, and of the images that they are told."""

import types

import numpy as np
from PIL import Image
import pytest

from diffflow_jax import cli, data, plots
from diffflow_jax.data import condition_findings
from diffflow_jax.plots import batches, series, tiles, trajectory
from diffflow_jax.plots.class_grid import class_grid
from diffflow_jax.process.conditions import Condition, Given
from diffflow_jax.runs import card as card_lib, generate, memory, request
from diffflow_jax.training import checks
from tests.test_pictures import colours, place

RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


def recipe(shape, conditions=None, num_classes=0):
  card = card_lib.Card(shape, num_classes, conditions=conditions or {})
  return types.SimpleNamespace(card=card)


@pytest.mark.parametrize("num", [1, 4, 12])
@pytest.mark.parametrize("classes", [1, 3, None])
def test_each_sample_stands_right_of_what_it_was_told(num, classes):
  index = np.arange(num)
  labels = None if classes is None else index % classes
  picture = class_grid(
    colours(index), labels, beside={"small": colours(index + 20)}
  )
  assert 400 <= picture.shape[1] <= 1500
  sides = set()
  for i in index:
    mask, x, y = place(picture, i)
    told, x_told, y_told = place(picture, i + 20)
    assert mask.sum() == told.sum() == (x[1] - x[0] + 1) ** 2
    assert y == y_told
    sides.add((x[0] - x_told[0], mask.sum()))
    within = x[0] - x_told[1] - 1
    assert 0 < within <= (x[1] - x[0]) // 8
    for other in index:  # what belongs to another is further away
      _, x_other, y_other = place(picture, other)
      if y_other == y and x_other[1] < x_told[0]:
        assert x_told[0] - x_other[1] - 1 > within
  assert len(sides) == 1


def test_frames_of_a_video_are_in_a_row_and_what_it_was_told_above():
  video = np.repeat(colours(np.arange(12))[:, None], 12, axis=1)  # (n, t, …)
  video = video.swapaxes(0, 1)[:1].astype(np.float32)  # frame k: colour k
  flat = tiles.flat(video)
  assert flat.shape == (1, 8, 8 * 8 + 7, 3)
  np.testing.assert_array_equal(flat[:, :, :8], video[:, 0])
  np.testing.assert_array_equal(flat[:, :, -8:], video[:, 11])
  told = np.repeat(colours(np.array([30]))[:, None], 12, axis=1)
  picture = class_grid(video, beside={"low": told})
  left = [place(picture, k)[1][0] for k in (0, 2, 3, 5, 6, 8, 9, 11)]
  assert left == sorted(left)
  assert place(picture, 30)[2][1] < place(picture, 0)[2][0]
  deep = normal(2, 5, 3, 4, 4, 1)
  np.testing.assert_array_equal(tiles.flat(deep), tiles.flat(deep[:, 2]))


def test_images_that_are_told_are_blocks_of_their_pixels():
  value, mask = normal(3, 2, 2, 1), np.array([True, False, True])
  known = {
    "small": Condition("image", (2, 2, 1)),
    "v": Condition("vector", (4,)),
  }
  cond = {"small": Given(value, mask), "v": Given(normal(3, 4), mask)}
  told = tiles.told(known, cond, (8, 4))
  assert list(told) == ["small"]
  for i in (0, 2):
    want = np.kron(value[i, ..., 0], np.ones((4, 2)))
    np.testing.assert_array_equal(told["small"][i, ..., 0], want)
  assert np.isnan(told["small"][1]).all() and np.isfinite(value).all()
  assert tiles.told(known, None, (8, 4)) == {}


def test_a_look_shows_pairs():
  x, small = normal(5, 8, 8, 3), normal(5, 8, 8, 1)
  _, ax = batches.subplots(figsize=(3, 3))
  joined = batches._joined(ax, x, {"small": small})
  assert joined.shape == (5, 8, 17, 3)
  np.testing.assert_array_equal(joined[:, :, 9:], x)
  np.testing.assert_array_equal(joined[:, :, :8], small.repeat(3, -1))
  assert ax.get_title() == "small | x"


def test_a_series_is_lines_of_its_channels_and_what_it_was_told(
  tmp_path, monkeypatch
):
  made = []
  subplots = lambda *a, **k: made.append(real(*a, **k)) or made[-1]
  real = series.subplots
  monkeypatch.setattr(series, "subplots", subplots)
  monkeypatch.setattr(series, "MOST", 4)
  x, told = normal(9, 16, 2), normal(9, 16, 1)
  labels = np.arange(9) % 3
  path = tmp_path / "x.png"
  plots.save_series(path, x, labels, ("a", "b"), {"coarse": told})
  panels = made[0][1].ravel()
  assert len(panels) == 4
  for i in range(4):
    dashed, *lines = panels[i].get_lines()
    np.testing.assert_array_equal([l.get_ydata() for l in lines], x[i].T)
    np.testing.assert_array_equal(dashed.get_ydata(), told[i, :, 0])
    assert dashed.get_linestyle() == "--"
    assert panels[i].get_title() == ["a", "b", "2"][i % 3]


SHAPES = [(1,), (2,), (5,), (16, 1), (16, 3), (6, 9, 1), (8, 8, 4),
          (3, 4, 4, 1), (12, 4, 4, 3), (2, 3, 4, 4, 1)]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_data_of_any_axes_have_pictures(shape, tmp_path):
  run = recipe(shape, num_classes=3)
  x, labels = 0.5 * normal(4, *shape), np.arange(4) % 3
  files = [tmp_path / f"{name}.png" for name in ("sample", "look", "way")]
  generate.save_picture(files[0], run, x, labels)
  plots.save_batch(files[1], x, labels)
  frames = trajectory.Frames(np.stack([2 * x, x]), np.stack([x, x]), labels)
  trajectory.save(files[2], frames, ["a", "sample"])
  for path in files:
    with Image.open(path) as picture:
      assert min(picture.size) >= 150 and max(picture.size) <= 2000
      assert np.asarray(picture.convert("L")).std() > 5


def test_cond_of_other_samples_is_refused(tmp_path):
  known = {"small": Condition("image", (2, 2, 1))}
  cond = {"small": Given(normal(3, 2, 2, 1), np.ones(3, bool))}
  with pytest.raises(cli.Refusal, match="cond of 2 samples is of 3"):
    generate.save_picture(
      tmp_path / "x.png",
      recipe((4, 4, 1), known),
      normal(2, 4, 4, 1),
      None,
      cond,
    )


def test_memory_counts_what_is_told(monkeypatch):
  known = {
    "text": Condition("sequence", (1024, 512)),
    "law": Condition("vector", (3,)),
  }
  card = recipe((2,), known).card
  told = 4 * (1024 * 512 + 3) + 1024 + 1
  assert memory.of_conditions(known) == told
  run = types.SimpleNamespace(card=card, say=str)
  for size, check in (
    (6 * 4 * 2 + told, lambda: checks.check_examples("batch_size", 8, card)),
    (2 * 4 * 2 + told, lambda: request._check_memory(run, 8, 8)),
  ):
    for spare in (0, 1):
      there = 8 * size - 1 + spare
      monkeypatch.setattr(memory, "available", lambda: there)  # noqa: B023
      monkeypatch.setattr(memory, "host", lambda: there)  # noqa: B023
      if spare:
        check()
      else:
        with pytest.raises(cli.Refusal, match="would take .* of memory"):
          check()


def test_arrays_that_lie_in_float64_are_odd():
  given = {"v": RNG.normal(size=(6, 3)), "w": normal(6, 3)}
  held = data.Arrays(normal(6, 2), given=given)
  batch = held.take(np.arange(6))
  found = condition_findings.told(held, batch)
  (said,) = condition_findings.warnings(found, batch)
  assert said.startswith("v is float64, and becomes float32")
