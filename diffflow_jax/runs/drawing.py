"""What a run and settings draw with: the predictor, guided, and the table."""

import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.runs import (
  conditioning,
  generate,
  methods,
  samplers,
  settings as settings_lib,
  tables,
)
from diffflow_jax.sampling.tableau import Tableau

FIELDS = tuple(
  name
  for name in settings_lib.FIELDS
  if name not in ("solver", "grid", "num_steps", "restart", "guidance")
)


def settle(run, strength, settings):
  """The `Settings` of a strength of guidance and of what goes with it."""
  how = {**settings, "guidance": strength}
  known = ("guidance", *FIELDS)
  if how.get("cfg_plus_plus"):  # whose solver is yet to be chosen
    how["solver"], known = "ddim", (*known, "solver")
  return settings_lib.settle(run, how, known)


def predict(run, how):
  """The predictor of a `Run` and `Settings`."""
  clip = run.say("clip")
  generate.clipped(None, how.clip, clip)  # refuses, at once
  guiding = {}
  if how.guidance_interval is not None:
    guiding["interval"] = tuple(how.guidance_interval)
  if how.weak is not None:
    guiding["weak"] = _weak(run, how.weak)
  guided = generate.make_predict(
    run.recipe,
    run.params,
    how.guidance,
    null=_null(run, how),
    rescale=how.guidance_rescale,
    plus_plus=how.cfg_plus_plus,
    batched=how.batched_guidance,
    **guiding,
  )
  return generate.clipped(guided, how.clip, clip)


def tableau(run, how):
  """The Tableau, or `Adaptive`, of a `Run` and `Settings`."""
  names = tuple(run.say(name) for name in ("solver", "grid", "restart"))
  table = generate.make_tableau(
    run.objective, how.solver, how.grid, how.num_steps, names, how.restart
  )
  check_way(run, how, table)
  if how.solver.endswith(".npz"):
    tables.warn_of_another(run, how)
  return table


def check_way(run, how, table):
  """Refuses a solver that asks of the network what it was never taught."""
  levels = table.levels if isinstance(table, Tableau) else table.start
  solver = f"{run.say('solver')}={how.solver}"
  if levels.to is not None:
    if not getattr(run.network, "destination", False):
      raise Refusal(
        f"{solver} is a flow map's, and the network of {run.path} is not told "
        "where it goes: take another solver, as ddim"
      )
    if how.is_guided and methods.strengths(run.config) is None:
      raise Refusal(
        f"{run.say('guidance')} must be 1 with {solver}, not {how.guidance:g}: "
        "a flow map is guided in its training, not where it is sampled"
      )
  try:
    samplers.check_way(run.config, run.objective, run.step, levels)
  except ValueError as error:
    raise Refusal(f"{solver}: {error}") from error


def _null(run, how):
  """What the reference is told, or None where there is none."""
  known = run.card.conditions
  if not (how.is_guided and known) or how.weak is not None:
    return None
  if conditions_lib.is_label_only(known) and how.negative_label is not None:
    return how.negative_label
  names = conditioning.guided(run.config, known, how.guided)
  null = conditions_lib.without(known, names)
  if how.negative_label is not None:
    null = {**null, conditions_lib.LABEL: np.int32(how.negative_label)}
  return null


def _weak(run, weak):
  """The predictor of a weaker run on data like ours."""
  if callable(weak):
    return weak
  other, name = weak, run.say("weak")
  if not hasattr(weak, "card"):  # a path
    from diffflow_jax.runs import loading

    other = loading.opened(weak, say=run.say)
  ours, theirs = run.card, other.card
  if ours.shape != theirs.shape:
    raise Refusal(
      f"{name}: {other.path} was trained on data of shape {theirs.shape}, and "
      f"{run.path} of shape {ours.shape}"
    )
  if theirs.num_classes not in (0, ours.num_classes):
    raise Refusal(
      f"{name}: {other.path} has {theirs.num_classes} classes, and {run.path} "
      f"{ours.num_classes}"
    )
  told, also = (list(c.conditions) for c in (ours, theirs))
  if theirs.conditions and told != also:
    raise Refusal(
      f"{name}: {other.path} is told {', '.join(also)}, and {run.path} "
      f"{', '.join(told) or 'nothing'}"
    )
  return other.predict
