"""Reference statistics: data sets, a cache, the files of other tools."""

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
