"""The look before training: what data hold, what is odd, what is refused."""

import dataclasses
import json
import time

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import diffflow_jax as dfj
from diffflow_jax import data, plots
from diffflow_jax.data import inspection
from diffflow_jax.objective import objectives
from tests import commands, files
from tests.test_data_files import refused

RNG = files.RNG()
IMAGES = RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(60) % 3


@dataclasses.dataclass
class Own:
  """A data set of one's own, to be wrong in one way at a time."""

  x: np.ndarray
  shape: tuple = (8, 8, 3)
  num_classes: int = 0
  labels: object = None
  scaled: float = 1 / 127.5
  same: bool = False

  def batch(self, seed, step, size, process=0, num_processes=1):
    rng = np.random.default_rng((seed, 0 if self.same else step))
    index = rng.integers(0, len(self.x), size)
    batch = {"x": self.x[index]}
    return (
      batch if self.labels is None else batch | {"label": self.labels[index]}
    )

  def augment(self, key, x):
    return x

  def to_float(self, x):
    return jnp.asarray(x, jnp.float32) * self.scaled - (self.scaled != 1)


def test_the_numbers_are_those_of_what_the_network_sees():
  x = IMAGES.copy()
  x[7] = x[3]
  x[9] = 128
  found = dfj.inspect(data.Arrays(x, LABELS, class_names=("a", "b", "c")))
  seen = x / 127.5 - 1.0
  assert (found.num, found.looked_at) == (60, 60)
  assert found.shape == (8, 8, 3) and found.dtype == "uint8"
  for name in ("mean", "std"):
    assert abs(getattr(found, name) - getattr(seen, name)()) < 1e-6
  assert (found.low, found.high) == (-1.0, 1.0)
  assert found.constant == 1 and found.not_finite == 0
  assert found.duplicates == 1 / 60
  assert found.class_counts == {"a": 20, "b": 20, "c": 20}
  assert json.loads(json.dumps(found.as_dict()))["class_counts"]["b"] == 20
  line = found.summary()
  assert "\n" not in line and "60 examples (8, 8, 3) of uint8, all" in line
  assert "3 classes of 20" in line and "1.7% duplicates" in line
  assert not found.refusals
  words = " ".join(found.warnings)
  assert "1 of 60 examples have one value only, the first is example 9" in words
  assert str(found).splitlines()[0] == line
  assert len(str(found).splitlines()) == 1 + len(found.warnings)
  assert "2% of the examples equal an earlier one" in words


def test_ours_have_nothing_wrong(tmp_path):
  files.image_folder(tmp_path)
  for made in (
    data.digits(), data.synthetic(), data.moons(), data.checkerboard(),
    data.ring(), data.folder(str(tmp_path), 8),
  ):  # fmt: skip
    found = dfj.inspect(made)
    assert not found.refusals and not found.warnings, found
    names = getattr(made, "class_names", ())
    assert not names or tuple(found.class_counts) == names
  assert found.class_counts == {"cat": 6, "dog": 6}
  assert (
    "cropped to the centre and resized (bicubic) from sides of 20 to 4"
    in (found.summary())
  )
  assert data.digits().class_names == tuple("0123456789")
  drawn = dfj.inspect(data.moons())
  assert drawn.num is None and "examples without end, (2,)" in drawn.summary()


def _float(change):
  x = RNG.standard_normal((60, 8, 8, 3)).astype(np.float32)
  return change(x)


def _with(x, index, value):
  x = x.copy()
  x[index] = value
  return x


