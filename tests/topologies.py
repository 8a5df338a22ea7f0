"""Run on 8 forced CPU devices by test_distributed: every topology, one answer.

Prints one line of JSON: for each topology, the largest difference of losses and
parameters from one device's after 20 steps, the bytes of state on device 0, and
the bytes that a step needs there at most, as the compiler counts them.
"""

import functools
import json

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from diffflow_jax import data, networks
from diffflow_jax.objective import losses, objectives
from diffflow_jax.training import ema, programs, sharding
from diffflow_jax.training.resolve import Run

STEPS, BATCH = 20, 64


def make_run(mesh, accumulation, tx, remat=False):
  config = ml_collections.ConfigDict(
    dict(
      seed=0,
      batch_size=BATCH,
      mesh=mesh,
      accumulation=accumulation,
      steps_per_dispatch=1,
      label_dropout=0.1,
    )
  )
  return Run(
    config,
    data.digits(),
    objectives.flow_matching(),
    networks.DiT(
      width=64, depth=2, num_heads=2, patch=2, num_classes=10, remat=remat
    ),
    tx,
    None,
    ema.exponential(0.9),
  )


def train(mesh, accumulation, tx, remat=False):
  """(losses, final state, peak bytes) of 20 steps."""
  program = programs.build(make_run(mesh, accumulation, tx, remat))
  state, seen = program.init(), []
  peak = peak_bytes(program.step, state, program.batch(0))
  for step in range(STEPS):
    state = program.step(state, program.batch(step))
    seen.append(float(state.sums.loss))
  return np.diff([0.0, *seen]), state, peak


def peak_bytes(step, *args):
  """Of one device, over a step: arguments, results and what is in between."""
  m = step.lower(*args).compile().memory_analysis()
  return (
    m.argument_size_in_bytes
    + m.output_size_in_bytes
    - m.alias_size_in_bytes
    + m.temp_size_in_bytes
  )


def biggest_difference(a, b):
  gaps = jax.tree.map(
    lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(), a, b
  )
  return float(max(jax.tree.leaves(gaps)))


def bytes_on_device_0(state):
  first = jax.devices()[0]
  return sum(
    shard.data.nbytes
    for leaf in jax.tree.leaves(state)
    for shard in leaf.addressable_shards
    if shard.device == first
  )


def by_hand(kind, run, params):
  """One gradient of a fixed batch under shard_map or pmap, as documented."""
  mesh = sharding.make_mesh(8, 1)
  batch = run.dataset.batch(0, 0, BATCH)
  x, label = run.dataset.to_float(batch["x"]), jnp.asarray(batch["label"])
  logsnr = jnp.linspace(-5.0, 5.0, BATCH)
  eps = jax.random.normal(jax.random.key(1), x.shape)

  def loss(params, x, logsnr, eps, label):
    return losses.terms_at(
      run.objective, run.network.apply, params, x, logsnr, eps, label
    ).loss.mean()

  inputs = (x, logsnr, eps, label)
  if kind == "jit":
    return jax.jit(jax.grad(loss))(params, *inputs)
  if kind == "shard_map":
    # the mean over devices belongs inside the differentiated function: the
    # gradient of replicated parameters is already summed over the mesh
    spec = jax.P(("data", "fsdp"))
    mean_loss = jax.shard_map(
      lambda p, *b: jax.lax.pmean(loss(p, *b), ("data", "fsdp")),
      mesh=mesh,
      in_specs=(jax.P(), *[spec] * 4),
      out_specs=jax.P(),
    )
    return jax.jit(jax.grad(mean_loss))(params, *inputs)
  rows = [v.reshape(8, BATCH // 8, *v.shape[1:]) for v in inputs]
  step = jax.pmap(
    lambda p, *b: jax.lax.pmean(jax.grad(loss)(p, *b), "i"),
    axis_name="i",
    in_axes=(None, 0, 0, 0, 0),
  )
  return jax.tree.map(lambda g: g[0], step(params, *rows))


def main():
  tx = optax.sgd(0.05, momentum=0.9)
  one = functools.partial(train, dict(data=-1, fsdp=1), 1, tx)
  with jax.default_device(jax.devices()[0]):
    want_losses, want, _ = _on_one_device(one)
  result = {}
  for name, data_axis, fsdp, accumulation, remat in (
    ("data8", 8, 1, 1, False),
    ("fsdp8", 1, 8, 1, False),
    ("mixed", 4, 2, 1, False),
    ("data8_remat", 8, 1, 1, True),
    ("data8_accumulate4", 8, 1, 4, False),
    ("fsdp8_accumulate4", 1, 8, 4, False),
    ("mixed_accumulate4_remat", 4, 2, 4, True),
  ):
    mesh = dict(data=data_axis, fsdp=fsdp)
    seen, state, peak = train(mesh, accumulation, tx, remat)
    result[name] = dict(
      losses=float(np.abs(seen - want_losses).max()),
      params=biggest_difference(state.params, want.params),
      ema=biggest_difference(state.ema, want.ema),
      bytes=bytes_on_device_0(state),
      peak=peak,
    )
  run = make_run(dict(data=8, fsdp=1), 1, tx)
  params = jax.tree.map(np.asarray, want.params)
  grads = by_hand("jit", run, params)
  kinds = ["shard_map"] + ["pmap"] * hasattr(jax, "pmap")
  for kind in kinds:
    result[kind] = biggest_difference(by_hand(kind, run, params), grads)
  print(json.dumps(result))


def _on_one_device(train_one):
  """The same run with a mesh of one device."""
  whole = jax.device_count
  sharding.make_mesh, make = (
    lambda *_: jax.make_mesh(
      (1, 1),
      sharding.AXES,
      axis_types=(sharding.AxisType.Auto,) * 2,
      devices=jax.devices()[:1],
    ),
    sharding.make_mesh,
  )
  try:
    return train_one()
  finally:
    sharding.make_mesh = make
    assert whole() == 8


if __name__ == "__main__":
  main()
