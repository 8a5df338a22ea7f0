"""Reference statistics: data sets, a cache, the files of other tools."""

import dataclasses
import types

import numpy as np
from PIL import Image
import pytest

from diffflow_jax import data, evaluation

rng = np.random.default_rng(0)
X = rng.integers(0, 256, (300, 4, 4, 1), np.uint8)
TURN = rng.standard_normal((16, 5)).astype(np.float32)
PLAIN = (X.reshape(300, 16) / 127.5 - 1.0) @ TURN


class Features:
  """x @ TURN, and how many examples it was asked for."""

  def __init__(self):
    self.seen = 0

  def __call__(self, x):
    self.seen += len(x)
    return np.asarray(x).reshape(len(x), 16) @ TURN


def check(got, features=PLAIN):
  assert got.num == len(features)
  np.testing.assert_allclose(got.mean, features.mean(0), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(got.covariance, np.cov(features.T), rtol=1e-4)


def test_statistics_of_a_data_set_are_computed_once(tmp_path):
  dataset, features = data.Arrays(X), Features()
  cache = str(tmp_path / "statistics")  # not there yet
  of = lambda d, name="turn": evaluation.dataset_statistics(
    d, features, name, cache=cache, batch_size=64
  )
  first = of(dataset)
  check(first)
  again = of(data.Arrays(X.copy()))
  assert features.seen == 300
  np.testing.assert_array_equal(again.mean, first.mean)
  np.testing.assert_allclose(again.scatter, first.scatter, rtol=1e-12)
  of(dataset, name="another")  # other features
  assert features.seen == 600
  other = X.copy()
  other[123, 2, 2] ^= 1
  of(data.Arrays(other))  # one pixel
  of(data.Arrays(X[:299]))  # one example less
  floats = X / np.float32(127.5) - 1.0
  of(data.Arrays(floats, scale=1.0))
  of(data.Arrays(floats, scale=0.5))  # another range of the same numbers
  assert features.seen == 600 + 300 + 299 + 600
  assert len(list((tmp_path / "statistics").iterdir())) == 6


def test_statistics_of_a_folder_of_images(tmp_path):
  for i, x in enumerate(X[:40]):
    Image.fromarray(x[..., 0]).save(tmp_path / f"{i:03}.png")
  dataset = data.folder(str(tmp_path), 4, channels=1)
  check(evaluation.dataset_statistics(dataset, Features(), "turn"), PLAIN[:40])


def test_other_tools_read_ours_and_we_read_theirs(tmp_path):
  ours, path = evaluation.moments(PLAIN), str(tmp_path / "ours.npz")
  evaluation.write_statistics(path, ours, features="turn")
  with np.load(path) as file:
    np.testing.assert_array_equal(file["mu"], ours.mean)
    np.testing.assert_allclose(file["sigma"], np.cov(PLAIN.T), rtol=1e-12)
    assert str(file["features"]) == "turn"
  path = tmp_path / "adm.npz"
  mu, sigma, mu_s, sigma_s = np.ones(3), 2 * np.eye(3), np.zeros(2), np.eye(2)
  np.savez(path, arr_0=X, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s)
  got = evaluation.read_statistics(path)
  np.testing.assert_allclose(got.covariance, sigma)
  own = evaluation.frechet(rng.standard_normal((50, 3)) * 2**0.5 + 1, got)
  assert own.unbiased.low < 0.0 < own.unbiased.high
  spatial = evaluation.read_statistics(path, spatial=True, num=10)
  assert spatial.num == 10 and spatial.mean.shape == (2,)
  np.testing.assert_allclose(spatial.covariance, sigma_s)
  np.testing.assert_array_equal(evaluation.read_images(path), X)


@pytest.mark.parametrize(
  "arrays, said",
  [
    ({"arr_0": X}, r"must hold mu and sigma, but .*read_images"),
    ({"mu": np.ones(3), "sigma": np.eye(2)}, r"has \(3,\) and \(2, 2\)"),
    ({"mu": np.ones(2), "sigma": np.eye(2) * np.nan}, "must be finite"),
    ({"mu": np.ones(2), "sigma": np.triu(np.ones((2, 2)))}, "be symmetric"),
    ({"mu": np.ones(2), "sigma": -np.eye(2)}, "covariance, but has .* -1$"),
    ({"mu": np.array([{}]), "sigma": np.eye(1)}, "plain arrays"),
  ],
)
def test_files_that_are_something_else(tmp_path, arrays, said):
  path = str(tmp_path / "x.npz")
  np.savez(path, **arrays)
  with pytest.raises(ValueError, match=said) as raised:
    evaluation.read_statistics(path)
  assert path in str(raised.value)


def test_a_damaged_file_is_said(tmp_path):
  path = tmp_path / "x.npz"
  evaluation.write_statistics(str(path), evaluation.moments(PLAIN))
  path.write_bytes(path.read_bytes()[:200])
  with pytest.raises(ValueError, match="plain arrays, and cannot be read"):
    evaluation.read_statistics(str(path))
  path.write_bytes(b"nothing of the kind")
  with pytest.raises(ValueError, match="plain arrays, and cannot be read"):
    evaluation.read_statistics(str(path))
  np.savez(path, arr_0=PLAIN)
  with pytest.raises(ValueError, match=r"uint8 images .* arr_0 as"):
    evaluation.read_images(str(path))


CARD = types.SimpleNamespace(shape=(4, 4, 1))
PIXELS = evaluation.features_of("pixels", CARD)
FLAT = X.reshape(300, 16) / 127.5 - 1.0


def test_references_by_name_are_one(tmp_path):
  """A data set, its images in a folder, and both kinds of .npz."""
  for i, x in enumerate(X):
    Image.fromarray(x[..., 0]).save(tmp_path / f"{i:03}.png")
  np.savez(tmp_path / "adm.npz", arr_0=X, mu=np.ones(9), sigma=np.eye(9))
  ours = tmp_path / "ours.npz"
  evaluation.write_statistics(
    str(ours), evaluation.moments(FLAT), features=PIXELS.fingerprint
  )
  floats = (X / 127.5 - 1.0 + 1e-4).astype(np.float32)  # to the same bytes
  of = lambda spec, **more: evaluation.reference_of(
    spec,
    PIXELS,
    CARD,
    datasets={"train": data.Arrays(X), "floats": data.Arrays(floats, scale=1)},
    **more,
  )
  for spec in ("train", "floats", f"folder:{tmp_path}", f"{tmp_path}/adm.npz"):
    got = of(spec, keep=True)
    check(got.moments, FLAT)
    np.testing.assert_allclose(got.features, FLAT, atol=1e-6)
    assert got.num == 300 and of(spec).features is None
    check(of(spec).moments, FLAT)
  check(of(str(ours)).moments, FLAT)
  assert of("train").fingerprint == of(f"folder:{tmp_path}").fingerprint


def test_features_of_a_reference_are_computed_once(tmp_path):
  calls = Features()
  seen = lambda x: (calls(x), PIXELS.of(x))[1]
  features = dataclasses.replace(PIXELS, of=seen)
  of = lambda: evaluation.reference_of(
    "train",
    features,
    CARD,
    datasets={"train": data.Arrays(X)},
    cache=str(tmp_path),
    keep=True,
  )
  first, again = of(), of()
  assert calls.seen == 300
  np.testing.assert_array_equal(again.features, first.features)
  (path,) = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:500])
  with pytest.raises(ValueError, match=f"{path.name} is damaged, and can"):
    of()