NAN = _with(IMAGES.astype(np.float32) / 255, (17, 2, 2, 1), np.nan)
REFUSED = {
  "nan": (
    lambda: data.Arrays(NAN),
    r"1 of 60 examples hold NaN or infinity, the first is example 17 \(NaN\)",
  ),
  "inf": (
    lambda: data.Arrays(_with(NAN, (17, 2, 2, 1), np.inf)),
    r"the first is example 17 \(infinity\)",
  ),
  "mask": (
    lambda: data.Arrays(np.uint8(IMAGES > 99)),
    "0 or 1 of 255, black to the network: give max_value = 1",
  ),
  "all alike": (
    lambda: data.Arrays(np.full_like(IMAGES, 9)), "all values are -0.929"
  ),
  "unscaled": (
    lambda: Own(IMAGES, scaled=1),
    "the network would see 0 to 255: uint8 is spread over",
  ),
  "beyond max_value": (
    lambda: data.Arrays(_with(IMAGES, 0, 7).astype(np.uint16), max_value=100),
    r"example 1 holds \d+, but integers must be 0 to max_value = 100",
  ),
  "wrapped": (
    lambda: data.Arrays(
      _with(IMAGES // 2, 0, 200).view(np.int8), max_value=127
    ),
    "example 0 holds -56, but integers must be 0 to max_value = 127",
  ),
  "labels from 1": (
    lambda: Own(IMAGES, num_classes=3, labels=LABELS + 1),
    "has label 3; labels must be 0 to 2",
  ),
  "labels of floats": (
    lambda: Own(IMAGES, num_classes=3, labels=LABELS * 1.0),
    "labels must be integers of shape .*, not float64",
  ),
  "no label": (
    lambda: Own(IMAGES, num_classes=3), "has no label, but num_classes is 3"
  ),
  "a label": (
    lambda: Own(IMAGES, labels=LABELS), "has a label, but num_classes is 0"
  ),
  "shape": (
    lambda: Own(IMAGES, shape=(3, 8, 8)),
    r"examples of shape \(8, 8, 3\), but the shape of the data set is \(3, 8",
  ),
  "integers": (lambda: _Integers(IMAGES), "to_float must give floats, not int"),
  "augment": (lambda: _Smaller(IMAGES), "augment makes shape .* of shape"),
  "a tuple": (lambda: _Tuple(IMAGES), "a batch must be a dict with x, not tup"),
}  # fmt: skip


class _Integers(Own):
  def to_float(self, x):
    return jnp.asarray(x, jnp.int32)


class _Smaller(Own):
  def augment(self, key, x):
    return x[:, 1:]


class _Tuple(Own):
  def batch(self, *args):
    return (self.x[:4], None)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused(name):
  make, words = REFUSED[name]
  found = dfj.inspect(make())
  assert len(found.refusals) >= 1
  with pytest.raises(ValueError, match=words):
    raise ValueError(found.refusals[0])
  json.dumps(found.as_dict(), allow_nan=False)
  assert f"\nrefused: {found.refusals[0]}" in str(found)


WARNED = {
  "0 to 1": (
    lambda: data.Arrays(np.float32(IMAGES / 255)),
    r"all values are 0 to 1, none below 0, .*: range=\(0, 1\) spreads",
  ),
  "far": (
    lambda: data.Arrays(_float(lambda x: 3 * x), scale=1.0),
    r"18.\d% of the values are beyond ±4",
  ),
  "first": (
    lambda: Own(IMAGES.transpose(0, 3, 1, 2), (3, 8, 8)), "look as if channels"
  ),
  "dark": (
    lambda: data.Arrays(IMAGES // 16), "the largest value is 15 of 255"
  ),
  "same": (lambda: Own(IMAGES, same=True), "batches 0 and 1 are the same"),
  "empty class": (
    lambda: data.Arrays(IMAGES, LABELS, 6), "3 of 6 classes have no example: 3"
  ),
  "one class": (
    lambda: data.Arrays(IMAGES, 0 * LABELS, class_names=("cat",)),
    "all examples are of one class, cat",
  ),
  "outlier": (
    lambda: data.Arrays(_with(np.float32(IMAGES / 99 - 1), (7, 1, 1, 1), 1e4)),
    "example 7 holds values beyond ±20 .* to 1e.04 in all",
  ),
  "video": (
    lambda: Own(
      np.repeat(IMAGES[:, None], 5, 1).transpose(0, 1, 4, 2, 3), (5, 3, 8, 8)
    ),
    "look as if channels",
  ),
  "sigma_data": (
    lambda: data.Arrays(_float(lambda x: x)),
    "sigma_data is 0.5, but the data's standard deviation is 0.999",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", WARNED)
def test_what_is_odd_is_said(name):
  make, words = WARNED[name]
  found = dfj.inspect(make(), objectives.edm())
  assert not found.refusals
  with pytest.raises(ValueError, match=words):
    raise ValueError(found.warnings[0])


def test_said_ranges_and_fitting_recipes_are_not_warned_of():
  x = np.float32(IMAGES / 255)
  assert not dfj.inspect(data.Arrays(x, range=(0, 1))).warnings
  std = float(np.std(IMAGES / 127.5))
  for factor, said in ((1.4, 0), (1.6, 1), (1 / 1.4, 0), (1 / 1.6, 1)):
    found = dfj.inspect(data.Arrays(IMAGES), objectives.edm(factor * std))
    assert len(found.warnings) == said
  assert not dfj.inspect(data.Arrays(x * 2 - 1), objectives.ddpm()).warnings


def test_data_of_little_spread_are_said_to_recipes_without_sigma_data():
  x = np.random.default_rng(0).normal(size=(200, 4, 4, 2)).astype(np.float32)
  for std, said in ((0.18, True), (0.25, False)):
    found = dfj.inspect(data.Arrays(x, scale=std), objectives.flow_matching())
    assert said == any("a scale 5.5" in word for word in found.warnings)
  found = dfj.inspect(data.Arrays(x, scale=0.18), objectives.edm(0.18))
  assert not found.warnings


def test_large_data_are_looked_at_in_part_and_quickly(tmp_path):
  big = np.broadcast_to(IMAGES[:1], (10**7, 8, 8, 3))
  start = time.process_time()
  found = dfj.inspect(data.Arrays(big))
  assert time.process_time() - start < 4.0  # two cores: under 2 s of the clock
  assert found.num == 10**7
  assert found.looked_at == inspection.MOST_VALUES // (8 * 8 * 3)
  for i in range(700):
    Image.fromarray(RNG.integers(0, 256, (4, 4), dtype=np.uint8)).save(
      tmp_path / f"{i}.bmp"
    )
  found = dfj.inspect(data.folder(str(tmp_path), 4))
  assert found.num == 700 and 0 < found.looked_at <= inspection.MOST_READ


@pytest.mark.parametrize(
  "made,words",
  [
    (None, "must be a data set, as .*, not None, which has no shape"),
    ({"x": IMAGES}, "not a dict, which has no shape, num_classes, batch"),
    ((IMAGES, LABELS), "not a tuple"),
    (IMAGES, "not a ndarray, which has no num_classes"),
    (data.Arrays, "not the class Arrays"),
  ],
)
def test_what_is_no_data_set_is_refused(made, words):
  refused(lambda: dfj.inspect(made), words)


SHOWN = {
  "grey": (IMAGES[..., :1] / 127.5 - 1, LABELS),
  "colour": (IMAGES / 127.5 - 1, None),
  "latents": (RNG.standard_normal((9, 8, 8, 4)), LABELS[:9]),
  "points": (RNG.standard_normal((50, 2)), LABELS[:50]),
  "series": (RNG.standard_normal((5, 30, 2)), None),
  "vectors": (RNG.standard_normal((5, 30)), None),
  "video": (RNG.standard_normal((5, 4, 8, 8, 1)), None),
  "broken": (np.full((4, 8, 8, 1), np.nan), None),
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_kind_of_batch_is_drawn(name, tmp_path):
  x, labels = SHOWN[name]
  path = tmp_path / "a.png"
  plots.save_batch(path, x, labels, ("cat", "dog", "eel"), "title " * 40)
  picture = np.asarray(Image.open(path).convert("L"))
  assert picture.shape == (715, 1100) and picture.std() > 5


def test_a_batch_is_seen_as_the_network_sees_it():
  d = data.Arrays(IMAGES, LABELS, flip=True)
  x, labels, _ = inspection.as_seen(d, 0, 32)
  raw = d.batch(0, 0, 32)
  plain = raw["x"] / 127.5 - 1.0
  same = np.isclose(x, plain, atol=1e-6).all((1, 2, 3))
  turned = np.isclose(x, plain[:, :, ::-1], atol=1e-6).all((1, 2, 3))
  assert np.all(same ^ turned) and 0 < same.sum() < 32
  assert np.array_equal(labels, raw["label"])


def test_look_prints_and_draws_what_train_would_see(tmp_path):
  out = tmp_path / "batch.png"
  done = commands.run("look", "--config=configs/digits.py", f"--out={out}")
  assert done.returncode == 0, done.stderr
  first, held, last = done.stdout.splitlines()
  assert first.startswith("1,438 examples (8, 8, 1) of uint8, all looked at;")
  assert held == "held out: 320 examples" and str(out) in last
  assert Image.open(out).size == (1100, 715)
  for flag, words in (
    (f"--out={tmp_path}/a.jpg", "--out must end in .png, not"),
    ("--config.held_out.split=all", "of the held-out examples that were"),
    (
      "--config.label_dropout=0.0",
      "sampler.guidance: a strength of 1.3 needs",
    ),
  ):
    done = commands.run("look", "--config=configs/digits.py", flag)
    assert done.returncode == 2 and words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
