"""The training loop: one function, to be read from top to bottom."""

import os
import signal
import threading

import jax
import jax.numpy as jnp

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.training import (
  checkpoints,
  generate,
  metrics,
  sharding,
  state as state_lib,
  workdir as workdir_lib,
)
from diffflow_jax.training.progress import Progress
from diffflow_jax.training.resolve import resolve


class StopRequest:
  """Notes SIGTERM and SIGINT, so that the loop can save before it ends.

  A context manager; outside the main thread, where Python gives no signals, it
  notes nothing.
  """

  def __init__(self):
    self.signal = None
    self._before = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._note)
    return self

  def __exit__(self, *exc):
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number, frame):
    if self.signal is not None:
      raise KeyboardInterrupt  # asked twice: at once
    self.signal = signal.Signals(number).name


def use_compile_cache(workdir):
  """Keeps compiled programs in the workdir, unless JAX was told otherwise."""
  if not jax.config.jax_compilation_cache_dir:
    jax.config.update(
      "jax_compilation_cache_dir", os.path.join(workdir, "compile_cache")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def train(config, workdir):
  """Trains a config in a workdir, or goes on with what is there.

  Killed at any moment and started again, it ends with the same bits as if it
  had not been: the state holds all that matters, and batches and noise are
  functions of (seed, step).

  Raises:
    Refusal: the config cannot work, or the workdir is another run's.
    Failure: the loss is not finite; the last good checkpoint stays.
  """
  run = resolve(config)
  workdir_lib.claim(workdir, config)
  use_compile_cache(workdir)
  first_process = jax.process_index() == 0
  mesh = sharding.make_mesh()
  whole, split = sharding.replicated(mesh), sharding.split(mesh)

  init = jax.jit(
    lambda: state_lib.create(run.network, run.tx, run.dataset, config.seed),
    out_shardings=whole,
  )
  train_step = jax.jit(
    state_lib.make_train_step(
      run.objective,
      run.network.apply,
      run.tx,
      run.dataset,
      seed=config.seed,
      ema=config.ema,
      label_dropout=config.label_dropout,
    ),
    in_shardings=(whole, split),
    out_shardings=whole,
    donate_argnums=0,
  )

  directory = os.path.join(workdir, "checkpoints")
  with (
    StopRequest() as stop,
    checkpoints.Checkpoints(directory, keep=config.keep_checkpoints) as saved,
  ):
    state, step = _restore_or_init(saved, init, whole, workdir)
    progress = Progress(config.num_steps, step, first_process)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    start = f"resumes at step {step}" if step else "starts"
    progress.note(
      f"{workdir} {start}: {num_params:,} parameters, "
      f"{jax.device_count()} {jax.default_backend()} device(s)"
    )
    with metrics.Writer(workdir, step, first_process) as writer:
      while step < config.num_steps and not stop.signal:
        batch = run.dataset.batch(
          config.seed,
          step,
          config.batch_size,
          jax.process_index(),
          jax.process_count(),
        )
        state = train_step(state, sharding.put_batch(batch, mesh))
        step += 1
        last = step == config.num_steps
        if step % config.log_every == 0 or last:
          state = _log(state, step, run, writer, progress, saved)
        if step % config.sample_every == 0 or last:
          progress.pause()
          _picture(state, step, run, writer, workdir, first_process)
          progress.resume()
        if step % config.checkpoint_every == 0 or last or stop.signal:
          _check_finite(state, saved)
          saved.save(step, vars(state))
    progress.close()
  if stop.signal and step < config.num_steps:
    progress.note(
      f"{stop.signal}: saved at step {step}; the same command goes on from it"
    )
  else:
    progress.note(
      f"finished step {step}; see {os.path.join(workdir, 'samples')}"
    )
  return state


def _restore_or_init(saved, init, sharding_of_state, workdir):
  """(state, step): from the newest whole checkpoint, or from the seed."""
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=sharding_of_state
    ),
    vars(jax.eval_shape(init)),
  )
  try:
    restored = saved.restore(like)
  except checkpoints.OtherArrays as error:
    raise Refusal(f"{workdir} cannot be resumed: {error}") from error
  if restored is None:
    return init(), 0
  step, items = restored
  return state_lib.TrainState(**items), step


def _check_finite(state, saved):
  bad = int(state.bad_step)
  if bad >= 0:
    kept = saved.steps()
    left = f"checkpoint {kept[0]} is good" if kept else "there is no checkpoint"
    raise Failure(
      f"the loss or its gradient is not finite at step {bad}; {left}"
    )


def _log(state, step, run, writer, progress, saved):
  """Writes the sums as one line, and starts new ones."""
  _check_finite(state, saved)
  line = state_lib.summarise(state.sums)
  line["learning_rate"] = float(run.learning_rate(step - 1))
  line["steps_per_second"] = progress.update(step, line["loss"])
  writer.write(step, line)
  zeros = jax.tree.map(
    lambda old, new: jax.device_put(jnp.asarray(new), old.sharding),
    state.sums,
    state_lib.no_sums(),
  )
  return state.replace(sums=zeros)


def _picture(state, step, run, writer, workdir, active):
  """Samples of the EMA on fixed noise, as samples/step_<n>.png."""
  how = run.config.sampler
  samples, labels = generate.generate(
    run,
    generate.make_predict(run, state.ema, how.guidance),
    generate.make_tableau(run.objective, how.solver, how.grid, how.num_steps),
    num_samples=how.num_samples,
    seed=run.config.seed,
  )
  if not active:
    return
  from diffflow_jax import plots

  directory = os.path.join(workdir, "samples")
  os.makedirs(directory, exist_ok=True)
  path = os.path.join(directory, f"step_{step:08d}.png")
  generate.save_picture(path, run, samples, labels)
  if len(run.dataset.shape) == 3:
    writer.picture(step, "samples", plots.image_grid(samples, columns=10))
