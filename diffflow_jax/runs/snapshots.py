"""Averages of the parameters kept along the way, to choose one's length later.

Snapshots of power-function averages are checkpoints of their own, all of which
stay. Any other average is a sum of them (Karras et al., arXiv:2312.02696 §3.2).
"""

import logging

from etils import epath
import jax
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import averages as averages_lib
from diffflow_jax.runs.workdir import CONFIG
from diffflow_jax.store.checkpoints import Checkpoints, OtherArrays

log = logging.getLogger("diffflow_jax")


def open_in(workdir, read_only=False):
  """The snapshots of a run, as `Checkpoints` that keep all."""
  return Checkpoints(
    epath.Path(workdir) / "snapshots",
    latest=None,
    read_only=read_only,
    witness=epath.Path(workdir) / CONFIG,
  )


def rebuild(workdir, like, gammas, sigma_rel):
  """(step, params): the average of width sigma_rel at the newest snapshot.

  Args:
    like: abstract tuple of averages, as a snapshot holds them; gammas: theirs.
    sigma_rel: relative width of the wanted one, from about the smallest of
      those that were kept on; much smaller ones were not recorded.
  Raises:
    Refusal: there are no snapshots that can be read, they are another
      network's, or sigma_rel is out of range.
  """
  try:
    wanted = averages_lib.gamma_of(sigma_rel)
  except ValueError as error:
    raise Refusal(f"ema: {error}") from error
  if not (epath.Path(workdir) / "snapshots").exists():
    raise Refusal(f"{workdir} has no snapshots: config.snapshot_every was 0")
  with open_in(workdir, read_only=True) as saved:
    there = saved.steps()
    if not there:
      raise Refusal(f"{workdir} has no snapshots yet")
    steps = [step for step in there if _whole(saved, step, like)]
    if not steps:
      raise Refusal(f"{workdir} has no snapshots that can be read")
    weights = averages_lib.post_hoc_weights(
      np.repeat(steps, len(gammas)),
      np.tile(gammas, len(steps)),
      steps[0],
      wanted,
    ).reshape(len(steps), len(gammas))
    total = jax.tree.map(lambda leaf: np.zeros(leaf.shape), like[0])
    for row, step in enumerate(steps):  # one snapshot in memory at a time
      try:
        averages = saved.load(step, {"ema": like})["ema"]
      except ValueError as error:
        raise Refusal(f"snapshot {step} cannot be read: {error}") from error
      for weight, average in zip(weights[row], averages, strict=True):
        total = jax.tree.map(
          lambda t, leaf, w=weight: t + w * np.asarray(leaf), total, average
        )
  params = jax.tree.map(lambda t, leaf: t.astype(leaf.dtype), total, like[0])
  return steps[0], params


def _whole(saved, step, like):
  """Whether a snapshot is as it was saved; if not, a warning says so."""
  try:
    saved.check(step, {"ema": like})
  except OtherArrays as error:
    raise Refusal(f"snapshots: {error}") from error
  except ValueError as error:
    log.warning("snapshot %d is damaged and is left out: %s", step, error)
    return False
  return True
