"""The library's train step against a hand-written minimal one.

  python benchmarks/train_step.py --config=configs/digits.py
  python benchmarks/train_step.py --config=configs/imagenet256_latent.py \
      --config.network.name=dit_b --config.dataset.name=synthetic \
      --config.dataset.channels=4     # a DiT-B/2 in bf16, for a GPU

The config's network, optimiser, data and batch size, flow matching, one device;
the hand-written step has no objective, no log-SNR bins, no gradient norm, no
checks. Prints the ratio of their times, the median over alternating rounds,
examples/s, FLOP/s and, where it is known, the share of the device's peak.
"""

import statistics
import sys
import time

import jax
import jax.numpy as jnp
import optax

from diffflow_jax import cli
from diffflow_jax.objective import objectives
from diffflow_jax.training import (
  ema,
  meter,
  resolve,
  state as state_lib,
)

ROUNDS, STEPS = 15, 4


def minimal_step(apply, tx, dataset):
  """Flow matching in a few lines: what one would write without a library."""

  def step(state, batch):
    params, average, opt_state, n = state
    key = jax.random.fold_in(jax.random.key(0), n)
    t_key, eps_key, drop_key = jax.random.split(key, 3)
    x, label = dataset.to_float(batch["x"]), batch.get("label")
    if label is not None:
      drop = jax.random.bernoulli(drop_key, 0.1, label.shape)
      label = jnp.where(drop, dataset.num_classes, label)
    t = jax.random.uniform(t_key, x.shape[:1], minval=1e-6, maxval=1 - 1e-6)
    eps = jax.random.normal(eps_key, x.shape)
    w = t.reshape(-1, *[1] * (x.ndim - 1))
    logsnr = 2.0 * (jnp.log1p(-t) - jnp.log(t))

    def loss(params):
      u = apply(params, (1 - w) * x + w * eps, logsnr, label)
      return jnp.mean((eps - x - u) ** 2)

    grads = jax.grad(loss)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 0.01)
    return params, average, opt_state, n + 1

  return step


def steps_to_compare(run):
  """{name: [compiled step, state]}, and the batch that both go over."""
  dataset, network, tx = run.dataset, run.network, run.tx
  objective, averages = objectives.flow_matching(), ema.exponential(0.99)
  ours = state_lib.make_train_step(
    objective, network.apply, tx, dataset, averages, seed=0, label_dropout=0.1
  )
  state = state_lib.create(objective, network, tx, dataset, averages, 0)
  copy = lambda tree: jax.tree.map(jnp.copy, tree)
  bare = copy((state.params, state.ema[0], state.opt_state, state.step))
  by_hand = minimal_step(network.apply, tx, dataset)
  steps = {
    "library": [jax.jit(ours, donate_argnums=0), state],
    "hand-written": [jax.jit(by_hand, donate_argnums=0), bare],
  }
  batch = dataset.batch(0, 0, run.config.batch_size)
  return steps, jax.tree.map(jnp.asarray, batch)


def main(argv):
  values = cli.new_flags()
  cli.define_config(values, argv)
  cli.parse(values, argv, __doc__, required=("config",))
  run = resolve.resolve(cli.chosen_config(values))
  steps, batch = steps_to_compare(run)
  size = run.config.batch_size
  flops = meter.model_flops(
    run.network.apply, steps["library"][1].params, run.dataset, size
  )
  times = {name: [] for name in steps}
  for round_ in range(ROUNDS + 1):
    for name, pair in steps.items():
      start = time.perf_counter()
      for _ in range(STEPS):
        pair[1] = pair[0](pair[1], batch)
      jax.block_until_ready(pair[1])
      if round_:  # the first one compiles
        times[name].append((time.perf_counter() - start) / STEPS)
  ratios = [a / b for a, b in zip(*times.values(), strict=True)]
  device = jax.devices()[0].device_kind
  print(f"on {device}, jax {jax.__version__}, batch {size}")
  for name, values in times.items():
    seconds = statistics.median(values)
    line = f"{name:14s} {1e3 * seconds:8.1f} ms a step"
    line += f"  {size / seconds:8.1f} examples/s  {flops / seconds:.3g} FLOP/s"
    if peak := meter.peak_flops(device):
      line += f"  {flops / seconds / peak:.1%} of the peak"
    print(line)
  print(f"ratio          {statistics.median(ratios):8.3f}")


if __name__ == "__main__":
  cli.run(main, sys.argv)
