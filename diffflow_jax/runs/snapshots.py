"""Averages of the parameters kept along the way, to choose one's length later.

Snapshots of power-function averages are checkpoints of their own, all of which
stay. Any other average is a sum of them (Karras et al., arXiv:2312.02696 §3.2).
"""

import os

import jax
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import averages as averages_lib
from diffflow_jax.runs.checkpoints import Checkpoints


def open_in(workdir, read_only=False):
  """The snapshots of a run, as `Checkpoints` that keep all."""
  directory = os.path.join(workdir, "snapshots")
  return Checkpoints(directory, latest=None, read_only=read_only)


def rebuild(workdir, like, gammas, sigma_rel):
  """(step, params): the average of width sigma_rel at the newest snapshot.

  Args:
    like: abstract tuple of averages, as a snapshot holds them; gammas: theirs.
    sigma_rel: relative width of the wanted one, from about the smallest of
      those that were kept on; much smaller ones were not recorded.
  Raises:
    Refusal: there are no snapshots, or sigma_rel is out of range.
  """
  try:
    wanted = averages_lib.gamma_of(sigma_rel)
  except ValueError as error:
    raise Refusal(f"ema: {error}") from error
  if not os.path.isdir(os.path.join(workdir, "snapshots")):
    raise Refusal(f"{workdir} has no snapshots: config.snapshot_every was 0")
  with open_in(workdir, read_only=True) as saved:
    steps = saved.steps()
    if not steps:
      raise Refusal(f"{workdir} has no snapshots yet")
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
