"""Distillation: a config that says how, and a run that says of what."""

import copy

from diffflow_jax.cli import Refusal
from diffflow_jax.data.augmentation import AUGMENTATION
from diffflow_jax.runs import loading
from diffflow_jax.runs.lookup import choose
from diffflow_jax.training.few_step.methods import METHODS

FILLED = ("guidance", "solver", "grid", "num_steps")


def distill(config, source, workdir, **options):
  """Trains a student of a run in a workdir, or goes on with what is there.

  Args:
    config: as those of configs/distill.py; what it leaves out is the teacher's.
    source: the teacher: a workdir, or a folder that `export` wrote.
    workdir, options: as of `training.loop.train`.
  Returns:
    the last TrainState.
  Raises:
    Refusal, Failure: as `train`; or there is no run in source.
  """
  from diffflow_jax.training.loop import train

  return train(inherited(config, source), workdir, **options)


def inherited(config, source):
  """config, with the rest of it from the run in source, its teacher.

  Whole sections are taken, as dataset, network and objective, and single fields
  of config.sampler; of config.teacher those that the method uses, from what the
  run itself is sampled with. Conditions are not dropped, and examples not
  augmented, unless config says so.

  Raises:
    Refusal: there is no run in source, or config.method has no teacher.
  """
  try:
    theirs = loading.opened(source).config
  except Refusal as error:
    raise Refusal(f"--from: {error}") from error
  if "method" not in config:
    raise Refusal("config.method is missing: what distills the teacher")
  kind = choose("method", config.method, METHODS)
  if kind.teacher is None:
    raise Refusal(
      f"config.method.name = {config.method.name!r} learns from the data, "
      "without a teacher: python -m diffflow_jax.train"
    )
  whole = copy.deepcopy(config)
  with whole.unlocked():
    for key, value in theirs.items():
      if key not in whole and key not in ("method", "teacher", "drop_all"):
        whole[key] = copy.deepcopy(value)
    if "network" not in config:
      _leave_out(whole.network, "destination")
    if "dataset" not in config:
      _leave_out(whole.dataset, AUGMENTATION)
    if "conditions" not in config:
      for settings in whole.get("conditions", {}).values():
        _leave_out(settings, "dropout")
    for key, value in theirs.sampler.items():
      if key not in whole.sampler:
        whole.sampler[key] = value
    teacher = dict(whole.get("teacher", {}))
    for key in FILLED:
      if key in kind.teacher and key not in teacher:
        teacher[key] = theirs.sampler[key]
    whole.teacher = {**teacher, "run": str(source)}
  return whole


def _leave_out(section, field):
  if field in section:
    del section[field]
