"""What one would write without the library, for the same network and recipe.

  python benchmarks/by_hand.py FOLDER

Flow matching on the digits as `configs/digits.py:smoke` has it: initialises,
trains 6 steps, saves with Orbax, samples with guidance, writes a picture. No
metrics, no held-out loss, no checkpoint on the way, nothing checked.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from PIL import Image
from sklearn.datasets import load_digits

from diffflow_jax.networks import UNet

STEPS, BATCH, CLASSES, GUIDANCE = 6, 16, 10, 1.3


def make_step(network, tx):
  @jax.jit
  def step(params, ema, opt_state, key, x, label):
    t_key, eps_key, drop_key = jax.random.split(key, 3)
    t = jax.random.uniform(t_key, (BATCH,), minval=1e-5, maxval=1 - 1e-5)
    eps = jax.random.normal(eps_key, x.shape)
    drop = jax.random.bernoulli(drop_key, 0.1, label.shape)
    label = jnp.where(drop, CLASSES, label)
    w = t[:, None, None, None]

    def loss_fn(params):
      logsnr = 2 * jnp.log1p(-t) - 2 * jnp.log(t)
      u = network.apply(params, (1 - w) * x + w * eps, logsnr, label)
      return jnp.mean((eps - x - u) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    ema = optax.incremental_update(params, ema, 0.01)
    return params, ema, opt_state, loss

  return step


def make_sampler(network, num_steps=3):
  """Midpoint steps from t = 1 to 0."""

  def velocity(params, z, t, label):
    logsnr = jnp.full(len(z), 2 * jnp.log1p(-t) - 2 * jnp.log(t))
    two = lambda a: jnp.concatenate([a, a])
    labels = jnp.concatenate([label, jnp.full_like(label, CLASSES)])
    out = network.apply(params, two(z), two(logsnr), labels)
    with_label, without = jnp.split(out, 2)
    return without + GUIDANCE * (with_label - without)

  @jax.jit
  def sample(params, key, label):
    t = jnp.linspace(1 - 1e-5, 0, num_steps + 1)

    def step(z, ends):
      t, t_next = ends
      half = (t_next - t) / 2
      z_mid = z + half * velocity(params, z, t, label)
      return z + 2 * half * velocity(params, z_mid, t + half, label), None

    z = jax.random.normal(key, (len(label), 8, 8, 1))
    return jax.lax.scan(step, z, (t[:-1], t[1:]))[0]

  return sample


def main(folder):
  digits = load_digits()
  x = (digits.images[..., None] / 8.0 - 1.0).astype(np.float32)
  network = UNet(channels=(8, 16), num_blocks=1, num_classes=CLASSES)
  rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 2, STEPS)
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
  example = (x[:1], np.zeros(1, np.float32), np.zeros(1, np.int32))
  params = jax.jit(network.init)(jax.random.key(0), *example)
  ema, opt_state = params, jax.jit(tx.init)(params)
  step, rng = make_step(network, tx), np.random.default_rng(0)
  for n in range(STEPS):
    rows = rng.integers(len(x), size=BATCH)
    params, ema, opt_state, loss = step(
      params, ema, opt_state, jax.random.key(n), x[rows], digits.target[rows]
    )
    if n % 2:
      print(f"step {n + 1}: loss {float(loss):.4f}")
  with ocp.StandardCheckpointer() as saver:
    saver.save(
      os.path.abspath(os.path.join(folder, "checkpoint")),
      {"params": params, "ema": ema, "opt_state": opt_state},
    )
  images = make_sampler(network)(ema, jax.random.key(1), np.arange(10))
  row = np.concatenate(np.asarray(images)[..., 0], axis=1)
  pixels = np.clip((row + 1) * 127.5, 0, 255).astype(np.uint8)
  Image.fromarray(pixels).save(os.path.join(folder, "samples.png"))


if __name__ == "__main__":
  main(sys.argv[1])
