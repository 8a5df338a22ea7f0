"""config.method and config.teacher: what they name, and what cannot be meant.

    config.method = dict(name="reflow")
    config.teacher = dict(run=..., guidance=..., solver=..., grid=...,
                          num_steps=...)

A config without them trains as it always did.
"""

import copy
import numbers

from diffflow_jax.cli import Refusal, unknown
from diffflow_jax.data.augmentation import AUGMENTATION
from diffflow_jax.objective import parameters
from diffflow_jax.runs import conditioning
from diffflow_jax.runs.checks import in_range, need
from diffflow_jax.runs.lookup import choose
from diffflow_jax.runs.methods import REACHES
from diffflow_jax.runs.settings import MOST_STEPS
from diffflow_jax.training.few_step import methods, teacher as teacher_lib
from diffflow_jax.training.few_step.kind import SOLVED
from diffflow_jax.training.few_step.method import Method
from diffflow_jax.training.few_step.progressive import Progressive


def prepared(config):
  """(config, kind): the kind of method, or None; the network is told of it.

  The config is a copy where the method sets config.network.destination.

  Raises:
    Refusal: unknown names or fields, a teacher that is missing or not used, or
      settings that the method would not use.
  """
  has = config.network.get("destination", False)
  if "method" not in config:
    if "teacher" in config:
      raise Refusal("config.teacher has no effect without config.method")
    if has:
      raise Refusal(
        "config.network.destination needs a config.method that trains it"
      )
    return config, None
  need(hasattr(config.method, "items"), "method", config.method,
       "a dict of settings")  # fmt: skip
  kind = choose("method", config.method, methods.METHODS)
  name = config.method.name
  _check_teacher(config, kind, name)
  _check_unused(config, kind, name)
  told = name in REACHES
  if has and not told:
    raise Refusal(
      f"config.network.destination has no effect with config.method.name = "
      f"{name!r}"
    )
  if told and not has:
    config = copy.deepcopy(config)
    config.network.destination = True
  return config, kind


def _check_teacher(config, kind, name):
  """Refuses a teacher that is missing, not used, or without its fields."""
  if kind.teacher is None:
    if "teacher" in config:
      raise Refusal(
        f"config.teacher has no effect with config.method.name = {name!r}, "
        "which learns from the data: train it, without a teacher"
      )
    return
  if kind.alone and "teacher" not in config:
    return
  if "teacher" not in config or not config.teacher.get("run"):
    raise Refusal(
      f"config.method.name = {name!r} needs a teacher: python -m "
      "diffflow_jax.distill --from=RUN, or config.teacher.run"
    )
  given, used = set(config.teacher), {"run", *kind.teacher}
  for field in sorted(used - given):
    raise Refusal(f"config.teacher.{field} is missing")
  for field in sorted(given - used):
    what = (
      f"has no effect with config.method.name = {name!r}"
      if field in SOLVED
      else f"is not a field of a teacher; {unknown(field, used)}"
    )
    raise Refusal(f"config.teacher.{field} {what}")
  if "guidance" in used:
    in_range("config.teacher.guidance", config.teacher.guidance, "finite")
  if "num_steps" in used:
    most = config.teacher.num_steps
    allowed = ["an integer >= 1", f"<= {MOST_STEPS}"]
    in_range("config.teacher.num_steps", most, allowed)
    asked = config.sampler.num_steps
    if isinstance(asked, numbers.Integral) and asked > most:
      raise Refusal(
        f"config.sampler.num_steps = {asked} is more than the {most} steps of "
        "its teacher, config.teacher.num_steps"
      )


def _check_unused(config, kind, name):
  """Refuses settings that the method would not use."""
  said = f"has no effect with config.method.name = {name!r}"
  for part in ("density", "weighting"):
    if part in config.objective and not kind.weighted:
      raise Refusal(f"config.objective.{part} {said}")
  guided = config.sampler.guidance != 1.0 and kind.strengths is None
  if guided and ("teacher" in config or name in REACHES):
    how = (
      "its teacher's guidance is config.teacher.guidance"
      if "teacher" in config
      else "a map of two levels cannot be guided where it is sampled"
    )
    raise Refusal(
      "config.sampler.guidance must be 1 with config.method.name = "
      f"{name!r}, not {config.sampler.guidance:g}: {how}"
    )
  if kind.strengths is not None:
    low, high = kind.strengths
    allowed = f"in [{low:g}, {high:g}]"
    in_range("config.sampler.guidance", config.sampler.guidance, allowed)
  if "solver" in (kind.teacher or ()) and config.dataset.get(AUGMENTATION):
    raise Refusal(
      f"config.dataset.augmentation {said}, which learns from the teacher's "
      "samples"
    )
  if isinstance(kind, Progressive):
    if config.snapshot_every:
      raise Refusal(
        f"config.snapshot_every must be 0 with config.method.name = {name!r}: "
        "no average is of more than one stage"
      )
    if config.keep.best:
      raise Refusal(
        f"config.keep.best must be 0 with config.method.name = {name!r}: the "
        "held-out losses of its stages are of different things"
      )


def bound(config, kind, known, workdir=None):
  """(Method, Teacher) of a kind, either None where there is none.

  Args:
    known: the Recipe of the run; workdir: where its teacher may be written.
  Raises:
    Refusal: the objective's schedule is learned, or the teacher cannot be it.
  """
  if kind is None:
    return None, None
  if parameters.learns_schedule(known.objective):
    raise Refusal(
      "config.objective.schedule cannot be learned with config.method.name = "
      f"{config.method.name!r}"
    )
  if "teacher" not in config:
    return Method(kind.on(known)), None
  teacher = teacher_lib.read(
    config.teacher, kind.teacher, workdir, kind.strengths
  )
  teacher_lib.check_data(teacher, known.card)
  if kind.pairs:
    own, together = conditioning.rates(config, known.card.conditions)
    for name in [*(n for n, rate in own.items() if rate), "drop_all"]:
      if name != "drop_all" or together:
        raise Refusal(
          f"config.method.pairs = {kind.pairs} are made ahead, each of what "
          f"its teacher was told: the dropout of {name} must be 0"
        )
  kind = kind.on(known)
  return Method(kind, teacher.table, config.seed), teacher
