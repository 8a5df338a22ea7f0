"""The files of a run: its config, its metrics, its pictures.

config.json          what was asked for, last
config_history.jsonl what of it changed between starts, and at which step
started_from.json    the run that its first parameters are of, if they are
data.json            what sampling needs to know of the data
conditions.npz       conditions of some examples, of data with more than labels
checkpoints/<step>   Orbax; those that config.keep names
snapshots/<step>     averages of the parameters, every `snapshot_every` steps
metrics.jsonl        one line of numbers every `log_every` steps
tensorboard/         the same as event files
samples/             a picture every `sample_every` steps
compile_cache/       compiled programs, so that a resumed run starts fast
lock                 held by the process that trains here

A workdir may be in a bucket, gs://… or s3://…; then lock is a folder, and the
compiled programs stay on each machine.
"""

import contextlib
import json
import logging
import os

import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import (
  card as card_lib,
  changes,
  conditions_file,
  params_file,
)
from diffflow_jax.store import lock, paths, processes
from diffflow_jax.store.aside import make_way, set_aside
from diffflow_jax.store.history import METRICS
from diffflow_jax.store.seals import SEAL, seal, unseal

log = logging.getLogger("diffflow_jax")

CONFIG = "config.json"
HISTORY = "config_history.jsonl"


def _plain(config):
  """A config as JSON would give it back: tuples are lists."""
  return json.loads(config.to_json())


def _flat(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _flat(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def check_place(workdir):
  """Refuses what can be no run's place, whatever lies there."""
  if not workdir:
    raise Refusal("--workdir is empty")
  if paths.is_remote(workdir):
    paths.use(workdir)


@contextlib.contextmanager
def claimed(workdir, config, card, told=None):
  """Makes the workdir this config's, and nobody else's while the body runs.

  With several processes the first does it, for all.

  Args:
    told: {name: array} of `conditions_file.of`.
  Yields:
    changed: {field: [before, now]} of what changed since the last start and
      may; the workdir has the new config once `change_config` is called.
    check: () -> None, which raises a Failure once another job has taken over.
  Raises:
    Refusal: it holds another config's run, another job trains in it, or it
      cannot be written.
  """
  processes.agree("configs", json.dumps(_plain(config), sort_keys=True))
  changed = {}
  check = lambda: None
  with contextlib.ExitStack() as held:
    if jax.process_index() == 0:
      try:
        changed = _claim(workdir, config)
        for name in (lock.LOCK, card_lib.DATA, conditions_file.NAME, METRICS):
          make_way(os.path.join(workdir, name), workdir, directory=False)
        for name in ("snapshots", "samples", "tensorboard", "compile_cache"):
          make_way(os.path.join(workdir, name), workdir, directory=True)
        check = held.enter_context(lock.alone(workdir))
        _describe(workdir, card)
        if told:
          _keep_conditions(workdir, told)
      except OSError as error:
        raise Refusal(f"--workdir {workdir}: {paths.reason(error)}") from error
    processes.agree("workdirs", workdir)  # and wait for process 0
    if not paths.exists(paths.join(workdir, CONFIG)):
      raise Refusal(
        f"--workdir {workdir} must be shared by all processes: process "
        f"{jax.process_index()} does not see the {CONFIG} of process 0"
      )
    yield changed, check


def _claim(workdir, config):
  """Writes the config, or says what changed since it was written."""
  path = paths.join(workdir, CONFIG)
  if params_file.is_in(workdir):
    raise Refusal(
      f"--workdir {workdir} is an export, which nothing goes on from in place: "
      f"take another --workdir, with --init_from={workdir} to start from its "
      "parameters"
    )
  if paths.exists(path):
    before, now = load_config(workdir), config
    before, now = (dict(_flat(_plain(c))) for c in (before, now))
    return changes.between(workdir, before, now)
  if paths.is_directory(paths.join(workdir, "checkpoints")):
    raise Refusal(f"{workdir} has checkpoints but no config.json of ours")
  if not paths.is_remote(workdir):
    os.makedirs(workdir, exist_ok=True)
  _write_config(workdir, config)
  return {}


def _write_config(workdir, config):
  paths.write(paths.join(workdir, CONFIG), seal(_plain(config)))


def change_config(workdir, config, changed, step):
  """Makes the config what the run has from this step on."""
  _write_config(workdir, config)
  path, past = paths.join(workdir, HISTORY), b""
  if paths.exists(path):
    past = paths.read(path)
  line = json.dumps({"step": step, "changed": changed}) + "\n"
  paths.write(path, past + line.encode())


def _describe(workdir, card):
  """Writes what the run knows of its data, unless it is there."""
  path = paths.join(workdir, card_lib.DATA)
  try:
    known = card_lib.read(workdir)
  except Refusal as error:
    log.warning("%s; it is set aside and written anew", error)
    set_aside(path, workdir)
    known = None
  if known is None:
    paths.write(path, card.to_json())
  elif known.conditions != card.conditions:
    raise Refusal(
      f"{workdir} holds a run whose data says {_said(known)}, not "
      f"{_said(card)}: take another --workdir"
    )


def _said(card):
  """The conditions of a card in a few words."""
  parts = [f"{n}: {c.kind} {c.shape}" for n, c in card.conditions.items()]
  return "; ".join(parts) or "nothing but x"


def _keep_conditions(workdir, told):
  """Writes conditions.npz, unless it is there."""
  path = paths.join(workdir, conditions_file.NAME)
  if paths.exists(path):
    try:
      conditions_file.read(workdir)
      return
    except Refusal as error:
      log.warning("%s; it is set aside and written anew", error)
      set_aside(path, workdir)
  paths.write(path, conditions_file.pack(told))


def load_config(workdir):
  """The config of the run in a workdir, as a ConfigDict."""
  import ml_collections

  path = paths.join(workdir, CONFIG)
  try:
    return ml_collections.ConfigDict(unseal(paths.read(path)))
  except FileNotFoundError as error:
    raise Refusal(
      f"{workdir} holds no run: it has no config.json (train one into it with "
      f"python -m diffflow_jax.train --config=... --workdir={workdir})"
    ) from error
  except OSError as error:
    raise Refusal(f"{path} cannot be read: {paths.reason(error)}") from error
  except ValueError as error:
    raise Refusal(
      f"{path} cannot be read: {error} (if it was changed on purpose, take out "
      f"its line {SEAL!r})"
    ) from error
