"""The compiled programs of a run: its first state, its step, its batches."""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from diffflow_jax.process.conditions import LABEL
from diffflow_jax.runs import conditioning, sharding, transfer
from diffflow_jax.store.compilation import brisk, quick
from diffflow_jax.training import few_step, numbers, state as state_lib
from diffflow_jax.training.meter import model_flops, traced_flops


@dataclasses.dataclass(frozen=True)
class Programs:
  """What the loop calls.

  Attributes:
    like: abstract state, with the shardings that it is restored into.
    init: {name: array} -> state at step 0, born sharded; these parameters are
      the given ones and not those of the seed.
    step: (state, batch) -> state, `steps_per_dispatch` steps; donates state.
    held_out: state -> ({name: float}, mean) of held-out examples.
    flops: () -> FLOPs of a step's matrix products.
    reset: state -> state whose sums, those behind a metrics line, are nothing.
    param_norm: state -> the L2 norm of the parameters.
    batch: step -> the global batch(es) that start there, on the devices.
  """

  like: Any
  init: Callable
  step: Callable
  held_out: Callable
  flops: Callable
  reset: Callable
  param_norm: Callable
  batch: Callable


def build(run, source=None):
  """Programs of a resolved run; nothing is compiled until it is called.

  Args:
    source: what has the batches, if that is not the run's data set.
  """
  config = run.config
  mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
  stride = config.steps_per_dispatch

  def create(given):
    return state_lib.create(
      run.objective,
      run.network,
      run.tx,
      run.dataset,
      run.averages,
      config.seed,
      given,
      staged=run.method is not None and run.method.stages is not None,
    )

  abstract = jax.eval_shape(create, {})
  shardings = sharding.state_sharding(abstract, mesh)
  split = sharding.batch_sharding(mesh, leading=int(stride > 1))
  rates, together = conditioning.rates(config, run.card.conditions)
  step = state_lib.make_train_step(
    run.objective,
    sharding.keep_batch_split(run.network.apply, mesh),
    run.tx,
    run.dataset,
    run.averages,
    seed=config.seed,
    label_dropout=rates.pop(LABEL, 0.0),
    dropout=rates,
    drop_all=together,
    rngs=("dropout",) if getattr(run.network, "dropout", 0.0) else (),
    accumulation=config.accumulation,
    method=run.method,
  )

  # Both compiled: an array put on several processes' devices from the host is
  # one that Orbax cannot save, and programs that run side by side, as those of
  # an eager norm, may wait for each other's messages for ever.
  no_sums = quick(numbers.no_sums, out_shardings=shardings.sums)
  norm = quick(optax.tree.norm, out_shardings=shardings.step)

  born = quick(create, out_shardings=shardings)
  places = transfer.named(shardings.params)

  def init(given):
    return born(
      {name: sharding.put(x, places[name]) for name, x in given.items()}
    )

  def read(step):
    return (source or run.dataset).batch(
      config.seed,
      step,
      config.batch_size,
      jax.process_index(),
      jax.process_count(),
    )

  def batch(step):
    rows = read(step)
    if stride > 1:
      more = [read(s) for s in range(step + 1, step + stride)]
      rows = jax.tree.map(lambda *xs: np.stack(xs), rows, *more)
    return sharding.put_batch(rows, split)

  # an argument of the step and no constant in it: it may be large
  taught = () if run.teacher is None else (run.teacher.on(mesh),)
  taught_at = [jax.tree.map(lambda x: x.sharding, t) for t in taught]
  compiled = brisk(
    state_lib.several(step, stride),
    in_shardings=(shardings, split, *taught_at),
    out_shardings=shardings,
    donate_argnums=0,
  )
  like = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    abstract,
    shardings,
  )
  if run.method is None:
    held_out = lambda state: numbers.held_out(run, state.ema[0])
    flops = lambda: model_flops(
      run.network.apply, like.params, run.dataset, config.batch_size
    )
  else:
    judged = few_step.held_out(run)
    held_out = lambda state: judged(state, *taught)
    flops = lambda: (
      traced_flops(compiled.trace(like, batch(0), *taught)) / stride
    )

  return Programs(
    like=like,
    init=init,
    step=_with(compiled, *taught) if taught else compiled,
    held_out=held_out,
    flops=flops,
    reset=lambda state: state.replace(sums=no_sums()),
    param_norm=lambda state: norm(state.params),
    batch=batch,
  )


def _with(step, teacher):
  return lambda state, batch: step(state, batch, teacher)
