"""Reading a trained run, without what only training needs."""

import os

import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.training import checkpoints, state as state_lib


def load_ema(workdir, run):
  """(step, the first EMA) of the newest whole checkpoint of a run.

  Raises:
    Refusal: there is no checkpoint that can be read.
  """
  directory = os.path.join(workdir, "checkpoints")
  like = jax.eval_shape(
    lambda: (
      state_lib.create(run.network, run.tx, run.dataset, run.averages, 0).ema
    )
  )
  restored = None
  if os.path.isdir(directory):
    with checkpoints.Checkpoints(directory, read_only=True) as saved:
      try:
        restored = saved.restore({"ema": like})
      except checkpoints.OtherArrays as error:
        raise Refusal(f"{workdir}: {error}") from error
  if restored is None:
    raise Refusal(f"{workdir} has no checkpoint yet")
  step, items = restored
  return step, items["ema"][0]
