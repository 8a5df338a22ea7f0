"""Trains the classifier whose features are used; seconds to minutes on a CPU.

    min over θ of E -log p(label | x),     x moved at random

Images are bytes, as everything that is judged.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffflow_jax.data import layout
from diffflow_jax.evaluation.extractors.images import to_bytes
from diffflow_jax.process import ranges

log = logging.getLogger("diffflow_jax")

_REPORTS = 10  # lines of progress


def _bytes(dataset, x):
  return to_bytes(dataset.to_float(x))


def shifted(key, u, most):
  """Each image (n, h, w, c) moved by up to `most` pixels, its edge repeated."""
  if not most:
    return u
  wide = jnp.pad(u, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
  by = jax.random.randint(key, (len(u), 2), 0, 2 * most + 1)
  cut = lambda image, by: jax.lax.dynamic_slice(image, (*by, 0), u.shape[1:])
  return jax.vmap(cut)(wide, by)


def _loss(params, net, u, label):
  _, logits = net.apply({"params": params}, u)
  losses = optax.softmax_cross_entropy_with_integer_labels
  return jnp.mean(losses(logits, label))


@ranges.checked(
  num_steps="an integer >= 1",
  batch_size="an integer >= 1",
  shift="an integer >= 0",
)
def fit(net, dataset, tx, *, seed, num_steps, batch_size, shift):
  """The parameters of a `Classifier` of a data set's labels.

  Args:
    net: of as many classes as the data set has.
    dataset: images with labels, as the data sets here; `augment` too is done.
    tx: optax's optimizer; shift: pixels that an image moves at most.
  Raises:
    ValueError: numbers out of their range.
    FloatingPointError: a loss that is not finite.
  """
  key = jax.random.key(seed)
  image = jnp.zeros((1, *dataset.shape), jnp.uint8)
  params = jax.jit(net.init)(key, image)["params"]
  state = tx.init(params)

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, key, u, label):
    keys = jax.random.split(key)
    u = shifted(keys[0], dataset.augment(keys[1], u), shift)
    loss, slopes = jax.value_and_grad(_loss)(params, net, u, label)
    updates, state = tx.update(slopes, state, params)
    return optax.apply_updates(params, updates), state, loss

  every = max(1, num_steps // _REPORTS)
  for n in range(num_steps):
    batch = dataset.batch(seed, n, batch_size)
    u = _bytes(dataset, batch["x"])
    here = jax.random.fold_in(key, n + 1)
    params, state, loss = step(params, state, here, u, batch["label"])
    if (n + 1) % every == 0:
      if not np.isfinite(loss):
        raise FloatingPointError(f"the loss of step {n + 1} is not finite")
      log.info("step %d of %d, loss %.3f", n + 1, num_steps, loss)
  return params


def hits(net, params, dataset, num, batch_size=256):
  """How many of num examples, evenly spaced, get the label that they have."""
  judge = jax.jit(lambda p, u: net.apply({"params": p}, u)[1].argmax(-1))
  index, found = layout.spread_rows(len(dataset), num), 0
  for first in range(0, num, batch_size):
    batch = dataset.take(index[first : first + batch_size])
    made = judge(params, _bytes(dataset, batch["x"]))
    found += int((np.asarray(made) == batch["label"]).sum())
  return found
