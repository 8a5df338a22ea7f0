"""A new run that starts from the averaged parameters of another.

The parameters and every average of them start there; step, optimiser and rate
start anew. The new run saves them as its step 0, so that it needs the other run
no more, and started_from.json says where they are from.
"""

import dataclasses
import fnmatch
import json
import logging
import os
import zlib

import jax
import numpy as np

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import loading, meaning
from diffflow_jax.store import checkpoints, paths, processes
from diffflow_jax.store.digest import name_of

log = logging.getLogger("diffflow_jax")

STARTED_FROM = "started_from.json"


@dataclasses.dataclass(frozen=True)
class Start:
  """What a new run takes from another.

  Attributes:
    given: {name: array} in place of the initial values; record: what
      started_from.json holds.
  """

  given: dict
  record: dict

  def write(self, workdir):
    """Writes started_from.json, or fails in a sentence."""
    text = json.dumps(self.record, indent=2) + "\n"
    path = paths.join(workdir, STARTED_FROM)
    try:
      paths.write(path, text)
    except OSError as error:
      reason = paths.reason(error)
      raise Failure(f"{path} cannot be written: {reason}") from error

  def lines(self):
    """What there is to say of it, each on a line of its own."""
    record = self.record
    yield (
      f"starts from {record['init_from']} at step {record['step']}: "
      f"{record['num_arrays']} arrays of its average"
    )
    if record["left_initial"]:
      yield f"left at their initial value: {', '.join(record['left_initial'])}"
    if record["left_out"]:
      yield f"not taken over: {', '.join(record['left_out'])}"


def source_params(path):
  """(step, {name: array}, Recipe) of a run: its averaged parameters.

  Args:
    path: a workdir or a folder that `export` wrote, as for `loading.load`.
  Raises:
    Refusal: there is no run there that can be read.
  """
  try:
    run = loading.opened(path)
    step, params = run.step, run.params
  except Refusal as error:
    raise Refusal(f"--init_from: {error}") from error
  return step, named(params), run.recipe


