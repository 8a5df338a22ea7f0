"""What sampling can be asked for: settings of `run.sample`, flags of `sample`.

One vocabulary for both. What is left out is the config's, and what cannot work,
or would have no effect, is refused before anything is read or compiled.
"""

import dataclasses
import math
import numbers
import reprlib
from typing import Any

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions
from diffflow_jax.runs import conditioning, methods

MOST_STEPS = 10_000  # of a table: each is a few rows, built one by one
OF_CONFIG = ("solver", "grid", "num_steps", "guidance")
OF_GUIDANCE = (
  "guidance_interval", "guidance_rescale", "cfg_plus_plus", "batched_guidance",
  "weak", "negative_label", "guided",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Settings:
  """How samples are drawn.

  Attributes:
    solver: a name with settings, as "dpmpp_2m" or "ddim:eta=0.5"; "adaptive";
      the .npz file of learned ones, which bring their grids, num_steps being
      evaluations, the most if left out; or "auto", which chooses solver and
      grid for at most num_steps evaluations.
    grid: a name with settings, as "karras:rho=5"; num_steps: of it.
    restart: (high, low, times) of `compose.restart`.
    guidance: strength; 1 is off.
    guidance_interval: (lo, hi) logsnr in which it holds; guidance_rescale: φ in
      [0, 1]; cfg_plus_plus: CFG++; batched_guidance: both branches at once.
    weak: a weaker run (or its path, or a predictor) as the reference;
      negative_label: a class to guide away from.
    guided: names of the conditions that the reference is not told, others it
      is; all that training ever dropped if None.
    clip: of x̂, "static" or "dynamic" with settings, as "dynamic:limit=2".
  """

  solver: str
  grid: str
  num_steps: int | None
  guidance: float
  restart: tuple | None = None
  guidance_interval: tuple | None = None
  guidance_rescale: float = 0.0
  cfg_plus_plus: bool = False
  batched_guidance: bool = True
  weak: Any = None
  negative_label: int | None = None
  clip: str | None = None
  guided: tuple | None = None

  @property
  def is_guided(self):
    """Whether there is any; at strength 1 CFG++ still takes another ε̂."""
    return self.guidance != 1.0 or self.cfg_plus_plus


DEFAULTS = {
  field.name: field.default
  for field in dataclasses.fields(Settings)
  if field.name not in OF_CONFIG
}
FIELDS = (*OF_CONFIG, *DEFAULTS)


def said(value):
  """A value in a message: on one line, and not long."""
  return " ".join(reprlib.repr(value).split())


def settle(run, asked, known=FIELDS):
  """Settings of what was asked for and of the config, in range.

  Args:
    run: a `Run`; run.say(name) is what a message calls a setting.
    asked: {name: value}; None is as if left out.
    known: the names that are allowed here.
  Raises:
    Refusal: a setting that is none, out of range, or without effect.
  """
  for name in asked:
    if name not in known:
      raise Refusal(
        f"there is no setting {name!r} here, only {', '.join(known)}"
      )
  asked = {name: value for name, value in asked.items() if value is not None}
  if isinstance(asked.get("guided"), str):  # one name
    asked["guided"] = (asked["guided"],)
  config = run.config.sampler
  of_config = {name: config[name] for name in OF_CONFIG}
  if str(asked.get("solver", "")).endswith(".npz"):  # has its own numbers
    of_config["num_steps"] = None
  how = Settings(**of_config | asked)
  _check_kinds(how, run.say)
  _check_ignored(how, asked, run.say)
  return _check_guidance(how, asked, run)


def integer(value, name, low, high=None):
  """Refuses what is no integer from low on, and below high."""
  whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not whole:
    raise Refusal(f"{name} must be an integer, not {said(value)}")
  if value < low and high is None:
    raise Refusal(f"{name} must be at least {low}, not {value}")
  if high is not None and not low <= value < high:
    raise Refusal(f"{name} must be in [{low}, {high}), not {value}")
  return int(value)


def number(value, name, text, accept):
  """Refuses what is no number, or that accept(value) denies."""
  real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  if not (real and accept(value)):
    raise Refusal(f"{name} must be {text}, not {said(value)}")


def seed(value, name):
  """Refuses what is no seed."""
  try:
    return integer(value, name, 0, 2**32)
  except Refusal as error:
    raise Refusal(f"{name} must be in [0, 2^32), not {said(value)}") from error


def labels(value, num_samples, num_classes, say, path):
  """The label of every sample (num_samples,), or None without classes.

  Args:
    value: one label or several, which are gone through over and over; None for
      all classes in turn.
  """
  import numpy as np

  name = say("labels")
  if value is None:
    return np.arange(num_samples) % num_classes if num_classes else None
  if not num_classes:
    raise Refusal(f"{name}: {path} was trained without classes")
  try:
    wanted = np.atleast_1d(np.asarray(value))
  except ValueError:  # a ragged list
    wanted = np.empty((0, 0))
  if wanted.ndim != 1 or not wanted.size or wanted.dtype.kind not in "iu":
    raise Refusal(f"{name} must be integers in one list, not {said(value)}")
  if len(wanted) > num_samples:
    raise Refusal(
      f"{name} names {len(wanted)} classes for {num_samples} samples"
    )
  for label in wanted:
    if not 0 <= label < num_classes:
      raise Refusal(f"{name} must be 0 to {num_classes - 1}, not {label}")
  return np.resize(wanted, num_samples)


def _check_kinds(how, say):
  """Refuses values of the wrong type or out of range."""
  for name in ("solver", "grid", "clip"):
    value = getattr(how, name)
    if isinstance(value, str) or (name == "clip" and value is None):
      continue
    own = "; of a tableau of your own draw by dfj.sample(run.predict, tableau)"
    raise Refusal(
      f"{say(name)} must be a name with settings, as 'ddim:eta=1', not "
      f"{said(value)}{own if name == 'solver' else ''}"
    )
  if how.num_steps is not None:
    integer(how.num_steps, say("num_steps"), 1)
  if (how.num_steps or 0) > MOST_STEPS:
    raise Refusal(
      f"{say('num_steps')} must be at most {MOST_STEPS}, not {how.num_steps}"
    )
  number(how.guidance, say("guidance"), "finite", math.isfinite)
  number(
    how.guidance_rescale,
    say("guidance_rescale"),
    "in [0, 1]",
    lambda v: 0.0 <= v <= 1.0,
  )
  for name, length, text in (
    ("guidance_interval", 2, "LO,HI with LO < HI"),
    ("restart", 3, "HIGH,LOW,TIMES"),
  ):
    value = getattr(how, name)
    if value is None:
      continue
    fits = isinstance(value, tuple | list) and len(value) == length
    fits = fits and all(isinstance(v, numbers.Real) for v in value)
    if not fits or (length == 2 and not value[0] < value[1]):
      if isinstance(value, tuple | list):
        value = ",".join(map(str, value))
      raise Refusal(f"{say(name)} must be {text}, not {said(value)}")


def _check_ignored(how, asked, say):
  """Refuses settings that the solver, or a strength of 1, would ignore."""
  name = how.solver.partition(":")[0]
  ignored, cause = (), f"{say('solver')}={how.solver}"
  if name.endswith(".npz"):
    ignored = ("grid", "restart")
  elif name == "adaptive":
    ignored = ("num_steps", "restart")
  elif name == "auto":
    ignored = ("grid", "restart")
  elif how.grid.startswith("file:"):
    ignored, cause = ("num_steps",), f"{say('grid')}={how.grid}"
  for other in ignored:
    if other in asked:
      raise Refusal(f"{say(other)} has no effect with {cause}")
  if not how.is_guided:
    for other in ("guidance_interval", "negative_label", "weak", "guided"):
      if other in asked:
        raise Refusal(f"{say(other)} has no effect at a guidance strength of 1")
    if how.guidance_rescale:
      raise Refusal(
        f"{say('guidance_rescale')} has no effect at a guidance strength of 1"
      )
  if how.cfg_plus_plus:
    _check_plus_plus(how, name, say)


def _check_plus_plus(how, solver, say):
  from diffflow_jax.sampling.solvers.sde_solvers import EPS_AS_IT_COMES

  if solver not in EPS_AS_IT_COMES:
    raise Refusal(
      f"{say('cfg_plus_plus')} needs a solver that renoises with the "
      f"reference's noise, {', '.join(EPS_AS_IT_COMES)}, not {solver}"
    )
  if not 0.0 <= how.guidance <= 1.0:
    raise Refusal(
      f"{say('guidance')} must be in [0, 1] with {say('cfg_plus_plus')}, not "
      f"{how.guidance}"
    )


def _check_told(how, asked, strengths, run):
  """Refuses strengths that the network was never told, and all else."""
  low, high = strengths
  if not low <= how.guidance <= high:
    raise Refusal(
      f"{run.say('guidance')} must be in [{low:g}, {high:g}], the strengths "
      f"that {run.path} was taught, not {how.guidance:g}"
    )
  for name in OF_GUIDANCE:
    if name in asked and asked[name] != DEFAULTS[name]:
      raise Refusal(
        f"{run.say(name)} has no effect: the network of {run.path} is told the "
        "strength of guidance"
      )
  return how


def _check_guidance(how, asked, run):
  """Refuses guidance without the reference that it needs."""
  strengths = methods.strengths(run.config)
  if strengths is not None:
    return _check_told(how, asked, strengths, run)
  label, num_classes = how.negative_label, run.card.num_classes
  if label is not None:
    name = run.say("negative_label")
    if not num_classes:
      raise Refusal(f"{name}: {run.path} was trained without classes")
    if integer(label, name, -math.inf) not in range(num_classes):
      raise Refusal(f"{name} must be 0 to {num_classes - 1}, not {label}")
  from diffflow_jax.sampling import guidance

  guidance.warn_if_negative(run.say("guidance"), how.guidance)
  if how.weak is not None and how.guided is not None:
    raise Refusal(f"{run.say('guided')} has no effect with {run.say('weak')}")
  if not how.is_guided or how.weak is not None:
    return how
  known = conditions.asked(run.card.conditions)
  if not known:
    for name in ("guidance", "cfg_plus_plus"):
      if name in asked:
        raise Refusal(
          f"{run.say(name)}: {run.path} was trained without "
          f"{'conditions' if run.card.conditions else 'classes'}"
        )
    return dataclasses.replace(how, guidance=1.0)
  _check_reference(how, known, run)
  return how


def _check_reference(how, known, run):
  """Refuses a reference that is told what training always told the network."""
  names = how.guided
  words = isinstance(names, tuple | list) and names
  if names is not None and not (words and all(type(n) is str for n in names)):
    raise Refusal(
      f"{run.say('guided')} must be names out of {', '.join(known)}, not "
      f"{said(names)}"
    )
  try:
    names = conditioning.guided(run.config, run.card.conditions, names)
  except ValueError as error:
    raise Refusal(f"{run.say('guided')}: {error}") from error
  if not names and how.negative_label is None:
    alone = conditions.is_label_only(known)
    why = "label_dropout" if alone else "drop_all"
    raise Refusal(
      f"{run.say('guidance')} {how.guidance:g} needs what the network says "
      f"without {'a label' if alone else ' or '.join(known)}, and {run.path} "
      f"was trained with config.{why} = 0: take {run.say('guidance')} 1, a "
      f"{run.say('negative_label')} or a {run.say('weak')}"
    )
