"""Series and video: networks over one axis and over three learn their data.

What they draw has the spectrum that the closed form has.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffflow_jax as dfj
from diffflow_jax import data, networks
from diffflow_jax.store import compilation

pytestmark = pytest.mark.slow


def trained(network, dataset, num_steps, rate, batch_size=64, decay=0.99):
  """A predictor of the average of its parameters, after so many steps."""
  objective = dfj.objectives.flow_matching()
  x = np.stack([dataset.batch(0, i, batch_size)["x"] for i in range(num_steps)])
  params = network.init(jax.random.key(0), x[0, :1], jnp.zeros(1))
  tx = optax.adam(optax.cosine_decay_schedule(rate, num_steps))

  def step(carry, batch):
    params, average, state = carry
    x, key = batch
    loss = lambda p: dfj.weighted_mse(
      objective, network.apply, p, key, x
    ).loss.mean()
    updates, state = tx.update(jax.grad(loss)(params), state)
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 1 - decay)
    return (params, average, state), None

  keys = jax.random.split(jax.random.key(1), num_steps)
  carry = (params, params, tx.init(params))
  (_, average, _), _ = compilation.brisk(functools.partial(jax.lax.scan, step))(
    carry, (x, keys)
  )
  return dfj.predictor(objective, network.apply, average)


def drawn(predict, shape, num_steps=10):
  objective = dfj.objectives.flow_matching()
  grid = dfj.grids.uniform_t(objective.schedule, objective.scale, num_steps)
  table = dfj.solvers.heun(grid)
  return np.asarray(dfj.sample(predict, table, jax.random.key(2), shape))


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_a_series_has_the_spectrum_of_its_gaussian_process(name):
  length, num = 16, 1000
  network = {
    "unet": networks.UNet(channels=(16, 16), num_blocks=1),
    "dit": networks.DiT(width=32, depth=2, num_heads=2, patch=2),
  }[name]
  dataset = data.gaussian_process(length, length_scale=0.2, amplitude=1.0)
  x = drawn(trained(network, dataset, 500, 3e-3), (num, length, 1))[..., 0]
  t = np.linspace(0, 1, length)
  variances, basis = np.linalg.eigh(
    np.exp(-0.5 * ((t[:, None] - t) / 0.2) ** 2)
  )
  ours = np.mean((x @ basis) ** 2, axis=0)
  print(name, ours[::-1][:8], variances[::-1][:8])
  large = variances > 0.1  # five of them
  np.testing.assert_allclose(ours[large], variances[large], rtol=0.3)
  assert ours[~large].sum() < 0.3


def test_a_video_has_the_spectrum_of_a_moving_square():
  frames, side, width, num = 4, 4, 2, 1024
  network = networks.DiT(width=96, depth=2, num_heads=4, patch=(2, 2, 4))
  dataset = data.moving_square(frames, side, width)
  x = drawn(trained(network, dataset, 1500, 2e-3), (num, frames, side, side, 1))
  f = np.fft.fft2(x[..., 0])  # of each frame
  ours = np.einsum("ntij,nsij->tsij", f, f.conj()) / num
  square = np.zeros((side, side))
  square[:width, :width] = 2.0
  k = 2 * np.pi * np.fft.fftfreq(side)
  lag = np.arange(frames)[:, None] - np.arange(frames)
  moves = np.mean(
    [
      np.exp(-1j * (k[:, None] * i + k * j) * lag[..., None, None])
      for i, j in [(0, 1), (0, -1)]
    ],
    axis=0,
  )
  true = np.abs(np.fft.fft2(square)) ** 2 * moves
  ours[:, :, 0, 0] = true[:, :, 0, 0] = 0.0  # the mean, which the -1s move
  off = np.linalg.norm(ours - true) / np.linalg.norm(true)
  real = np.fft.fft2(dataset.batch(9, 0, num)["x"][..., 0])
  real = np.einsum("ntij,nsij->tsij", real, real.conj()) / num
  real[:, :, 0, 0] = 0.0
  print(off, np.linalg.norm(real - true) / np.linalg.norm(true))
  assert off < 0.3  # 0.5 where pixels are learned and the motion is not