def test_data_without_end_are_drawn():
  card = types.SimpleNamespace(shape=(2,))
  points = evaluation.features_of("pixels", card)
  got = evaluation.reference_of(
    "train", points, card, datasets={"train": data.moons()}, keep=True
  )
  assert got.features.shape == (10_000, 2) and got.num == 10_000


def test_references_that_cannot_be_compared(tmp_path):
  path = str(tmp_path / "x.npz")
  of = lambda spec, features=PIXELS, card=CARD, **more: evaluation.reference_of(
    spec, features, card, datasets={"train": data.Arrays(X)}, **more
  )
  wide = types.SimpleNamespace(shape=(8, 8, 1))

  def refused(said, *args, **more):
    with pytest.raises(ValueError, match=said) as raised:
      of(*args, **more)
    assert "\n" not in str(raised.value)

  refused("must be one of train, folder:PATH, FILE.npz, not 'tr'", "tr")
  refused("samples are 8x8x1, and the refer.* 4x4x1", "train", card=wide)
  Image.fromarray(X[0, ..., 0]).save(tmp_path / "a.png")
  refused("8x8x1, and .*a.png is 4x4x1: save", f"folder:{tmp_path}", card=wide)
  Image.fromarray(X[:3, ..., 0].transpose(1, 2, 0)).save(tmp_path / "a.png")
  refused("samples are 4x4x1, and .*a.png is 4x4x3", f"folder:{tmp_path}")
  (tmp_path / "a.png").write_bytes(b"nothing of the kind")
  refused("a.png cannot be read as an image", f"folder:{tmp_path}")
  refused("there is no", f"folder:{tmp_path}/nowhere")
  refused("nowhere.npz: No such file", f"{tmp_path}/nowhere.npz")
  flat = types.SimpleNamespace(shape=(2,))
  refused("folder holds square images", f"folder:{tmp_path}", card=flat)
  np.savez(path, mu=np.ones(3), sigma=np.eye(3))
  refused("of 3 features, and pixels 4x4x1 makes 16", path)
  np.savez(path, mu=np.ones(16), sigma=np.eye(16))
  assert of(path).num is None
  refused("mu and sigma alone, for a Fréchet.*need images", path, keep=True)
  np.savez(path, arr_0=X)
  refused("samples are 8x8x1, and the refer", path, card=wide)
  evaluation.write_statistics(path, evaluation.moments(FLAT), features="other")
  refused("holds statistics of other, not of pixels 4x4x1", path)