def named(tree):
  """{name: leaf} of a pytree, "params.Dense_0.kernel" say."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {name_of(path): leaf for path, leaf in leaves}


def plan(workdir, like, run, init_from, skip=()):
  """The Start of a run, or None where it starts from its seed or goes on.

  Nothing is written. With several processes all of them call it and read the
  same parameters.

  Args:
    like: abstract parameters of the new run; run: its Recipe.
    init_from: another run's workdir, or None.
    skip: glob patterns of the names of arrays that stay at their initial value.
  Raises:
    Refusal: arrays do not fit; a pattern matches nothing; the workdir holds a
      run that started from elsewhere.
  """
  skip = sorted(p for text in skip for p in text.split(",") if p)
  start = None
  if skip and init_from is None:
    raise Refusal("--init_from_skip needs --init_from")
  if _is_new(workdir, init_from, skip):
    step, theirs, known = source_params(init_from)
    start = _start(init_from, step, theirs, known, named(like), run, skip)
  if jax.process_count() > 1:
    processes.agree("parameters by --init_from", _fingerprint(start))
  return start


def _is_new(workdir, init_from, skip):
  """Whether the run is to start from another; False if it goes on."""
  record = _record(workdir)
  if init_from is None and record is None:
    return False
  going = has_checkpoints(workdir)
  if init_from is None:
    if not going:
      raise Refusal(
        f"{workdir} was to start from another run and has no checkpoint yet: "
        f"--init_from={record.get('init_from')} is missing"
      )
    return False
  if _same_place(init_from, workdir):
    raise Refusal(
      "--init_from is the --workdir itself, which goes on without it"
    )
  if not going:
    return True
  goes_on = "leave --init_from out to go on with it, or take another --workdir"
  if record is None:
    raise Refusal(
      f"{workdir} holds a run that did not start from {init_from}: {goes_on}"
    )
  asked = {"init_from": init_from, "init_from_skip": skip}
  for key, value in asked.items():
    then = record.get(key, value)
    same_place = key == "init_from" and _same_place(then, value)
    if then != value and not same_place:
      raise Refusal(
        f"{workdir} started with --{key}={then}, not {value}: {goes_on}"
      )
  return False


def _same_place(one, two):
  if paths.is_remote(str(one)) or paths.is_remote(two):
    return str(one).rstrip("/") == two.rstrip("/")
  return os.path.realpath(str(one)) == os.path.realpath(two)


def _record(workdir):
  """What started_from.json holds; {} if it cannot be read, None without it."""
  path = paths.join(workdir, STARTED_FROM)
  try:
    return dict(json.loads(paths.read(path)))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (OSError, ValueError, TypeError) as error:
    log.warning("%s cannot be read: %s", path, error)
    return {}


def has_checkpoints(workdir):
  """Whether a run goes on here."""
  directory = paths.join(workdir, "checkpoints")
  try:
    with checkpoints.Checkpoints(directory, read_only=True) as saved:
      return bool(saved.steps())
  except (OSError, ValueError) as error:  # no name that a file can have
    raise Refusal(f"--workdir {workdir!r}: {paths.reason(error)}") from error


def _start(init_from, step, theirs, known, ours, run, skip):
  given, left_initial, left_out = fit(init_from, theirs, ours, skip)
  for warning in meaning.differences(init_from, known, run):
    if jax.process_index() == 0:
      log.warning("%s", warning)
  record = {
    "init_from": init_from,
    "step": step,
    "init_from_skip": skip,
    "num_arrays": len(given),
    "left_initial": left_initial,
    "left_out": left_out,
    "config": json.loads(known.config.to_json()),
  }
  return Start(given, record)


def fit(source, theirs, ours, skip=()):
  """(given, left at initial value, left out): which arrays are taken over.

  Args:
    source: what `theirs` is called in a sentence.
    theirs: {name: array}; ours: {name: array or ShapeDtypeStruct}.
    skip: glob patterns of names; * matches dots too.
  Returns:
    given {name: array of our dtype}, and two sorted lists of names.
  Raises:
    Refusal: arrays that are not skipped do not fit, all of which it names; or a
      pattern matches no array.
  """
  names = sorted(theirs.keys() | ours.keys())
  skipped = set()
  for pattern in skip:
    found = fnmatch.filter(names, pattern)
    if not found:
      raise Refusal(
        f"--init_from_skip={pattern} matches no array; they are called like "
        f"{names[0]} and {names[-1]}, and * stands for anything"
      )
    skipped.update(found)
  used = [name for name in names if name not in skipped]
  if not used:
    raise Refusal("--init_from_skip leaves no array to start from")
  bad = [
    f"{name} is {_shape(theirs, name)} there and {_shape(ours, name)} here"
    for name in used
    if _shape(theirs, name) != _shape(ours, name)
  ]
  if bad:
    what = "; ".join(bad)
    if len(bad) == len(used):
      what = f"none of its {len(theirs)} arrays is one of our {len(ours)}"
    raise Refusal(
      f"--init_from={source} does not fit this config's network: {what} "
      "(--init_from_skip=PATTERN leaves arrays at their initial value)"
    )
  given = {name: np.asarray(theirs[name], ours[name].dtype) for name in used}
  return (
    given,
    sorted(skipped & ours.keys()),
    sorted(skipped & theirs.keys() - ours.keys()),
  )


def _shape(tree, name):
  return str(tuple(tree[name].shape)) if name in tree else "missing"


def _fingerprint(start):
  """The record and a checksum of the arrays, to be compared by processes."""
  if start is None:
    return ""
  crc = 0
  for name in sorted(start.given):
    crc = zlib.crc32(np.ascontiguousarray(start.given[name]), crc)
  return json.dumps([start.record, crc])
