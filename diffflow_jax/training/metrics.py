"""Metrics: a JSON-lines file and TensorBoard files, cut back on resume."""

import contextlib
import errno
import json
import logging
import os
import shutil
import uuid

from diffflow_jax import paths
from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import workdir as workdir_lib

log = logging.getLogger("diffflow_jax")

METRICS = "metrics.jsonl"
BOARD_ROOM = 1 << 20  # bytes that TensorBoard's files shall find free


class Writer:
  """Appends metrics lines; a context manager.

  A resumed run goes back to its last checkpoint: lines after that step are
  dropped, and will be written again. On a full disk, lines wait for room, and
  TensorBoard, of which metrics.jsonl holds every number, goes without them.

  Args:
    workdir: of the run; start_step: where the run goes on from.
    active: False on all processes but one.
    wandb: None, or the Weights & Biases project to write to as well.
    folder: where the files are written, if not in the workdir itself.
  """

  def __init__(self, workdir, start_step, active=True, wandb=None, folder=None):
    self._file = self._board = self._wandb = None
    if not active:
      return
    folder = workdir if folder is None else folder
    try:
      if wandb:
        self._wandb = _start_wandb(wandb, workdir, folder)
      self._open(folder, start_step)
    except OSError as error:
      raise Failure(
        f"{workdir} cannot be written: {paths.reason(error)}"
      ) from error

  def _open(self, folder, start_step):
    from tensorboardX import SummaryWriter

    path = os.path.join(folder, METRICS)
    paths.write(path, "".join(_lines(path, start_step)))
    self._file = open(path, "ab", buffering=0)
    self._size = os.path.getsize(path)
    self._waiting = b""
    self._board = SummaryWriter(
      os.path.join(folder, "tensorboard"), purge_step=start_step + 1
    )

  def write(self, step, values):
    """One line: dict(step=..., **values); values are numbers."""
    if self._file is None:
      return
    self._waiting += json.dumps({"step": step, **values}).encode() + b"\n"
    with patiently(METRICS):
      self._append()
    if self._wandb:
      self._wandb.log(values, step=step)
    with patiently("tensorboard"):
      self._need_room()
      for name, value in values.items():
        self._board.add_scalar(name, value, step)
      self._board.flush()

  def picture(self, step, name, image):
    """An (h, w, c) uint8 picture, for TensorBoard and Weights & Biases."""
    if self._board is None:
      return
    if self._wandb:
      import wandb

      self._wandb.log({name: wandb.Image(image)}, step=step)
    with patiently("tensorboard"):
      self._need_room()
      self._board.add_image(name, image, step, dataformats="HWC")
      self._board.flush()

  def _append(self):
    """All lines that wait; part of one is taken back."""
    try:
      if self._file.write(self._waiting) < len(self._waiting):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
      self._file.truncate(self._size)
      raise
    self._size += len(self._waiting)
    self._waiting = b""

  def _need_room(self):
    """Raises on a full disk: TensorBoard's thread would end with the error."""
    if shutil.disk_usage(self._file.name).free < BOARD_ROOM:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if self._file is not None:
      with patiently(METRICS):
        self._append()
      self._file.close()
      with patiently("tensorboard"):
        self._board.close()
    if self._wandb:
      self._wandb.finish()


def _start_wandb(project, workdir, folder):
  """A Weights & Biases run; the same one when the job is resumed."""
  try:
    import wandb
  except ImportError as error:
    raise Refusal(
      "--wandb needs Weights & Biases: pip install wandb"
    ) from error

  path = paths.join(workdir, "wandb_id")
  if not paths.exists(path):
    paths.write(path, uuid.uuid4().hex)
  return wandb.init(
    project=project,
    name=os.path.basename(os.path.abspath(workdir)),
    id=paths.read(path).decode(),
    resume="allow",
    dir=folder,
    config=workdir_lib.load_config(workdir).to_dict(),
  )


@contextlib.contextmanager
def patiently(what):
  """Lets training go on when a file of the workdir cannot be written."""
  try:
    yield
  except OSError as error:
    log.warning("%s cannot be written: %s", what, paths.reason(error))


def read(workdir):
  """The metrics lines of a run, a list of dicts."""
  path = paths.join(workdir, METRICS)
  return [json.loads(line) for line in _lines(path, float("inf"))]


def _lines(path, last_step):
  """The whole lines up to a step; a killed run may leave half a line."""
  kept = []
  try:
    lines = paths.read(path).decode(errors="replace").splitlines(keepends=True)
  except FileNotFoundError:
    return kept
  for line in lines:
    try:
      if line.endswith("\n") and json.loads(line)["step"] <= last_step:
        kept.append(line)
    except ValueError:
      continue
  return kept
