"""A small classifier of a data set's classes: features without downloads.

Convolutions and maxima, 3×3 and 2×2, down to a few pixels; one dense layer,
whose `width` numbers are the features; and the logits. A folder of it holds

    classifier.safetensors    the parameters
    classifier.json           what it is, of which data, and how good

so a Fréchet distance needs no file of anybody else's, and labels get judged.
"""

import hashlib
import json

from flax import traverse_util
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.evaluation import estimates
from diffflow_jax.evaluation.extractors import images, weights
from diffflow_jax.evaluation.extractors.extractor import Features, padded
from diffflow_jax.process import ranges
from diffflow_jax.store import compilation, paths, seals

PARAMS, CARD = "classifier.safetensors", "classifier.json"


class Classifier(nn.Module):
  """u (n, h, w, c) uint8 -> features (n, width), logits (n, num_classes)."""

  num_classes: int
  channels: tuple = (32, 64)
  width: int = 64

  @nn.compact
  def __call__(self, u):
    x = u.astype(jnp.float32) / 127.5 - 1.0
    for channels in self.channels:
      for _ in range(2):
        x = nn.relu(nn.Conv(channels, (3, 3))(x))
      x = nn.max_pool(x, (2, 2), (2, 2), padding="SAME")
    x = x.reshape(len(x), -1)
    features = nn.gelu(nn.Dense(self.width, name="features")(x))
    return features, nn.Dense(self.num_classes, name="logits")(features)


def network(about):
  """The Classifier that the record of a folder is of."""
  return Classifier(
    num_classes=len(about["classes"]),
    channels=tuple(about["channels"]),
    width=about["width"],
  )


def write(folder, params, about):
  """Writes the two files of a folder, the record last.

  Args:
    about: shape, classes, channels, width; hits of num held-out examples; and
      whatever else is worth knowing.
  """
  from safetensors.numpy import save

  flat = traverse_util.flatten_dict(params, sep=".")
  data = save({n: np.asarray(a, order="C") for n, a in flat.items()})
  paths.write(paths.join(folder, PARAMS), data)
  sha256 = hashlib.sha256(data).hexdigest()
  record = seals.seal({**about, "sha256": sha256})
  paths.write(paths.join(folder, CARD), record.encode())


def read(folder):
  """(parameters, record) of a folder.

  Raises:
    ValueError: it holds none, or one that was damaged.
  """
  path = paths.join(folder, CARD)
  try:
    about = seals.unseal(paths.read(path))
    wanted = _shapes(about)
  except OSError as error:
    raise ValueError(
      f"{folder} must hold {CARD}, as python -m diffflow_jax.train_features "
      f"--config=configs/features_digits.py --workdir={folder} leaves there: "
      f"{paths.reason(error)}"
    ) from error
  except (ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
    raise ValueError(f"{path} cannot be read: {error}") from error
  path = paths.join(folder, PARAMS)
  arrays, _ = weights.read(path, "a classifier", folder, (about["sha256"],))
  weights.check_shapes(path, "its classifier", arrays, wanted)
  flat = {n: jnp.asarray(a) for n, a in arrays.items()}
  return traverse_util.unflatten_dict(flat, sep="."), about


def _shapes(about):
  image = jax.ShapeDtypeStruct((1, *about["shape"]), jnp.uint8)
  made = jax.eval_shape(network(about).init, jax.random.key(0), image)
  flat = traverse_util.flatten_dict(made["params"], sep=".")
  return {name: array.shape for name, array in flat.items()}


@ranges.checked(batch_size="an integer >= 1")
def classifier(folder, *, batch_size=256):
  """The `Features` of a classifier that `train_features` left in a folder.

  Its logits are those of the data's classes: for label agreement, and for an
  inception score of these classes.

  Raises:
    ValueError: as `read`.
  """
  params, about = read(folder)
  net, shape = network(about), tuple(about["shape"])
  run = compilation.brisk(lambda p, u: net.apply({"params": p}, u)[0])
  padded_run = padded(lambda u: run(params, u), batch_size)
  last = {name: np.asarray(a) for name, a in params["logits"].items()}

  def of(x):
    images.check_images(x)
    if x.shape[1:] != shape:
      raise ValueError(
        f"the classifier of {folder} takes images of shape {shape}, not "
        f"{x.shape[1:]}"
      )
    return padded_run(images.to_bytes(x))

  return Features(
    metric="fd_classifier",
    name=f"classifier of {folder}",
    fingerprint=f"classifier {about['sha256']}",
    dims=about["width"],
    batch=batch_size,
    of=of,
    logits=lambda f: np.asarray(f, np.float32) @ last["kernel"] + last["bias"],
    shape=shape,
    classes=tuple(about["classes"]),
    accuracy=estimates.wilson(about["hits"], about["num"]),
  )
