"""The reference's statistics: of a data set, once; or of a file of others.

    mu (d,), sigma (d, d)          TTUR, pytorch-fid, EDM
    mu_s, sigma_s, arr_0           ADM's evaluator: sFID's, and uint8 images

None of these files says which network, resize or divisor made it, so numbers
compare only where those are known to be ours. Our own files have mu and sigma
too, and say how many examples, of which data and by which features.
"""

import hashlib
import io
import os
import zipfile

import numpy as np

from diffflow_jax.evaluation import streaming
from diffflow_jax.process import ranges
from diffflow_jax.store import paths

_LOOKED_AT = 10_000  # examples that a fingerprint reads
_ODD = 1e-5  # of sigma's largest entry: float32 files are odd by less
_EXACT = 10**9  # number of examples where nobody says it


def feature_chunks(dataset, features, *, batch_size=256):
  """Features of every example of a data set in order, chunk after chunk.

  Args:
    dataset: what has `len`, `take` and `to_float`, as `data.folder(path, size)`
      and every other finite one here.
    features: x (batch, ...), floats as the network sees them, -> (batch, d).
  Yields:
    (batch, d) arrays; the last may be shorter.
  """
  for first in range(0, len(dataset), batch_size):
    index = np.arange(first, min(first + batch_size, len(dataset)))
    yield np.asarray(features(dataset.to_float(dataset.take(index)["x"])))


def fingerprint(dataset):
  """32 hexadecimal digits of the data as it comes, resolution included.

  SHA-256 of the number and shape of examples, and of up to 10,000 of them,
  evenly spaced: a change of single images in a larger set may pass unseen.
  """
  num = len(dataset)
  found = hashlib.sha256(repr((num, tuple(dataset.shape))).encode())
  index = np.unique(np.linspace(0, num - 1, min(num, _LOOKED_AT)).astype(int))
  for first in range(0, len(index), 256):
    x = dataset.take(index[first : first + 256])["x"]
    # integers that mean something else are other data
    seen = np.ascontiguousarray(dataset.to_float(x), np.float32)
    found.update(seen.tobytes())
  return found.hexdigest()[:32]


@ranges.checked(batch_size="an integer >= 1")
def dataset_statistics(dataset, features, name, *, cache=None, batch_size=256):
  """The Moments of a data set's features, computed once for each of them.

  Args:
    dataset, features: as of `feature_chunks`.
    name: what the features are, weights and resize included; a letter changed
      is another cache file.
    cache: a folder or bucket of files, or None for no cache.
  Raises:
    ValueError: features that hold NaN; a file of the cache that was damaged.
  """
  whole = lambda: streaming.moments(
    feature_chunks(dataset, features, batch_size=batch_size)
  )
  if cache is None:
    return whole()
  made_of = {"data": fingerprint(dataset), "features": name}
  path = cached(cache, "statistics", "npz", **made_of)
  if paths.exists(path):
    return read_statistics(path)
  found = whole()
  write_statistics(path, found, **made_of)
  return found


def cached(cache, what, suffix, **made_of):
  """The path of a file of a cache that was made of these, texts by name."""
  if not paths.is_remote(cache):
    os.makedirs(cache, exist_ok=True)
  key = hashlib.sha256(repr(sorted(made_of.items())).encode()).hexdigest()
  return paths.join(cache, f"{what}-{key[:32]}.{suffix}")


def write_statistics(path, moments, **about):
  """Writes Moments as mu, sigma and num, with whatever strings are about them.

  pytorch-fid, TTUR and EDM read the file too.
  """
  file = io.BytesIO()
  np.savez(
    file,
    mu=moments.mean,
    sigma=moments.covariance,
    num=np.int64(moments.num),
    **{key: np.str_(value) for key, value in about.items()},
  )
  paths.write(path, file.getvalue())


def npz_arrays(path, names):
  """({name: array} of those that an .npz has, all that it has).

  Nothing is ever unpickled.

  Raises:
    ValueError: it is none, or holds objects.
  """
  try:
    with np.load(io.BytesIO(paths.read(path)), allow_pickle=False) as file:
      return {name: file[name] for name in names if name in file.files}, [
        *file.files
      ]
  except (zipfile.BadZipFile, ValueError, AttributeError, EOFError) as error:
    raise ValueError(
      f"{path} must be an .npz of plain arrays, and cannot be read as one "
      f"({error})"
    ) from error


@ranges.checked(num="an integer >= 2")
def read_statistics(path, *, spatial=False, num=None):
  """The Moments of an .npz file with mu and sigma, ours or another's.

  Args:
    path: on a disk or in a bucket.
    spatial: mu_s and sigma_s of ADM's evaluator instead, for sFID.
    num: how many examples they are of; the file's own number where it has one,
      or else so many that their noise does not count.
  Raises:
    ValueError: no such arrays, shapes that do not fit, NaN, no covariance.
  """
  mu, sigma = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
  found, there = npz_arrays(path, (mu, sigma, "num"))
  if mu not in found or sigma not in found:
    hint = " (arr_0 holds images: `read_images`)" if "arr_0" in there else ""
    raise ValueError(
      f"{path} must hold {mu} and {sigma}, but holds {there}{hint}"
    )
  mean, covariance = (np.asarray(found[n], np.float64) for n in (mu, sigma))
  if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
    raise ValueError(
      f"{mu} must be (d,) and {sigma} (d, d), but {path} has {mean.shape} and "
      f"{covariance.shape}"
    )
  if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
    raise ValueError(f"{mu} and {sigma} of {path} must be finite, and are not")
  size = max(np.abs(covariance).max(), np.finfo(np.float64).tiny)
  if np.abs(covariance - covariance.T).max() > _ODD * size:
    raise ValueError(f"{sigma} of {path} must be symmetric, and is not")
  least = np.linalg.eigvalsh(covariance)[0]
  if least < -_ODD * size * len(mean):
    raise ValueError(
      f"{sigma} of {path} must be a covariance, but has eigenvalue {least:.3g}"
    )
  num = int(found.get("num", _EXACT)) if num is None else num
  return streaming.Moments(num, mean, (num - 1) * covariance)


def read_images(path):
  """arr_0 of ADM's sample and reference files: uint8 (num, h, w, channels).

  Raises:
    ValueError: no arr_0, or no images in it.
  """
  found, there = npz_arrays(path, ("arr_0",))
  images = found.get("arr_0")
  if images is None or images.ndim != 4 or images.dtype != np.uint8:
    what = images if images is None else (images.dtype, images.shape)
    raise ValueError(
      f"{path} must hold uint8 images (num, h, w, channels) as arr_0, but "
      f"holds {there}, arr_0 as {what}"
    )
  return images
