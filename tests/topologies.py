"""Run on 8 forced CPU devices by test_distributed: every topology, one answer.

Prints one line of JSON: for each topology, the largest difference of losses and
parameters from one device's after 20 steps, the bytes of state on device 0, and
the bytes that a step needs there at most, as the compiler counts; of a mesh
also those where blocks are recomputed.
"""

import functools
import json

import jax
import ml_collections
import numpy as np
import optax

from diffflow_jax import data, networks
from diffflow_jax.objective import objectives
from diffflow_jax.runs import card, sharding
from diffflow_jax.training import ema, programs, state as state_lib
from diffflow_jax.training.resolve import TrainingRun

STEPS, BATCH = 20, 64
MESHES = {"data8": (8, 1), "fsdp8": (1, 8), "mixed": (4, 2)}


def make_run(mesh, accumulation, remat):
  config = ml_collections.ConfigDict(
    dict(
      seed=0,
      batch_size=BATCH,
      mesh=dict(data=mesh[0], fsdp=mesh[1]),
      accumulation=accumulation,
      steps_per_dispatch=1,
      label_dropout=0.1,
    )
  )
  return TrainingRun(
    config,
    card.of(data.digits()),
    objectives.flow_matching(),
    networks.DiT(
      width=64, depth=2, num_heads=2, patch=2, num_classes=10, remat=remat
    ),
    data.digits(),
    optax.sgd(0.05, momentum=0.9),
    None,
    ema.exponential(0.9),
  )


def by_shard_map(gradient):
  """The gradient's examples over the devices; parameters on each of them."""
  mesh, split = sharding.make_mesh(8, 1), jax.P(("data", "fsdp"))

  def of_a_device(params, part):
    grads, terms = gradient(params, part)
    # jax.grad has summed over the devices already: params are the same on all
    return jax.tree.map(lambda g: g / 8, grads), terms

  return jax.shard_map(
    of_a_device,
    mesh=mesh,
    in_specs=(jax.P(), split),
    out_specs=(jax.P(), split),
  )


def by_pmap(gradient):
  """The same by `pmap`, where nothing is summed unless one asks for it."""

  def of_a_device(params, part):
    grads, terms = gradient(params, part)
    return jax.lax.pmean(grads, "devices"), terms

  mapped = jax.pmap(of_a_device, "devices", in_axes=(None, 0))

  def spread(params, part):
    rows = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), part)
    grads, terms = mapped(params, rows)
    return (
      jax.tree.map(lambda g: g[0], grads),
      jax.tree.map(lambda x: x.reshape(-1), terms),
    )

  return spread


@functools.cache
def first_state():
  """Blocks that are recomputed have the same parameters."""
  run = make_run((1, 1), 1, False)
  return state_lib.create(
    run.objective, run.network, run.tx, run.dataset, run.averages, 0
  )


def pure(accumulation, remat, **spread):
  """(first state, the step, step -> batch) without any mesh of ours."""
  run = make_run((1, 1), accumulation, remat)
  step = state_lib.make_train_step(
    run.objective,
    run.network.apply,
    run.tx,
    run.dataset,
    run.averages,
    seed=0,
    label_dropout=0.1,
    accumulation=accumulation,
    **spread,
  )
  state, where = first_state(), None
  if spread:  # state and batch on all devices; a map of ours splits the latter
    where = jax.NamedSharding(sharding.make_mesh(8, 1), jax.P())
    state = jax.device_put(state, where)
  step = jax.jit(step, out_shardings=where)
  return state, step, lambda n: run.dataset.batch(0, n, BATCH)


def meshed(mesh, accumulation, remat):
  program = programs.build(make_run(mesh, accumulation, remat))
  return program.init({}), program.step, program.batch


def train(state, step, batch):
  """(losses, final state, peak bytes) of 20 steps."""
  peak, seen = peak_bytes(step, state, batch(0)), []
  for n in range(STEPS):
    state = step(state, batch(n))
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


def main():
  want_losses, want, _ = train(*pure(1, False))
  result = {}
  for accumulation, remat in ((1, False), (4, True)):
    topologies = {
      name: meshed(mesh, accumulation, remat) for name, mesh in MESHES.items()
    }
    topologies["shard_map"] = pure(accumulation, remat, spread=by_shard_map)
    if hasattr(jax, "pmap"):
      topologies["pmap"] = pure(accumulation, remat, spread=by_pmap)
    for name, parts in topologies.items():
      seen, state, peak = train(*parts)
      key = f"{name} x{accumulation}" + " remat" * remat
      result[key] = dict(
        losses=float(np.abs(seen - want_losses).max()),
        params=biggest_difference(state.params, want.params),
        ema=biggest_difference(state.ema, want.ema),
        bytes=bytes_on_device_0(state),
        peak=peak,
      )
  for name, mesh in MESHES.items():  # what recomputing saves, without a step
    state, step, batch = meshed(mesh, 1, True)
    result[f"{name} x1"]["remat"] = peak_bytes(step, state, batch(0))
  print(json.dumps(result))


if __name__ == "__main__":
  main()
