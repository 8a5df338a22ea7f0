"""Pictures of every kind as uint8: upright, whole in range, nothing hidden."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from diffflow_jax import data
from diffflow_jax.data import images
from tests import files
from tests.test_data_files import refused

CORNERS = np.array([[250, 150], [100, 20]], np.uint8)  # no symmetry at all


def _blocks(side=16):
  """A picture whose four quarters are of the greys of CORNERS."""
  return CORNERS.repeat(side // 2, 0).repeat(side // 2, 1)


def _read(image, channels=1, size=2, path=None, **how):
  """What `to_square` makes of an image, through a file if a path is given."""
  if path is not None:
    image.save(path, **how.pop("save", {}))
    image = Image.open(path)
  return images.to_square(image, size, channels, **how)


# EXIF 2.3: where row 0 and column 0 of the stored picture belong, as what is
# done to the upright one before it is stored
STORED = {
  1: lambda a: a,
  2: lambda a: a[:, ::-1],  # top, right
  3: lambda a: a[::-1, ::-1],  # bottom, right
  4: lambda a: a[::-1],  # bottom, left
  5: lambda a: a.T,  # left, top
  6: lambda a: np.rot90(a),  # right, top: shown turned clockwise
  7: lambda a: a.T[::-1, ::-1],  # right, bottom
  8: lambda a: np.rot90(a, -1),  # left, bottom: shown turned anticlockwise
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_pictures_are_turned_as_their_orientation_says(
  orientation, suffix, tmp_path
):
  exif = Image.Exif()
  exif[0x0112] = orientation
  stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](_blocks())))
  how = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
  path = tmp_path / f"a.{suffix}"
  x = _read(stored, path=path, resize="box", save={"exif": exif, **how})
  np.testing.assert_allclose(x[..., 0], CORNERS, atol=2)


def test_16_bit_greys_are_spread_over_their_range(tmp_path):
  ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
  want = ramp / 257.0  # 65535 is white
  assert abs(want.mean() - 127.5) < 0.1
  for suffix in ("png", "tif"):
    x = _read(Image.fromarray(ramp), size=64, path=tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(x[..., 0], want, atol=0.51)
  np.testing.assert_allclose(_read(ramp, size=64)[..., 0], want, atol=0.51)
  colours = _read(Image.fromarray(ramp), 3, 64)
  np.testing.assert_allclose(colours, want[..., None] + np.zeros(3), atol=0.51)
  # a dark picture stays dark: its own extremes are not black and white
  assert _read(Image.fromarray(ramp // 256), size=64).max() <= 1


def test_float_pictures_are_0_to_1_or_refused_with_their_range(tmp_path):
  ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
  path = tmp_path / "a.tif"
  x = _read(Image.fromarray(ramp), size=8, path=path)
  np.testing.assert_allclose(x[..., 0], 255 * ramp, atol=0.51)
  for bad, words in (
    (ramp * 255, "floats of 0 to 255 do not say"),
    (ramp - 0.5, "floats of -0.5 to 0.5 do not say"),
    (np.full((8, 8), np.nan, np.float32), "floats of nan to nan do not"),
    (np.arange(64, dtype=np.int32).reshape(8, 8), "32-bit integers of 0 to 63"),
  ):
    refused(lambda bad=bad: _read(Image.fromarray(bad), path=path), words)


HIDDEN = (200, 10, 30)  # a colour below transparent pixels


def _transparent(mode):
  """16x16: the left half grey 80 and opaque, the right half hidden."""
  rgba = np.full((16, 16, 4), (*HIDDEN, 0), np.uint8)
  rgba[:, :8] = (80, 80, 80, 255)
  image = Image.fromarray(rgba)
  if mode == "P":  # as in a GIF: one entry of the palette is transparent
    image = Image.fromarray(np.repeat([[0] * 8 + [1] * 8], 16, 0).astype("u1"))
    image.putpalette([80, 80, 80, *HIDDEN], "RGB")
    image.info["transparency"] = 1
  elif mode == "RGB":  # PNG's colour that means transparent
    image = Image.fromarray(rgba[..., :3])
    image.info["transparency"] = HIDDEN
  else:
    image = image.convert(mode)
  return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P", "RGB"])
def test_what_is_transparent_shows_the_background(mode, tmp_path):
  for background, colour in (
    ("white", (255, 255, 255)),
    ("black", (0, 0, 0)),
    ("#102030", (16, 32, 48)),
  ):
    x = _read(_transparent(mode), 3, 16, background=background)
    assert np.all(x[:, :8] == 80) and np.all(x[:, 8:] == colour)
  kept = _read(_transparent(mode), 4, 16)
  assert np.all(kept[:, :8] == (80, 80, 80, 255)) and not kept[:, 8:].any()
  # nor does a hidden colour bleed into what shows when it is resized
  small = _read(_transparent(mode), 4, 3, resize="bilinear")
  shown = small[..., 3] > 0
  # Pillow holds colour times opacity in 8 bits
  off = np.abs(small[shown][:, :3].astype(float) - 80)
  assert np.all(off <= 1 + 0.6 * 255 / small[shown][:, 3:])


def test_half_transparent_is_half_of_each():
  half = np.full((4, 4, 4), (200, 100, 0, 128), np.uint8)
  x = _read(Image.fromarray(half), 3, 4, background="white")
  want = np.array([200, 100, 0]) * 128 / 255 + 255 * 127 / 255
  np.testing.assert_allclose(x, want + np.zeros_like(x), atol=1)


@pytest.mark.parametrize(
  "mode,colour,want",
  [
    ("1", 1, (255, 255, 255)),
    ("L", 77, (77, 77, 77)),
    ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("YCbCr", (128, 128, 128), (128, 128, 128)),
    ("HSV", (85, 255, 255), (0, 255, 0)),
  ],
)
def test_other_colours_become_rgb(mode, colour, want):
  x = _read(Image.new(mode, (6, 4), colour), 3)
  np.testing.assert_allclose(x, np.array(want) + np.zeros_like(x), atol=2)


@pytest.mark.parametrize("side", [10, 24, 61])
@pytest.mark.parametrize(
  "resize,jax_name",
  [("bicubic", "cubic"), ("bilinear", "linear"), ("lanczos", "lanczos3")],
)
def test_resizing_is_antialiased_as_jax_does_it(resize, jax_name, side):
  """Fine detail far above the new grid's limit: sampling would alias it."""
  # no overshoot that 8 bits cut off between Pillow's two passes
  x = files.RNG().integers(90, 166, (40, 40, 3), dtype=np.uint8)
  want = jax.image.resize(
    jnp.asarray(x, jnp.float32), (side, side, 3), jax_name, antialias=True
  )
  got = images.to_square(x, side, 3, resize=resize)
  np.testing.assert_allclose(got, want, atol=1.3)
  picked = images.to_square(x, side, 3, resize="nearest")
  assert np.abs(picked.astype(int) - np.asarray(want)).max() > 10


