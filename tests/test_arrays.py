"""One's own arrays: each mistake a sentence when the data set is made."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import data
from tests import files
from tests.test_data_files import refused

IMAGES = files.RNG().integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
FLOATS = files.RNG().standard_normal((12, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(12) % 3
Arrays = data.Arrays


def _sees(d):
  """All examples as the network gets them."""
  return np.asarray(d.to_float(d.take(np.arange(len(d)))["x"]))


def test_integers_are_spread_over_the_range_of_their_type():
  np.testing.assert_allclose(
    _sees(Arrays(IMAGES)), IMAGES / 127.5 - 1.0, atol=1e-6
  )
  masks = IMAGES > 127
  assert np.array_equal(_sees(Arrays(masks)), 2.0 * masks - 1.0)
  wide = IMAGES.astype(np.int64) * 16
  np.testing.assert_allclose(
    _sees(Arrays(wide, max_value=4080)), IMAGES / 127.5 - 1.0, atol=1e-6
  )
  refused(lambda: Arrays(wide), "x holds int64: say max_value, the integer")
  refused(lambda: Arrays(IMAGES, max_value=0), "max_value must be above 0")
  refused(lambda: Arrays(FLOATS, max_value=255), "for floats give range=")
  for k in ("scale", "range"):
    value = {"scale": 2.0, "range": (0, 255)}[k]
    refused(lambda k=k, v=value: Arrays(IMAGES, **{k: v}), f"{k} is for floats")


def test_floats_far_out_need_a_word():
  assert np.array_equal(_sees(Arrays(FLOATS)), FLOATS)
  pixels = IMAGES.astype(np.float32)
  refused(lambda: Arrays(pixels), "floats of 0 to 255, but .* range=.low, high")
  spread = _sees(Arrays(pixels, range=(0, 255)))
  np.testing.assert_allclose(spread, IMAGES / 127.5 - 1.0, atol=1e-6)
  np.testing.assert_allclose(_sees(Arrays(pixels, scale=0.01)), pixels * 0.01)
  assert np.array_equal(_sees(Arrays(pixels, scale=1.0)), pixels)
  far = FLOATS.copy()
  far[3, 0, 0, 0] = 30.0  # the tail of a law is no range
  assert np.array_equal(_sees(Arrays(far)), far)
  refused(lambda: Arrays(pixels, range=(255, 0)), "low < high, not .255, 0")
  refused(lambda: Arrays(pixels, range=(0, 1, 2)), "range must be .low, high")
  refused(lambda: Arrays(pixels, 0, scale=1.0, range=(0, 1)), "not both")
  refused(lambda: Arrays(pixels, scale=0.0), "scale must be finite and not 0")


def test_floats_of_every_width_travel_as_they_are_and_arrive_in_float32():
  for dtype in (np.float16, np.float64, ">f4", jnp.bfloat16):
    d = Arrays(FLOATS.astype(dtype))
    x = d.batch(0, 0, 4)["x"]
    assert x.dtype.itemsize == np.dtype(dtype).itemsize and x.dtype.isnative
    y = d.to_float(x)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(
      _sees(d), FLOATS, atol=0.02 if dtype == jnp.bfloat16 else 2e-3
    )


def test_channels_are_last_or_said_where_they_are():
  first = IMAGES.transpose(0, 3, 1, 2)
  refused(lambda: Arrays(first), 'channels came first: say layout="NCHW"')
  d = Arrays(first, layout="NCHW")
  assert d.shape == (8, 8, 3) and np.array_equal(d.x, IMAGES)
  again = dataclasses.replace(d, flip=True)  # is not turned a second time
  assert np.array_equal(again.x, IMAGES)
  assert Arrays(first, layout="NHWC").shape == (3, 8, 8)
  latents = FLOATS[:, :, :, :1].repeat(16, -1).transpose(0, 3, 1, 2)
  refused(lambda: Arrays(latents[:, :4]), "shape .12, 4, 8, 8. looks as if")
  big = np.zeros((4, 16, 32, 32), np.float32)
  refused(lambda: Arrays(big), "looks as if channels came first")
  for fine in ((4, 8, 4, 4), (4, 32, 32, 16), (4, 4, 4, 2), (4, 16, 12, 8)):
    assert Arrays(np.zeros(fine, np.float32)).shape == fine[1:]


def test_channels_of_videos_are_last_or_said_where_they_are():
  video = files.RNG().integers(0, 256, (2, 5, 16, 12, 3), dtype=np.uint8)
  assert Arrays(video).shape == (5, 16, 12, 3)
  for layout, axes in (("NCTHW", (0, 4, 1, 2, 3)), ("NTCHW", (0, 1, 4, 2, 3))):
    first = video.transpose(axes)
    refused(lambda x=first: Arrays(x), 'first: say layout="NCTHW" or "NTCHW"')
    d = Arrays(first, layout=layout)
    assert np.array_equal(d.x, video)
    assert np.array_equal(dataclasses.replace(d, max_value=255).x, video)
    assert Arrays(first, layout="NTHWC").shape == first.shape[1:]
  cubes = np.zeros((2, 1, 16, 16, 16), bool)
  refused(lambda: Arrays(cubes), "looks as if channels came first")
  for fine in ((4, 8, 8, 1), (2, 8, 8, 16), (16, 8, 8, 8), (2, 2, 2, 16)):
    assert Arrays(np.zeros((2, *fine), np.float32)).shape == fine


def test_images_without_a_channel_get_one_and_series_are_asked_for():
  grey = IMAGES[..., 0]
  assert Arrays(grey).shape == (8, 8, 1)
  assert Arrays(grey[:, :6]).shape == (6, 8, 1)
  assert Arrays(FLOATS[..., 0]).shape == (8, 8, 1)
  tall = FLOATS[:, :6, :, 0]
  refused(lambda: Arrays(tall), 'images or series: say layout="NHW"')
  assert Arrays(tall, layout="NHW").shape == (6, 8, 1)
  assert Arrays(tall, layout="NLC").shape == (6, 8)
  assert Arrays(tall, layout="NCL").shape == (8, 6)
  refused(lambda: Arrays(tall, layout="NHWC"), "does not fit x of shape")
  refused(lambda: Arrays(tall, layout="HWC"), "layout must be one of NHWC, NC")


@pytest.mark.parametrize(
  "labels,words",
  [
    (LABELS + 1, "labels starts at 1, but classes count from 0"),
    (LABELS - 1, "labels has label -1"),
    (LABELS[:-1], "labels must hold 12 integer labels, not int64 .*11"),
    (LABELS.astype(float), r"float64 of shape \(12,\): give labels.astype.int"),
    (
      LABELS + 0.5,
      r"must hold 12 integer labels, not float64 of shape \(12,\)",
    ),
    (LABELS[:, None], r"shape \(12, 1\): give labels\[:, 0\]"),
    (np.eye(3)[LABELS], r"one-hot rows are labels.argmax\(axis=1\)"),
    (np.eye(3)[LABELS].astype(int), "one-hot rows are labels.argmax"),
    (np.array(["cat", "dog", "eel"])[LABELS], "names become np.unique"),
    (LABELS > 0, r"labels.astype\(int\)"),
    (np.ma.zeros(12, int), "is a masked array"),
    (np.array(0), r"not int64 of shape \(\)"),
  ],
)
def test_labels_that_cannot_be_meant_are_refused_with_the_remedy(labels, words):
  refused(lambda: Arrays(IMAGES, labels), words)
  refused(lambda: Arrays(IMAGES, labels, 3), "label")


@pytest.mark.parametrize(
  "settings,words",
  [
    (dict(max_value="255"), "max_value must be above 0, not '255'"),
    (dict(max_value=True), "max_value must be above 0, not True"),
    (dict(range=3), r"range must be \(low, high\), not 3"),
    (dict(range=("0", "1")), r"range must be \(low, high\), not \('0', '1'\)"),
    (dict(scale="a"), "scale must be finite and not 0, not 'a'"),
    (dict(num_classes=3.0), "num_classes must be an integer, not 3.0"),
    (dict(num_classes="3"), "num_classes must be an integer, not '3'"),
    (dict(num_classes=True), "num_classes must be an integer, not True"),
  ],
)
def test_settings_of_another_type_are_refused(settings, words):
  is_float = settings.keys() & {"range", "scale"}
  x = FLOATS if is_float else IMAGES
  refused(lambda: Arrays(x, LABELS, **settings), words)
  assert Arrays(FLOATS, scale=np.float32(2.0)).scale == 2.0
  assert Arrays(IMAGES, LABELS, np.int64(3)).num_classes == 3


def test_an_array_is_shown_without_its_numbers():
  d = Arrays(IMAGES, LABELS, given={"v": FLOATS[:, 0, 0]})
  assert len(repr(d)) < 200 and "num_classes=3" in repr(d)


def test_classes_are_counted_or_checked():
  assert Arrays(IMAGES, LABELS).num_classes == 3
  assert Arrays(IMAGES, list(LABELS)).labels.dtype == np.int32
  assert Arrays(IMAGES, LABELS, 5).num_classes == 5
  refused(lambda: Arrays(IMAGES, LABELS * 100), "has 200, for 12 examples: ren")
  refused(lambda: Arrays(IMAGES, LABELS, 2), "label 2 at example 2; .* 0 to 1")
  refused(lambda: Arrays(IMAGES, LABELS + 1, 3), "0 to 2: subtract 1 from all")
  refused(
    lambda: Arrays(IMAGES, LABELS, 0), "labels are given, but num_classes"
  )
  refused(lambda: Arrays(IMAGES, None, 3), "but labels are not given")
  d = Arrays(IMAGES, LABELS, class_names=["a", "b", "c"])
  assert d.class_names == ("a", "b", "c")
  refused(
    lambda: Arrays(IMAGES, LABELS, class_names=("a", "b")), "must be 3 names"
  )


@pytest.mark.parametrize(
  "x,words",
  [
    (np.zeros((0, 8, 8, 3), np.uint8), "x has no examples: its shape is .0,"),
    (np.zeros(5), r"not of shape \(5,\): give x\[:, None\]"),
    (np.float32(3.0), r"x must be \(num, ...\), one row an example"),
    (np.zeros((5, 2), complex), "integers or floats, not complex128"),
    (np.full((5, 2), "a"), "integers or floats, not <U1"),
    (np.full((5, 2), None), "integers or floats, not objects"),
    (np.zeros((5, 2), [("a", "f4")]), "not records with fields"),
    (np.zeros((5, 2), "M8[s]"), "not datetime64"),
    (np.ma.zeros((5, 2)), "x is a masked array: fill it"),
    ([[1.0, 2.0], [3.0]], "x is no array: .* inhomogeneous"),
    (None, "integers or floats, not a NoneType"),
    ({"x": 1}, "integers or floats, not a dict"),
  ],
)
def test_what_is_no_array_of_examples_is_refused(x, words):
  refused(lambda: Arrays(x), words)


def test_flips_are_for_images():
  refused(lambda: Arrays(FLOATS[:, 0, 0], flip=True), "flip is for images")
  assert Arrays(IMAGES[..., 0], flip=True).flip


def test_numpy_files_say_the_same_and_name_the_file(tmp_path):
  path = lambda name: str(tmp_path / name)
  load = data.numpy_arrays
  np.save(path("x.npy"), IMAGES)
  np.save(path("y.npy"), LABELS)
  np.save(path("one.npy"), LABELS + 1)
  np.savez(path("x.npz"), x=IMAGES, label=LABELS)
  np.savez(path("bare.npz"), x=IMAGES)
  # labels that are given are used
  assert load(path("x.npy"), path("y.npy")).num_classes == 3
  assert load(path("x.npz")).num_classes == 3
  assert load(path("x.npz"), num_classes=0).num_classes == 0
  assert load(path("bare.npz")).num_classes == 0
  refused(lambda: load(path("x.npy"), path("y.npy"), 0), "y.npy' has no effect")
  refused(lambda: load(path("x.npz"), path("y.npy")), "has no effect: .*x.npz")
  refused(lambda: load(path("x.npy"), path("one.npy")), "one.npy starts at 1")
  refused(lambda: load(path("x.npy"), path("x.npz")), "must be a .npy file of")
  refused(lambda: load(path("x.npy"), scale=0.5), "x.npy: scale is for floats")
  np.save(path("first.npy"), IMAGES.transpose(0, 3, 1, 2))
  refused(
    lambda: load(path("first.npy")), "first.npy: x of shape .* came first"
  )
  d = load(path("first.npy"), layout="NCHW")
  assert isinstance(d.x, np.memmap) and d.x.shape == IMAGES.shape
  assert np.array_equal(d.take(np.arange(12))["x"], IMAGES)
