"""Features of FID: images to bytes, to 299×299, through the published network.

    uint8     ⌊clip(127.5 x + 128, 0, 255)⌋ of x in [-1, 1]                (1)
    input     (u - 128)/128           the graph, and clean-fid             (2)
              (u - 127.5)/127.5       pytorch-fid                          (3)

Numbers of different resizes do not compare: print which with the number.
"""

import hashlib

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.evaluation import (
  inception_v3 as networks,
  resize as resizes,
  torch_file,
)
from diffflow_jax.process import ranges
from diffflow_jax.store import compilation, paths

CHECKSUM = "6726825d"  # how the published file's SHA-256 begins
PUBLISHED = (
  "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
  f"pt_inception-2015-12-05-{CHECKSUM}.pth"
)
CLASSES = 1008
_SIZE = 299


def _bytes(images):
  """uint8 (n, h, w, 3), by eq. (1)."""
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
    raise ValueError(
      "images must be (num, height, width, channels) of 1 or 3 channels, not "
      f"of shape {images.shape}"
    )
  if images.dtype != np.uint8:
    images = _quantised(images)
  return np.broadcast_to(images, (*images.shape[:3], 3))


def _quantised(images):
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise TypeError(
      f"images must be uint8, or floats in [-1, 1], not {images.dtype}"
    )
  images = images.astype(np.float32)
  low, high = images.min(), images.max()
  if not np.isfinite(low + high):
    raise ValueError("images must be finite, and hold NaN or infinite pixels")
  if low >= 0 and high > 2:  # a sampler's, however far astray, go both ways
    raise ValueError(
      f"images must be uint8, or floats in [-1, 1], but go from {low:g} to "
      f"{high:g}"
    )
  return np.clip(127.5 * images + 128.0, 0.0, 255.0).astype(np.uint8)


def network_input(resize, images):
  """uint8 (n, h, w, 3) -> float32 (n, 299, 299, 3), eq. (2) or (3)."""
  rows, columns = (
    np.asarray(resizes.matrix(resize, size, _SIZE), np.float32)
    for size in images.shape[1:3]
  )
  x = jnp.einsum(
    "ih,jw,nhwc->nijc",
    rows,
    columns,
    images.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  middle = 127.5 if resize == "torch" else 128.0
  return (jnp.clip(x, 0.0, 255.0) - middle) / middle  # a cubic overshoots


def _tree(path, checksum):
  """(parameters, the matrix of the logits, how its SHA-256 begins)."""
  try:
    data = paths.read(path)
  except OSError as error:
    raise ValueError(
      f"{path} must be Inception's weights, as published at {PUBLISHED} "
      f"(SHA-256 {CHECKSUM}…): {paths.reason(error)}"
    ) from error
  found = hashlib.sha256(data).hexdigest()
  if not found.startswith(checksum):
    raise ValueError(
      f"{path} must have a SHA-256 that begins with {checksum}, as what is "
      f"published at {PUBLISHED}, but has {found[:16]}…"
    )
  arrays = torch_file.arrays(path, data)
  wanted = _shapes()
  here = {n: a.shape for n, a in arrays.items() if "num_batches" not in n}
  odd = [n for n in sorted({**wanted, **here}) if wanted.get(n) != here.get(n)]
  if odd:
    raise ValueError(
      f"{path} must hold the {len(wanted)} arrays of Inception, but differs in "
      f"{len(odd)}: {odd[0]} is {here.get(odd[0])}, not {wanted.get(odd[0])}"
    )
  arrays = {n: jnp.asarray(arrays[n], jnp.float32) for n in wanted}
  matrix, _ = arrays.pop("fc.weight"), arrays.pop("fc.bias")
  return traverse_util.unflatten_dict(arrays, sep="."), matrix, found[:8]


def _shapes():
  """{name: shape} of what the file must hold."""
  image = jax.ShapeDtypeStruct((1, _SIZE, _SIZE, 3), jnp.float32)
  init = networks.InceptionV3().init
  made = jax.eval_shape(init, jax.random.key(0), image)["params"]
  flat = traverse_util.flatten_dict(made, sep=".")
  return {
    **{name: array.shape for name, array in flat.items()},
    "fc.weight": (CLASSES, networks.WIDTH),
    "fc.bias": (CLASSES,),
  }


class Inception:
  """images -> features, of one file and resize; what `inception` returns.

  `name` says which, as `dataset_statistics` wants it.
  """

  def __init__(self, params, matrix, name, resize, batch_size):
    self.name, self._params, self._matrix = name, params, matrix
    self._batch_size = batch_size

    def features(params, images):
      x = network_input(resize, images)
      return networks.InceptionV3().apply({"params": params}, x)

    self._features = compilation.brisk(features)

  def __call__(self, images):
    """(num, h, w, 1 or 3), uint8 or floats in [-1, 1] -> (num, 2048) float32.

    Raises:
      ValueError: other shapes, NaN, floats that look like 0 to 255.
    """
    images, size = _bytes(images), self._batch_size
    found = []
    for first in range(0, len(images), size):
      batch = images[first : first + size]
      missing = ((0, size - len(batch)), (0, 0), (0, 0), (0, 0))
      made = self._features(self._params, np.pad(batch, missing))
      found.append(np.asarray(made)[: len(batch)])
    return np.concatenate(found)

  def logits(self, features):
    """(num, 2048) features -> (num, 1008), without bias as ADM and StyleGAN3.

    Their `jax.nn.softmax` is what `inception_score` takes.
    """
    return np.asarray(features, np.float32) @ np.asarray(self._matrix).T


@ranges.checked(batch_size="an integer >= 1")
def inception(path, resize="clean", *, batch_size=64, checksum=CHECKSUM):
  """FID's features, of the weights that pytorch-fid published.

      features = dfj.evaluation.inception("pt_inception-….pth")
      dfj.evaluation.frechet(features(samples), features(images))

  Args:
    path: on a disk or in a bucket.
    resize: "clean", "tf1" (the original, ADM's evaluator and EDM's numbers) or
      "torch" (pytorch-fid); `evaluation.resize` says how they differ.
    batch_size: images that go through the network together.
    checksum: how the file's SHA-256 has to begin; "" for weights of your own.
  Returns:
    A function: images (num, h, w, 1 or 3), uint8 or floats in [-1, 1], which
    become uint8 by eq. (1), -> (num, 2048) float32. Its `logits` takes
    features, for the inception score; its `name` is for `dataset_statistics`.
  Raises:
    ValueError: no such file (it says where that is published), another
      checksum, names or shapes; an unknown resize.
  """
  if resize not in resizes.KINDS:
    raise ValueError(
      f"resize must be one of {', '.join(resizes.KINDS)}, not {resize!r}"
    )
  params, matrix, found = _tree(path, checksum)
  name = f"inception-2015-12-05 {found} {resize}"
  return Inception(params, matrix, name, resize, batch_size)
