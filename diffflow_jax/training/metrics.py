"""Metrics: a JSON-lines file and TensorBoard files, cut back on resume."""

import json
import os

from diffflow_jax.training import workdir as workdir_lib


class Writer:
  """Appends metrics lines; a context manager.

  A resumed run goes back to its last checkpoint: lines after that step are
  dropped, and will be written again.

  Args:
    workdir: of the run; start_step: where the run goes on from.
    active: False on all processes but one.
  """

  def __init__(self, workdir, start_step, active=True):
    self._file = self._board = None
    if not active:
      return
    from tensorboardX import SummaryWriter

    path = os.path.join(workdir, "metrics.jsonl")
    workdir_lib.write_atomically(path, "".join(_lines(path, start_step)))
    self._file = open(path, "a")
    self._board = SummaryWriter(
      os.path.join(workdir, "tensorboard"), purge_step=start_step + 1
    )

  def write(self, step, values):
    """One line: dict(step=..., **values); values are numbers."""
    if self._file is None:
      return
    self._file.write(json.dumps({"step": step, **values}) + "\n")
    self._file.flush()
    for name, value in values.items():
      self._board.add_scalar(name, value, step)
    self._board.flush()

  def picture(self, step, name, image):
    """An (h, w, c) uint8 picture, for TensorBoard."""
    if self._board is not None:
      self._board.add_image(name, image, step, dataformats="HWC")
      self._board.flush()

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if self._file is not None:
      self._file.close()
      self._board.close()


def read(workdir):
  """The metrics lines of a run, a list of dicts."""
  path = os.path.join(workdir, "metrics.jsonl")
  return [json.loads(line) for line in _lines(path, float("inf"))]


def _lines(path, last_step):
  """The whole lines up to a step; a killed run may leave half a line."""
  if not os.path.exists(path):
    return []
  kept = []
  with open(path) as file:
    for line in file:
      try:
        if line.endswith("\n") and json.loads(line)["step"] <= last_step:
          kept.append(line)
      except ValueError:
        continue
  return kept
