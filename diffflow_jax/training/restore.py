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


def load_ema(workdir, run, sigma_rel=None):
  """(step, the first EMA) of the newest whole checkpoint of a run.

  Args:
    sigma_rel: None, or the relative width of another average, which is then
      rebuilt from the run's snapshots.
  Raises:
    Refusal: there is no checkpoint that can be read.
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
    widths = run.config.ema.get("sigma_rel", ())
    return snapshots.rebuild(workdir, like, widths, sigma_rel)
  restored = None
  if os.path.isdir(directory):
    with checkpoints.Checkpoints(directory, read_only=True) as saved:
      try:
        restored = saved.restore({"ema": like})
      except checkpoints.OtherArrays as error:
        raise Refusal(f"{workdir}: {error}") from error
  if restored is None:
    damaged = os.path.isdir(directory) and os.listdir(directory)
    what = "that can be read" if damaged else "yet"
    raise Refusal(f"{workdir} has no checkpoint {what}")
  step, items = restored
  return step, items["ema"][0]


def load_predictor(workdir):
  """The Predictor of the run in a workdir, on its EMA parameters."""
  run = resolve.resolve(workdir_lib.load_config(workdir))
  _, ema = load_ema(workdir, run)
  return predictor(run.objective, run.network.apply, ema)
