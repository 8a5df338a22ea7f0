"""Features of FID: bytes u to 299×299, through the published network.

    input     (u - 128)/128           the graph, and clean-fid             (1)
              (u - 127.5)/127.5       pytorch-fid                          (2)

Numbers of different resizes do not compare: print which with the number.
"""

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.evaluation.extractors import (
  images,
  inception_v3 as networks,
  resize as resizes,
  weights,
)
from diffflow_jax.evaluation.extractors.extractor import Features, padded
from diffflow_jax.process import ranges
from diffflow_jax.store import compilation

PUBLISHED = (
  "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
  "pt_inception-2015-12-05-6726825d.pth"
)
KNOWN = ("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",)
CLASSES = 1008
_SIZE = 299


def network_input(resize, u):
  """uint8 (n, h, w, 3) -> float32 (n, 299, 299, 3), eq. (1) or (2)."""
  rows, columns = (
    np.asarray(resizes.matrix(resize, size, _SIZE), np.float32)
    for size in u.shape[1:3]
  )
  x = jnp.einsum(
    "ih,jw,nhwc->nijc",
    rows,
    columns,
    u.astype(jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
  middle = 127.5 if resize == "torch" else 128.0
  return (jnp.clip(x, 0.0, 255.0) - middle) / middle  # a cubic overshoots


def _weights(path, checksum):
  """(parameters, the matrix of the logits, SHA-256) of a file."""
  arrays, found = weights.read(path, "Inception", PUBLISHED, KNOWN, checksum)
  arrays = {n: a for n, a in arrays.items() if "num_batches" not in n}
  weights.check_shapes(path, "Inception", arrays, _shapes())
  arrays = {n: jnp.asarray(a, jnp.float32) for n, a in arrays.items()}
  matrix, _ = arrays.pop("fc.weight"), arrays.pop("fc.bias")
  return traverse_util.unflatten_dict(arrays, sep="."), matrix, found


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


@ranges.checked(batch_size="an integer >= 1")
def inception(path, resize="clean", *, batch_size=64, checksum=None):
  """FID's features, of the weights that pytorch-fid published.

      features = dfj.evaluation.inception("pt_inception-….pth")
      dfj.evaluation.frechet(features(samples), features(images))

  Args:
    path: on a disk or in a bucket.
    resize: "clean", "tf1" (the original, ADM's evaluator and EDM's numbers) or
      "torch" (pytorch-fid); `extractors.resize` says how they differ.
    batch_size: images that go through the network together.
    checksum: None for what is published, how another file's SHA-256 begins, or
      "any" for weights of your own.
  Returns:
    Features of images (num, h, w, 1 or 3): (num, 2048) float32. Its logits are
    (num, 1008), without bias as ADM's and StyleGAN3's.
  Raises:
    ValueError: no such file (it says where that is published), another
      checksum, names or shapes; an unknown resize.
  """
  if resize not in resizes.KINDS:
    raise ValueError(
      f"resize must be one of {', '.join(resizes.KINDS)}, not {resize!r}"
    )
  params, matrix, found = _weights(path, checksum)
  matrix = np.asarray(matrix).T

  def run(params, x):
    x = network_input(resize, x)
    return networks.InceptionV3().apply({"params": params}, x)

  run = compilation.brisk(run)
  of = padded(lambda x: run(params, x), batch_size)
  return Features(
    metric="fid" if found in KNOWN else "fd_inception",
    name=f"Inception of {path}, resize {resize}",
    fingerprint=f"inception-2015-12-05 {found} {resize}",
    dims=networks.WIDTH,
    batch=batch_size,
    of=lambda x: of(images.colours(x)),
    logits=lambda features: np.asarray(features, np.float32) @ matrix,
  )
