"""The runs of a sweep: where they are, how far, and what each of them takes."""

import json
import os
import shlex

from diffflow_jax.cli import Refusal
from diffflow_jax.commands.sweep_results import EVALUATION

RECORD = "sweep.json"  # what is swept in a folder
NOTE = "of_sweep.txt"  # beside an evaluation: its step and flags
FINISHED, STOPPED = "finished", "stopped"


def workdir(out, entry):
  """The folder of one run."""
  from diffflow_jax.store import paths

  return paths.join(out, entry.name)


def claim(out, entries, config, write):
  """Makes a folder this sweep's; its file may name more runs than before.

  Args:
    config: what all of them are changes of; write: False for one of many tasks.
  Raises:
    Refusal: it is another sweep's, or a run's own.
  """
  from diffflow_jax.runs import changes
  from diffflow_jax.runs.workdir import CONFIG
  from diffflow_jax.store import paths

  fixed = {
    field: value
    for field, value in json.loads(config.to_json()).items()
    if field not in changes.MAY_CHANGE
  }
  now = {"config": fixed, "runs": {e.name: e.overrides for e in entries}}
  path = paths.join(out, RECORD)
  try:
    if paths.exists(paths.join(out, CONFIG)):
      raise Refusal(f"--out: {out} is the folder of one run: take another one")
    if paths.exists(path):
      _compare(out, json.loads(paths.read(path)), now)
    if write:
      if not paths.is_remote(out):
        os.makedirs(out, exist_ok=True)
      paths.write(path, json.dumps(now, indent=2) + "\n")
  except (OSError, ValueError, KeyError) as error:
    raise Refusal(f"--out: {path}: {paths.reason(error)}") from error


def _compare(out, before, now):
  """Refuses another sweep's record."""
  old, new = before["config"], json.loads(json.dumps(now["config"]))
  for field in sorted(old.keys() | new.keys()):
    if old.get(field) != new.get(field):
      raise Refusal(
        f"--out: {out} holds a sweep of a config with {field} = "
        f"{old.get(field)!r}, not {new.get(field)!r}: take another --out"
      )
  for name in before["runs"].keys() - now["runs"].keys():
    raise Refusal(
      f"--out: {out} holds a sweep with the run {name}, which --sweep does not "
      "yield: take another --out"
    )


def check(entries):
  """Refuses runs that cannot work, before the first of them starts.

  On the CPU: an accelerator belongs to the process that trains.
  """
  import jax

  from diffflow_jax.training.resolve import resolve

  jax.config.update("jax_platforms", "cpu")
  for entry in entries:
    try:
      resolve(entry.config)
    except Refusal as error:
      raise Refusal(f"--sweep: run {entry.name}: {error}") from error


def is_trained(out, entry):
  """Whether the last checkpoint of a run is there."""
  from etils import epath

  from diffflow_jax.store.checkpoints import Checkpoints

  directory = epath.Path(workdir(out, entry)) / "checkpoints"
  if not directory.exists():
    return False
  with Checkpoints(directory, read_only=True) as saved:
    return entry.config.num_steps in saved.steps()


def is_judged(out, entry, flags):
  """Whether `evaluate` with these flags is done, of the last step."""
  from diffflow_jax.store import paths

  note = paths.join(workdir(out, entry), EVALUATION, NOTE)
  return paths.exists(note) and paths.read(note).decode() == _note(entry, flags)


def _note(entry, flags):
  return f"{entry.config.num_steps} {flags}"


def make(out, entry, flags, children):
  """Trains and judges a run as far as it is not; in a few words, how it ended.

  Args:
    flags: of `evaluate`, in one text, or None.
  """
  place = workdir(out, entry)
  if not is_trained(out, entry):
    status = children.run("train", *entry.flags, f"--workdir={place}")
    if status and not children.stopped:
      return f"failed: exit status {status} of train"
    if not is_trained(out, entry):
      return STOPPED
  if flags is not None and not is_judged(out, entry, flags):
    status = children.run("evaluate", f"--workdir={place}", *shlex.split(flags))
    if children.stopped:
      return STOPPED
    if status:
      return f"failed: exit status {status} of evaluate"
    _write_note(out, entry, flags)
  return FINISHED


def _write_note(out, entry, flags):
  from diffflow_jax.store import paths

  note = paths.join(workdir(out, entry), EVALUATION, NOTE)
  paths.write(note, _note(entry, flags))
