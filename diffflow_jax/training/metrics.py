"""Metrics: a JSON-lines file and TensorBoard files, cut back on resume."""

import contextlib
import errno
import importlib
import json
import logging
import os
import shutil
import sys
import uuid

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import workdir as workdir_lib
from diffflow_jax.store import aside, history, paths
from diffflow_jax.store.history import METRICS, read

__all__ = ["METRICS", "Writer", "patiently", "read"]

log = logging.getLogger("diffflow_jax")

BOARD_ROOM = 1 << 20  # bytes that TensorBoard's files shall find free


class Writer:
  """Appends metrics lines; a context manager.

  A resumed run goes back to its last checkpoint: lines after that step are
  dropped, and will be written again; the others stay, but for those that cannot
  be read. On a full disk, lines wait for room, and TensorBoard, of which
  metrics.jsonl holds every number, goes without them.

  Args:
    workdir: of the run; start_step: where the run goes on from.
    active: False on all processes but one.
    wandb: None, or the Weights & Biases project to write to as well.
    folder: where the files are written, if not in the workdir itself.
    every: steps from line to line, to see whether some are missing.
  """

  def __init__(
    self, workdir, start_step, active=True, wandb=None, folder=None, every=None
  ):
    self._active = active
    self._file = self._board = self._wandb = None
    if not active:
      return
    self._folder = workdir if folder is None else folder
    self._path = os.path.join(self._folder, METRICS)
    self._first = start_step + 1
    self._waiting = b""
    _import_board()
    if wandb:
      try:
        self._wandb = _start_wandb(wandb, workdir, self._folder)
      except OSError as error:
        raise Failure(
          f"{workdir} cannot be written: {paths.reason(error)}"
        ) from error
    with patiently(METRICS):
      _cut_back(self._path, self._folder, start_step, every)

  def write(self, step, values):
    """One line: dict(step=..., **values); values are numbers."""
    if not self._active:
      return
    self._waiting += json.dumps({"step": step, **values}).encode() + b"\n"
    with patiently(METRICS):
      self._append()
    if self._wandb:
      self._wandb.log(values, step=step)
    with patiently("tensorboard"):
      board = self._ready_board()
      for name, value in values.items():
        board.add_scalar(name, value, step)
      board.flush()

  def picture(self, step, name, image):
    """An (h, w, c) uint8 picture, for TensorBoard and Weights & Biases."""
    if not self._active:
      return
    if self._wandb:
      import wandb

      self._wandb.log({name: wandb.Image(image)}, step=step)
    with patiently("tensorboard"):
      board = self._ready_board()
      board.add_image(name, image, step, dataformats="HWC")
      board.flush()

  def _append(self):
    """All lines that wait; part of one is taken back."""
    if self._file is None:
      self._file = open(self._path, "ab", buffering=0)
      self._size = os.path.getsize(self._path)
    try:
      if self._file.write(self._waiting) < len(self._waiting):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
      self._file.truncate(self._size)
      raise
    self._size += len(self._waiting)
    self._waiting = b""

  def _ready_board(self):
    """TensorBoard's writer; raises on a full disk: its thread would end."""
    if shutil.disk_usage(self._folder).free < BOARD_ROOM:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if self._board is None:
      from tensorboardX import SummaryWriter

      self._board = SummaryWriter(
        os.path.join(self._folder, "tensorboard"), purge_step=self._first
      )
    return self._board

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    if not self._active:
      return
    with patiently(METRICS):
      self._append()
    if self._file is not None:
      self._file.close()
    if self._board is not None:
      with patiently("tensorboard"):
        self._board.close()
    if self._wandb:
      self._wandb.finish()


def _import_board():
  """Imports tensorboardX, and not torch, which it asks for one name of.

  Where torch is installed that is most of the time and of the memory. Done
  before batches are read ahead, as another thread may want torch.
  """
  unwanted = "torch" not in sys.modules
  if unwanted:
    sys.modules["torch"] = None  # an ImportError to who asks, as without it
  try:
    importlib.import_module("tensorboardX")
  finally:
    if unwanted:
      del sys.modules["torch"]


def _cut_back(path, folder, last_step, every):
  """Leaves the lines up to a step; says which are lost, if any are.

  Lines that can be read are cut in place, which takes no room on a full disk.
  """
  try:
    data = paths.read(path)
  except FileNotFoundError:
    data = b""
  lines, bad = history.sound(data, last_step)
  text = b"".join(lines)
  if bad:
    log.warning(
      "%s: %d lines cannot be read and are left out; as it was, it is in %s",
      path,
      bad,
      aside.KEPT_ASIDE,
    )
    aside.set_aside(path, folder, copy=True)
  before, reached = [0, 0, *(json.loads(line)["step"] for line in lines)][-2:]
  every = max(every or 0, reached - before)  # it may have been another one
  if every and not bad and reached + every <= last_step:
    log.warning("%s lacks the steps %d to %d", path, reached + 1, last_step)
  if data.startswith(text):
    if len(text) < len(data):
      os.truncate(path, len(text))
  else:
    paths.write(path, text)


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
