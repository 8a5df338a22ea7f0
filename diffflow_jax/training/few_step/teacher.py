"""The teacher: a trained run, whose guided predictor a student learns from.

    config.teacher = dict(run="runs/digits", guidance=1.3, solver="midpoint",
                          grid="uniform_cosine", num_steps=10)

It is read at each start and is no part of the student's checkpoints. Which one
it was, the workdir's teacher.json says: another one is refused.
"""

import copy
import dataclasses
import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions
from diffflow_jax.runs import (
  drawing,
  generate,
  loading,
  meaning,
  methods,
  params_file,
  sharding,
  transfer,
)
from diffflow_jax.runs.samplers import Adaptive
from diffflow_jax.store import paths, processes

log = logging.getLogger("diffflow_jax")

NAME = "teacher.json"


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A run as a teacher.

  Attributes:
    run: the `Run`; predict: its predictor, with guidance around it, whose
      arrays are on the host.
    table: the Tableau from noise to data, or None where none is asked for.
  """

  run: Any
  predict: Any
  table: Any = None

  def on(self, mesh):
    """predict with its arrays on a mesh, split as those of a state are."""
    number = lambda x: np.asarray(x, jnp.result_type(x))
    arrays = jax.tree.map(number, _kept_split(self.predict, mesh))
    places = sharding.state_sharding(arrays, mesh)
    return jax.tree.map(sharding.put, arrays, places)

  def start(self, like, run):
    """The `transfer.Start` of a student: all arrays that fit, as they are.

    Args:
      like: abstract parameters of the student; run: its TrainingRun.
    """
    theirs, ours = transfer.named(self.run.params), transfer.named(like)
    fits = [
      name
      for name, leaf in ours.items()
      if name in theirs and theirs[name].shape == leaf.shape
    ]
    if fits and jax.process_index() == 0:
      told = copy.deepcopy(run.config)
      if "destination" in told.network:  # new features, which say nothing
        del told.network["destination"]
      plain = dataclasses.replace(run, config=told)
      path, known = self.run.path, self.run.recipe
      for warning in meaning.differences(path, known, plain):
        log.warning("%s", warning)
    record = {
      "init_from": self.run.path,
      "step": self.run.step,
      "init_from_skip": [],
      "num_arrays": len(fits),
      "left_initial": sorted(ours.keys() - set(fits)),
      "left_out": sorted(theirs.keys() - set(fits)),
      "config": json.loads(self.run.config.to_json()),
    }
    given = {name: np.asarray(theirs[name], ours[name].dtype) for name in fits}
    return transfer.Start(given, record)

  def record(self):
    """What teacher.json holds."""
    arrays = transfer.named(jax.tree.map(np.asarray, self.run.params))
    return {
      "run": self.run.path,
      "step": self.run.step,
      "sha256": params_file.checksum(arrays, self.run.step),
      "config": json.loads(self.run.config.to_json()),
    }


def _kept_split(predict, mesh):
  """predict with its network as `sharding.keep_batch_split` has it."""
  if hasattr(predict, "predict"):  # guidance around it
    return predict.replace(predict=_kept_split(predict.predict, mesh))
  apply = sharding.keep_batch_split(predict.apply, mesh)
  return predict.replace(apply=apply)


def read(spec, used, workdir=None, strengths=None):
  """The Teacher that a config names.

  Args:
    spec: config.teacher; used: the fields that the method uses.
    workdir: of the student, where the step of its teacher may be written.
    strengths: (low, high) of guidance, each example's own, or None for spec's.
  Raises:
    Refusal: there is no such run, or not the step that taught the student; or
      guidance or solver are none that it can do.
  """
  say = "config.teacher.{}".format
  step = (recorded(workdir) or {}).get("step")
  try:
    run = loading.opened(spec.run, step, say=say)
    if params_file.is_in(run.path):  # of one step alone, which `check` compares
      run = loading.opened(spec.run, say=say)
  except Refusal as error:
    raise Refusal(f"{say('run')}: {error}") from error
  strength = spec.guidance if strengths is None else strengths[1]
  how = drawing.settle(run, strength, {})
  table = None
  if "solver" in used:
    names = tuple(map(say, ("solver", "grid", "restart")))
    table = generate.make_tableau(
      run.objective, spec.solver, spec.grid, spec.num_steps, names
    )
    asked = dataclasses.replace(how, solver=spec.solver)
    drawing.check_way(run, asked, table)
    drawn = isinstance(table, Adaptive) or np.any(table.mix[..., -1])
    if drawn:
      raise Refusal(
        f"{say('solver')} must be one of a table that draws no noise, so that "
        f"a pair is of one noise, not {spec.solver!r}"
      )
  else:
    _check_taught(run, used)
  host = lambda x: np.asarray(x) if isinstance(x, jax.Array) else x
  return Teacher(run, jax.tree.map(host, drawing.predict(run, how)), table)


def _check_taught(run, used):
  """Refuses a flow map that cannot say what it is asked, level by level."""
  reaches = methods.reaches(run.config) or "any"
  if reaches == "any" or (reaches == "other" and "grid" in used):
    return
  where = {"data": "the data", "other": "the next level of its grid"}[reaches]
  raise Refusal(
    f"config.teacher.run: {run.path} was taught to go to {where} only, not to "
    "denoise at single levels: take its own teacher, or learn from its samples "
    "by the methods reflow and knowledge_distillation"
  )


def check_data(teacher, card):
  """Refuses a teacher of other data than the student's."""
  theirs = teacher.run.card
  for what, one, two in (
    ("shape", tuple(theirs.shape), tuple(card.shape)),
    ("conditions", _said(theirs), _said(card)),
  ):
    if one != two:
      raise Refusal(
        f"config.teacher.run: {teacher.run.path} was trained on data of "
        f"{what} {one}, and config.dataset is of {what} {two}"
      )


def _said(card):
  known = conditions.asked(card.conditions)
  parts = [
    f"{name} ({c.kind} of {c.num_classes or c.shape})"
    for name, c in known.items()
  ]
  return ", ".join(parts) or "none"


def recorded(workdir):
  """What teacher.json in a workdir holds, or None where it has none.

  Raises:
    Refusal: it cannot be read.
  """
  if workdir is None:
    return None
  path = paths.join(workdir, NAME)
  try:
    known = json.loads(paths.read(path))
    return {key: known[key] for key in ("run", "step", "sha256")}
  except (FileNotFoundError, NotADirectoryError):
    return None
  except OSError as error:
    raise Refusal(f"{path} cannot be read: {paths.reason(error)}") from error
  except (ValueError, KeyError, TypeError) as error:
    raise Refusal(f"{path} cannot be read: {error}") from error


def settle(teacher, workdir):
  """Writes teacher.json, or refuses another teacher than it names."""
  record, before = teacher.record(), recorded(workdir)
  processes.agree("teachers", record["sha256"])
  if before is None:
    if jax.process_index() == 0:
      text = json.dumps(record, indent=2) + "\n"
      paths.write(paths.join(workdir, NAME), text)
  elif before["sha256"] != record["sha256"]:
    raise Refusal(
      f"{workdir} was taught by {before['run']} at step {before['step']}, "
      f"whose parameters are not those of {record['run']} at step "
      f"{record['step']}: take that teacher, or another --workdir"
    )
