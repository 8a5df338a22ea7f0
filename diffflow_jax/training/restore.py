"""Reading a trained run, without what only training needs."""

import os

import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.training import (
  checkpoints,
  resolve,
  snapshots,
  state as state_lib,
  workdir as workdir_lib,
)


def load_ema(workdir, run, step=None, sigma_rel=None):
  """(step, the first EMA) of the newest whole checkpoint of a run.

  Args:
    step: None, or that of another checkpoint which was kept.
    sigma_rel: None, or the relative width of another average, which is then
      rebuilt from the run's snapshots.
  Raises:
    Refusal: there is no checkpoint, or not this one, that can be read.
  """
  directory = os.path.join(workdir, "checkpoints")
  like = jax.eval_shape(
    lambda: (
      state_lib.create(
        run.objective, run.network, run.tx, run.dataset, run.averages, 0
      ).ema
    )
  )
  if sigma_rel is not None:
    gammas = [average.args[0] for average in run.averages]
    return snapshots.rebuild(workdir, like, gammas, sigma_rel)
  restored, damaged = None, False
  if os.path.isdir(directory):
    with checkpoints.Checkpoints(directory, read_only=True) as saved:
      damaged = bool(saved.steps())
      if step not in (None, *saved.steps()):
        raise Refusal(f"--step must be one of {saved.steps()}, not {step}")
      try:
        restored = saved.restore({"ema": like}, step)
      except checkpoints.OtherArrays as error:
        raise Refusal(f"{workdir}: {error}") from error
  if restored is None:
    what = "that can be read" if damaged else "yet"
    raise Refusal(f"{workdir} has no checkpoint {what}")
  step, items = restored
  return step, items["ema"][0]


def load_predictor(workdir):
  """The Predictor of the run in a workdir, on its EMA parameters."""
  run = resolve.resolve(workdir_lib.load_config(workdir))
  _, ema = load_ema(workdir, run)
  return predictor(run.objective, run.network.apply, ema)
