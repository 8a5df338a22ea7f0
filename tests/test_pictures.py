"""Pictures of samples: classes in columns, words whole, pixels square."""

import numpy as np
from PIL import Image, ImageDraw
import pytest

from diffflow_jax import plots
from diffflow_jax.plots import lettering, trajectory
from diffflow_jax.plots.class_grid import class_grid

LONG = ["a, b", "Fringilla montifringilla", "T-shirt/top", "great white shark"]


def colours(labels, side=8):
  """Images of one colour each, that of their class, which is not grey."""
  rgb = np.stack([labels * 5, 255 - labels * 3, 40 + 0 * labels], -1)
  return np.tile(rgb[:, None, None] / 127.5 - 1.0, (1, side, side, 1))


def place(picture, label):
  """(mask, first and last column, first and last row) of a class's pixels."""
  mask = (picture == [label * 5, 255 - label * 3, 40]).all(-1)
  x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
  return mask, (x[0], x[-1]), (y[0], y[-1])


@pytest.mark.parametrize("num", [3, 10, 37, 100])
@pytest.mark.parametrize("classes", [2, 10, 25])
@pytest.mark.parametrize("names", [(), LONG * 7], ids=["numbers", "names"])
def test_a_class_is_a_column_under_its_name(num, classes, names):
  labels = np.arange(num) % classes
  order = np.random.default_rng(0).permutation(num)
  picture = class_grid(colours(labels)[order], labels[order], names)
  assert 400 <= picture.shape[1] <= 1500
  places = [place(picture, k) for k in range(min(num, classes))]
  sizes = {
    mask.sum() / (labels == k).sum() for k, (mask, *_) in enumerate(places)
  }
  zoom = np.sqrt(sizes.pop()) / 8  # every image whole, all of one size
  assert not sizes and zoom == round(zoom)
  for (_, x, y), (_, x_next, y_next) in zip(places, places[1:], strict=False):
    assert x[1] < x_next[0] or y[1] < y_next[0]  # beside it, or a band below
  for _, x, y in places:
    above = picture[max(y[0] - 24, 0) : y[0], x[0] : x[1] + 1]
    assert (above < 100).any()  # letters


def test_a_class_beyond_the_names_has_its_number():
  images, labels = colours(np.arange(3)), np.arange(3)
  named = class_grid(images, labels, ["0", "1"])
  np.testing.assert_array_equal(named, class_grid(images, labels))
  other = class_grid(images, labels, ["0", "7"])
  changed = np.flatnonzero((other != named).any((0, 2)))
  _, (left, right), _ = place(named, 1)
  assert left < changed[0] and changed[-1] < right


@pytest.mark.parametrize("text", ["Ågypjq", "a b\nlonger", "W", "ˆx…"])
def test_words_are_whole(text):
  got = lettering.draw(text)
  large = Image.new("L", (400, 200), 255)
  ImageDraw.Draw(large).multiline_text(
    (100, 100),
    text,
    fill=32,
    font=lettering._font(),
    spacing=lettering.SPACING,
    align="center",
  )
  ink = lambda a: (255 - np.asarray(a, int)).sum()
  assert ink(got) == ink(large)


def test_headings_fit_and_stand_upright_where_no_line_is_wide_enough():
  wide = lettering.headings(LONG, 120)
  narrow = lettering.headings(LONG, 30)
  for pictures, width in ((wide, 120), (narrow, 30)):
    assert all(p.shape[1] <= width for p in pictures)
    assert len({p.shape[0] for p in pictures}) == 1
  assert narrow[0].shape[0] > 2 * wide[0].shape[0]
  assert lettering.headings(["x" * 100], 10)[0].shape[0] < 400


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_keeps_every_pixel_a_square(channels, tmp_path):
  images = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, channels))
  path = tmp_path / "one.png"
  plots.save_images(path, images)
  with Image.open(path) as file:
    got = np.asarray(file)
  assert got.shape[:2] == (416, 416)
  inner = got[8:-8, 8:-8].reshape(8, 50, 8, 50, -1)
  assert (inner == inner[:, :1, :, :1]).all()
  shown = 1 if channels == 1 else 3
  want = (images[0, ..., :shown] + 1.0) * 127.5
  assert np.abs(inner[:, 0, :, 0] - want).max() <= 0.51


def test_images_are_tiled_in_reading_order():
  images = np.arange(3)[:, None, None, None] * np.ones((3, 2, 2, 1)) - 1.0
  got = plots.image_grid(images, columns=2, pad=0)[..., 0]
  assert got.shape == (4, 4)
  assert list(got[[0, 0, 2, 2], [0, 2, 0, 2]]) == [0, 128, 255, 255]
  assert plots.image_grid(images).shape == (5, 5, 1)  # one light pixel between


def way_of_images():
  labels = np.arange(4) % 2
  z = np.stack([colours(labels + 10 * i) for i in (1, 2, 0)])
  x_hat = np.stack([colours(labels + 10 * i) for i in (3, 4, 0)])
  return trajectory.Frames(z, x_hat, labels, ("cat", "dog"))


def way_of_points():
  angle = np.linspace(0, 2 * np.pi, 400)
  circle = np.stack([np.cos(angle), np.sin(angle)], -1)
  return trajectory.Frames(*np.stack([[circle, 0.5 * circle, circle]] * 2))


def test_an_animation_has_z_beside_x_hat_and_holds_its_end(tmp_path):
  path = tmp_path / "way.gif"
  trajectory.save(path, way_of_images(), ["a", "b", "sample"])
  with Image.open(path) as file:
    assert file.n_frames == 3 and file.size[0] >= 800
    times, frames = [], []
    for i in range(3):
      file.seek(i)
      times.append(file.info["duration"])
      frames.append(np.asarray(file.convert("RGB"), int))
  assert times[-1] >= 2000 and max(times[:-1]) <= 200
  half = frames[0].shape[1] // 2
  for frame, left, right in zip(frames, (10, 20, 0), (30, 40, 0), strict=True):
    for side, first in ((frame[:, :half], left), (frame[:, half:], right)):
      for label in (first, first + 1):
        assert place(side, label)[0].sum() >= 2 * 32**2


@pytest.mark.parametrize("way", [way_of_images, way_of_points])
def test_a_strip_is_written(way, tmp_path):
  path = tmp_path / "way.png"
  trajectory.save(path, way(), ["a", "b", "sample"])
  with Image.open(path) as file:
    assert file.size[0] > 500 and file.size[1] > 200


def test_other_files_are_refused():
  with pytest.raises(ValueError, match="written to .png or .gif"):
    trajectory.save("way.mp4", way_of_points(), ["a", "b", "sample"])


def extent(picture):
  """Width and height of what is coloured."""
  picture = np.asarray(picture, int)[..., :3]
  mask = np.ptp(picture, axis=-1) > 60
  return [np.ptp(np.flatnonzero(mask.any(i))) for i in (0, 1)]


def test_points_have_equal_axes(tmp_path):
  frames = way_of_points()
  panel = trajectory._points(frames.z[0], 1.5, 400)
  width, height = extent(panel)
  assert abs(width - height) <= 1 and width > 200
  trajectory.save(tmp_path / "way.gif", frames, ["a", "b", "sample"])
  plots.save_points(tmp_path / "points.png", frames.z[0] * [1.0, 0.5])
  with Image.open(tmp_path / "points.png") as file:
    picture = np.asarray(file)
  assert picture.shape[1] >= 400
  picture = picture[80:]  # below the legend
  x, y = extent(picture)
  assert abs(x - 2 * y) <= 4, (x, y)
