"""The training loop: one function, to be read from top to bottom."""

import contextlib
import dataclasses
import types

import jax

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import (
  changes,
  conditions_file,
  snapshots,
  transfer,
  workdir as workdir_lib,
)
from diffflow_jax.runs.progress import Progress
from diffflow_jax.store import (
  checkpoints,
  compile_cache,
  mirror as mirror_lib,
  paths,
)
from diffflow_jax.training import (
  evaluating,
  few_step,
  first_look,
  metrics,
  numbers,
  pictures,
  programs,
)
from diffflow_jax.training.checks import check_devices, check_memory
from diffflow_jax.training.meter import Meter
from diffflow_jax.training.preemption import StopRequest
from diffflow_jax.training.prefetch import Prefetch
from diffflow_jax.training.profiler import Profiler
from diffflow_jax.training.resolve import resolve


def train(
  config,
  workdir,
  *,
  wandb=None,
  profile=None,
  init_from=None,
  init_from_skip=(),
):
  """Trains a config in a workdir, or goes on with what is there.

  Killed at any moment and started again, it ends with the same bits as if it
  had not been: the state holds all that matters, and batches and noise are
  functions of (seed, step).

  Args:
    config: a ConfigDict, as those of configs/.
    workdir: the run's directory, on a disk or in a bucket.
    wandb: None, or a Weights & Biases project to report to.
    profile: None, or (first, last) steps to trace into workdir/profile.
    init_from: None, or another run, whose averaged parameters a new one starts
      from; init_from_skip: patterns of the names of arrays that do not.
  Returns:
    the last TrainState.
  Raises:
    Refusal: the config cannot work, the workdir is another run's, another job
      trains in it, or what it shall start from does not fit.
    Failure: the loss is not finite, or the state cannot be saved; the last
      good checkpoint stays.
  """
  workdir_lib.check_place(workdir)
  run = resolve(config, workdir)
  config = run.config  # with what its method sets
  check_devices(config)
  found = first_look.look(run)
  card = dataclasses.replace(run.card, found=found.as_dict())
  told = conditions_file.of(run)
  active = jax.process_index() == 0
  stride = config.steps_per_dispatch
  pairs = few_step.pairs(run)
  program = programs.build(run, pairs)
  check_memory(run, program.like)
  start = _start(workdir, program.like.params, run, init_from, init_from_skip)
  directory = paths.join(workdir, "checkpoints")
  named = paths.join(workdir, workdir_lib.CONFIG)
  with (
    workdir_lib.claimed(workdir, config, card, told) as (changed, check_alone),
    StopRequest() as stop,
    checkpoints.Checkpoints(directory, witness=named, **config.keep) as saved,
    _snapshots(config, workdir) as snapshot,
  ):
    compile_cache.use(workdir)
    if run.teacher is not None:
      few_step.settle(run.teacher, workdir)
    state, step = _restore_or_init(saved, program, workdir, start)
    changes.check_reached(workdir, config.num_steps, step)
    if step and config.snapshot_every and step % config.snapshot_every == 0:
      snapshot(step, state)  # a kill may have come between the two saves
    progress = Progress(config.num_steps, step, active)
    progress.pause()  # what comes before the first step is not its time
    if changed:
      with metrics.patiently("config.json"):
        workdir_lib.change_config(workdir, config, changed, step)
    for line in (
      _headline(state, step, workdir),
      *([changes.line(changed)] if changed else ()),
      *(start.lines() if start else ()),
      *first_look.lines(run, found),
    ):
      progress.note(line)
    judge = None
    if step < config.num_steps:
      if pairs is not None:
        pairs.make(workdir, progress.note)
      judge = evaluating.of(run, workdir, state.ema[0])
    with (
      mirror_lib.Mirror(workdir, metrics.METRICS) as mirror,
      metrics.Writer(
        workdir, step, active, wandb, mirror.folder, config.log_every
      ) as writer,
      Profiler(mirror.folder, profile) as profiler,
      Prefetch(program.batch, step, config.num_steps, stride) as batches,
    ):
      if active:
        first_look.write(run, found, workdir, mirror.folder, writer)
      meter, loss = Meter(config.batch_size, program.flops()), None
      progress.resume()
      while step < config.num_steps and not stop.at(step // stride):
        profiler.at(step, state)
        batch = batches.get(step, stopped=lambda: stop.signal)
        if batch is None:
          break
        state = program.step(state, batch)
        step += stride
        due = _due(config, step)
        if any(vars(due).values()):
          check_alone()
          _check_finite(state, saved)
        line, loss = {}, None
        if due.log:
          line = _line(state, step, run, program, progress, meter, batches)
          state = program.reset(state)
        progress.pause()
        if due.picture:
          pictures.save(state, step, run, told, writer, mirror.folder, active)
          held, loss = program.held_out(state)
          line |= held
        if due.judge:
          line |= judge(step, state.ema[0], progress.note)
        progress.resume()
        loss = evaluating.loss_of(config, line, loss)
        if line:
          writer.write(step, line)
        if due.save:
          mirror.wait(metrics.METRICS)  # who goes on from here has its lines
          saved.save(step, state.items(), loss)
        if due.average:
          snapshot(step, state)
      if step:
        check_alone()
        _check_finite(state, saved)
        mirror.wait(metrics.METRICS)
        saved.finish(step, state.items(), loss)
    progress.close()
  progress.note(_ending(step, config, stop, workdir))
  return state


@contextlib.contextmanager
def _snapshots(config, workdir):
  """(step, state) -> None, which keeps the averages of a step for good."""
  if not config.snapshot_every:
    yield None
    return
  with snapshots.open_in(workdir) as kept:

    def snapshot(step, state):
      if step not in kept.steps():  # a resumed run comes by the same ones again
        kept.save(step, {"ema": state.ema})

    yield snapshot


def _start(workdir, like, run, init_from, skip):
  """What a new run's parameters are from: another run, its teacher, or None."""
  if init_from is None and run.teacher is not None:
    going = transfer.has_checkpoints(workdir)
    return None if going else run.teacher.start(like, run)
  return transfer.plan(workdir, like, run, init_from, skip)


def _due(config, step):
  """What is to be done after a step, each of it True or False."""
  last = step == config.num_steps
  every = lambda num: num > 0 and step % num == 0
  asked = evaluating.is_asked(config)
  return types.SimpleNamespace(
    log=last or every(config.log_every),
    picture=last or every(config.sample_every),
    judge=asked and (last or every(config.evaluate.every)),
    save=not last and every(config.checkpoint_every),
    average=every(config.snapshot_every),
  )


def _headline(state, step, workdir):
  num_params = sum(x.size for x in jax.tree.leaves(state.params))
  start = f"resumes at step {step}" if step else "starts"
  return (
    f"{workdir} {start}: {num_params:,} parameters, "
    f"{jax.device_count()} {jax.default_backend()} device(s)"
  )


def _ending(step, config, stop, workdir):
  if step < config.num_steps:
    what = f"saved at step {step}" if step else "nothing to save yet"
    return f"{stop.signal}: {what}; the same command goes on from it"
  return f"finished step {step}; see {paths.join(workdir, 'samples')}"


def _restore_or_init(saved, program, workdir, start):
  """(state, step): from the newest whole checkpoint, the start, or the seed."""
  try:
    restored = saved.restore(program.like.items())
  except checkpoints.OtherArrays as error:
    raise Refusal(f"{workdir} cannot be resumed: {error}") from error
  if restored is None:
    if start is None:
      return program.init({}), 0
    if jax.process_index() == 0:
      start.write(workdir)
    state = program.init(start.given)
    start.given.clear()  # memory of the host
    saved.finish(0, state.items())  # the other run is not needed any more
    return state, 0
  step, items = restored
  return program.like.replace(**items), step


def _check_finite(state, saved):
  bad = int(state.bad_step)
  if bad >= 0:
    saved.wait()
    raise Failure(
      f"the loss or its gradient is not finite at step {bad}; {saved.newest()}"
    )


def _line(state, step, run, program, progress, meter, batches):
  """One metrics line: the sums, and how fast it goes."""
  line = numbers.summarise(state.sums)
  line["learning_rate"] = float(run.learning_rate(step - 1))
  line["param_norm"] = float(program.param_norm(state))
  rate = progress.update(step, line["loss"])
  line["steps_per_second"] = rate
  num_steps = float(state.sums.steps)
  return {**line, **meter.line(rate, num_steps, batches.waited)}
