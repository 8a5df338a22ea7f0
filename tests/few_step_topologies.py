"""Run on 8 forced CPU devices by test_few_step: every mesh, the same steps.

Prints one line of JSON: for each topology the largest difference of losses and
parameters from one device's after 4 steps, which cross a stage, and the bytes
of the teacher on device 0.
"""

import dataclasses
import json
import types

import jax
import ml_collections
import numpy as np
import optax

from diffflow_jax import data, networks
from diffflow_jax.objective import objectives
from diffflow_jax.runs import card, recipe
from diffflow_jax.training import ema, programs, state as state_lib
from diffflow_jax.training.few_step import method, stages, teacher
from diffflow_jax.training.few_step.methods import METHODS
from diffflow_jax.training.resolve import TrainingRun
from tests.topologies import biggest_difference, bytes_on_device_0

OBJECTIVE = objectives.flow_matching()
NETWORK = networks.MLP(width=64, depth=1, destination=True)
GRID = np.asarray(
  OBJECTIVE.schedule.logsnr(np.linspace(1.0, 0.0, 5, dtype=np.float32))
)
MESHES = {"data8": (8, 1), "fsdp8": (1, 8), "mixed": (4, 2)}


def make_run(name, mesh):
  """A run whose teacher has random parameters."""
  config = ml_collections.ConfigDict(
    dict(
      seed=0, batch_size=32, mesh=dict(data=mesh[0], fsdp=mesh[1]),
      accumulation=2, steps_per_dispatch=1, label_dropout=0.0,
    )
  )  # fmt: skip
  kind = METHODS[name](**({"steps_per_stage": 2} if "prog" in name else {}))
  if "prog" in name:
    kind = dataclasses.replace(kind, grid=GRID, stages=stages.Stages(2, 2))
  params = recipe.init(OBJECTIVE, NETWORK, data.ring(), 1)
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(0)
  random = [rng.normal(0, 0.05, x.shape).astype(x.dtype) for x in leaves]
  predict = objectives.predictor(
    OBJECTIVE, NETWORK.apply, tree.unflatten(random)
  )
  return TrainingRun(
    config, card.of(data.ring()), OBJECTIVE, NETWORK, data.ring(),
    optax.sgd(0.01, momentum=0.9), None, ema.exponential(0.9),
    method=method.Method(kind),
    teacher=teacher.Teacher(types.SimpleNamespace(), predict)
    if kind.teacher
    else None,
  )  # fmt: skip


def pure(name):
  run = make_run(name, (1, 1))
  staged = run.method.stages is not None
  step = jax.jit(
    state_lib.make_train_step(
      run.objective, run.network.apply, run.tx, run.dataset, run.averages,
      seed=0, label_dropout=0.0, accumulation=2, method=run.method,
    )
  )  # fmt: skip
  state = state_lib.create(
    run.objective, run.network, run.tx, run.dataset, run.averages, 0,
    staged=staged,
  )  # fmt: skip
  taught = () if run.teacher is None else (run.teacher.predict,)
  return (
    state,
    lambda state, batch: step(state, batch, *taught),
    lambda n: run.dataset.batch(0, n, 32),
  )


def train(state, step, batch):
  seen = []
  for n in range(4):
    state = step(state, batch(n))
    seen.append(float(state.sums.loss))
  return np.diff([0.0, *seen]), state


def main():
  result = {}
  for name in ("progressive_distillation", "mean_flow"):
    losses, want = train(*pure(name))
    for mesh, shape in MESHES.items():
      run = make_run(name, shape)
      program = programs.build(run)
      seen, state = train(program.init({}), program.step, program.batch)
      one = dict(
        losses=float(np.abs(seen - losses).max()),
        params=biggest_difference(state.params, want.params),
        loss=float(np.abs(losses).max()),
        bytes=bytes_on_device_0(state),
      )
      if run.method.stages is not None:
        one["teacher"] = biggest_difference(state.teacher, want.teacher)
        one["taught"] = bytes_on_device_0(
          run.teacher.on(state.step.sharding.mesh)
        )
      result[f"{name} {mesh}"] = one
  print(json.dumps(result))


if __name__ == "__main__":
  main()