def test_boxes_average_and_the_aspect_is_kept_by_crop_or_pad():
  wide = np.broadcast_to(np.arange(0, 60, 1, np.uint8), (20, 60))
  cropped = images.to_square(wide.copy(), 5, 1, resize="box")
  want = wide[:, 20:40].reshape(5, 4, 5, 4).mean((1, 3))
  np.testing.assert_allclose(cropped[..., 0], want, atol=0.51)
  padded = images.to_square(wide.copy(), 6, 1, "box", "pad", "white")[..., 0]
  assert np.all(padded[[0, 1, 4, 5]] == 255)
  want = wide.reshape(2, 10, 6, 10).mean((1, 3))
  np.testing.assert_allclose(padded[2:4], want, atol=0.51)
  clear = images.to_square(wide.copy(), 6, 4, "box", "pad")
  assert not clear[[0, 1, 4, 5], :, 3].any() and np.all(clear[2:4, :, 3] == 255)


def test_options_that_are_none_are_refused(tmp_path):
  files.image_folder(tmp_path)
  load = lambda **k: data.folder(str(tmp_path), 8, **k)
  refused(lambda: load(resize="cubic"), "resize must be one of bicubic, lancz")
  refused(lambda: load(fit="stretch"), "fit must be one of crop, pad, not 'st")
  for colour in ("snoww", 3, None):
    refused(lambda c=colour: load(background=c), "background must be a colour")
  refused(
    lambda: images.to_square(np.zeros((4, 4, 2), "u1"), 2, 3), "not uint8 of "
  )
  refused(lambda: images.to_square(np.zeros((4, 4)), 2, 3), "a picture must be")


def test_junk_and_hidden_files_are_left_out(tmp_path):
  files.image_folder(tmp_path)
  real = data.folder(str(tmp_path), 8)
  for name in (".ipynb_checkpoints", "__MACOSX", "cat/.ipynb_checkpoints"):
    (tmp_path / name).mkdir()
    source = (tmp_path / "cat" / "0.jpg").read_bytes()
    (tmp_path / name / "0.jpg").write_bytes(source)
  for name in ("cat/._a.png", ".hidden.png", ".DS_Store", "Thumbs.db"):
    (tmp_path / name).write_bytes(b"junk")
    (tmp_path / "dog" / name.split("/")[-1]).write_bytes(b"junk")
  d = data.folder(str(tmp_path), 8)
  assert d.num == real.num == 12 and d.class_names == ("cat", "dog")
  for key, value in real.batch(0, 0, 12).items():
    assert np.array_equal(value, d.batch(0, 0, 12)[key])


def test_loose_images_beside_classes_and_loops_are_refused(tmp_path):
  files.image_folder(tmp_path)
  loose = tmp_path / "loose.png"
  loose.write_bytes((tmp_path / "dog" / "1.png").read_bytes())
  load = lambda: data.folder(str(tmp_path), 8)
  refused(load, "holds images, as loose.png, and folders, as cat: either all")
  loose.rename(tmp_path / "notes.txt")  # what is no image may lie there
  assert load().num == 12
  (tmp_path / "again").symlink_to(tmp_path)
  refused(load, "again is a link to .*, which holds ")
  (tmp_path / "again").unlink()
  (tmp_path / "itself").symlink_to("itself")
  assert load().num == 12
  (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
  refused(lambda: data.inspect(load()), "cannot be read: No such .*gone.png")
  (tmp_path / "dog" / "gone.png").unlink()
  (tmp_path / "dog" / "a\nb.png").write_bytes(b"")
  refused(lambda: data.inspect(load()), r"a\\nb.png cannot be decoded")


def test_of_several_pictures_in_a_file_the_first_is_read_and_said_once(
  tmp_path, caplog
):
  frames = [Image.new("RGB", (8, 8), (60 * i,) * 3) for i in range(1, 4)]
  for name in ("a.gif", "b.webp", "c.tif", "d.png"):
    how = {"lossless": True} if name == "b.webp" else {}
    frames[0].save(
      tmp_path / name, save_all=True, append_images=frames[1:], **how
    )
  d = data.folder(str(tmp_path), 8)
  with caplog.at_level("WARNING", "diffflow_jax"):
    x = d.batch(0, 0, 4)["x"]
    d.batch(0, 1, 4)
  np.testing.assert_allclose(x, 60, atol=1)
  assert len(caplog.records) == 1 and "holds 3 pictures" in caplog.text
