"""The files of a run: its config, its metrics, its pictures.

config.json          what was asked for, last
config_history.jsonl what of it changed between starts, and at which step
started_from.json    the run that its first parameters are of, if they are
data.json            what sampling needs to know of the data
checkpoints/<step>   Orbax; those that config.keep names
snapshots/<step>     averages of the parameters, every `snapshot_every` steps
metrics.jsonl        one line of numbers every `log_every` steps
tensorboard/         the same as event files
samples/             a picture every `sample_every` steps
compile_cache/       compiled programs, so that a resumed run starts fast
lock                 held by the process that trains here
"""

import contextlib
import json
import os
import time

import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import card as card_lib, changes, processes

CONFIG = "config.json"
HISTORY = "config_history.jsonl"
LOCK = "lock"
# how long the lock is waited for: a process that was killed may need a moment
PATIENCE = 10.0  # seconds


def write_atomically(path, text):
  """Writes a file so that a kill leaves the old one or the new one."""
  partial = f"{path}.partial"
  with open(partial, "w") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path)


def _plain(config):
  """A config as JSON would give it back: tuples are lists."""
  return json.loads(config.to_json())


def _flat(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


@contextlib.contextmanager
def claimed(workdir, config, card):
  """Makes the workdir this config's, and nobody else's while the body runs.

  With several processes the first does it, for all.

  Yields:
    {field: [before, now]} of what changed since the last start and may; the
    workdir has the new config once `change_config` is called.
  Raises:
    Refusal: it holds another config's run, another job trains in it, or it
      cannot be written.
  """
  if not workdir:
    raise Refusal("--workdir is empty")
  if "://" in workdir:
    raise Refusal(
      f"--workdir must be on a mounted file system, not {workdir}: mount the "
      "bucket (gcsfuse, s3fs) on every host"
    )
  processes.agree("configs", json.dumps(_plain(config), sort_keys=True))
  changed = {}
  with contextlib.ExitStack() as held:
    if jax.process_index() == 0:
      changed = _claim(workdir, config)
      held.enter_context(_alone(workdir))
      _describe(workdir, card)
    processes.agree("workdirs", workdir)  # and wait for process 0
    if not os.path.exists(os.path.join(workdir, CONFIG)):
      raise Refusal(
        f"--workdir {workdir} must be shared by all processes: process "
        f"{jax.process_index()} does not see the {CONFIG} of process 0"
      )
    yield changed


@contextlib.contextmanager
def _alone(workdir):
  """Two jobs would remove each other's saves; the lock goes with its holder."""
  import fcntl  # Windows has none, and can sample

  try:
    file = open(os.path.join(workdir, LOCK), "a")
  except OSError as error:
    raise Refusal(f"--workdir {workdir}: {error.strerror}") from error
  with file:
    until = time.monotonic() + PATIENCE
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        if time.monotonic() > until:
          raise Refusal(
            f"another process trains in {workdir}: wait for its end, or take "
            "another --workdir"
          ) from error
        time.sleep(0.2)
        continue
      except OSError:  # a file system without locks
        pass
      break
    yield


def _claim(workdir, config):
  """Writes the config, or says what changed since it was written."""
  path = os.path.join(workdir, CONFIG)
  if os.path.exists(path):
    before, now = load_config(workdir), config
    before, now = (dict(_flat(_plain(c))) for c in (before, now))
    return changes.between(workdir, before, now)
  if os.path.isdir(os.path.join(workdir, "checkpoints")):
    raise Refusal(f"{workdir} has checkpoints but no config.json of ours")
  try:
    os.makedirs(workdir, exist_ok=True)
    _write_config(workdir, config)
  except OSError as error:
    raise Refusal(f"--workdir {workdir}: {error.strerror}") from error
  return {}


def _write_config(workdir, config):
  text = json.dumps(_plain(config), indent=2) + "\n"
  write_atomically(os.path.join(workdir, CONFIG), text)


def change_config(workdir, config, changed, step):
  """Makes the config what the run has from this step on."""
  _write_config(workdir, config)
  path, past = os.path.join(workdir, HISTORY), ""
  if os.path.exists(path):
    with open(path, errors="replace") as file:
      past = file.read()
  line = json.dumps({"step": step, "changed": changed}) + "\n"
  write_atomically(path, past + line)


def _describe(workdir, card):
  """Writes what the run knows of its data, unless it is there."""
  path = os.path.join(workdir, card_lib.DATA)
  if not os.path.exists(path):
    write_atomically(path, card.to_json())


def load_config(workdir):
  """The config of the run in a workdir, as a ConfigDict."""
  import ml_collections

  path = os.path.join(workdir, CONFIG)
  try:
    with open(path) as file:
      return ml_collections.ConfigDict(json.load(file))
  except FileNotFoundError as error:
    raise Refusal(
      f"{workdir} holds no run: it has no config.json (train one into it with "
      f"python -m diffflow_jax.train --config=... --workdir={workdir})"
    ) from error
  except (OSError, ValueError) as error:
    raise Refusal(f"{path} cannot be read: {error}") from error
