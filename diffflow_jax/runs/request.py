"""What a run is asked for: how many samples, and under which conditions.

Of what was said and what was left out, a network's cond of every sample; see
`prompts` for the two forms. A run's `say` names what is refused.
"""

import math

import jax
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.runs import (
  conditioning,
  conditions_file,
  memory,
  prompts,
  settings as settings_lib,
)

_LISTS = (list, tuple, range, np.ndarray, jax.Array)


def cond(run, num_samples, conditions, labels, held_out):
  """The cond of num_samples samples, or None: `Run.cond`."""
  settings_lib.integer(num_samples, run.say("num_samples"), 1)
  said, name = _said(run, conditions, labels, held_out)
  return _cond(run, num_samples, labels, said, name)


def of(run, num_samples, conditions, labels, held_out, batch_size=None):
  """(cond, num_samples) of what is asked for.

  Args:
    num_samples: if None, as many as there are labels, or rows of conditions or
      held_out, where they are more than one, else the config's; the others: as
      of `Run.cond`.
    batch_size: samples at a time, or None where one does not ask.
  Raises:
    Refusal: what does not fit the run, or not into memory.
  """
  if num_samples is not None:
    settings_lib.integer(num_samples, run.say("num_samples"), 1)
  said, name = _said(run, conditions, labels, held_out)
  if num_samples is None:
    several = len(labels) if isinstance(labels, _LISTS) else 1
    num_samples = several if several > 1 else run.config.sampler.num_samples
    if name is not None and said and prompts.num_rows(said) > 1:
      num_samples = prompts.num_rows(said)
  if batch_size is not None:
    settings_lib.integer(batch_size, run.say("batch_size"), 1)
  _check_memory(run, num_samples, batch_size or 1)
  return _cond(run, num_samples, labels, said, name), num_samples


def first(most, cond, num_samples):
  """(cond, num_samples) of the first `most` of them; of all if None."""
  if most is None or most >= num_samples:
    return cond, num_samples
  return jax.tree.map(lambda a: a[:most], cond), most


def _said(run, conditions, labels, held_out):
  """({name: rows}, the setting that says so); None where labels say all."""
  known = run.card.conditions
  if conditions is not None and held_out is not None:
    names = run.say("conditions"), run.say("held_out")
    raise Refusal(f"give {names[0]} or {names[1]}, not both")
  if held_out is not None:
    from diffflow_jax.runs import datasets

    name = run.say("held_out")
    said = datasets.held_out_conditions(run.recipe, held_out, name)
    return prompts.check(known, said, (), name), name
  name = run.say("conditions")
  if conditions is None and not conditions_file.is_needed(known):
    return None, name
  if conditions is None and labels is None:
    said = prompts.paired(run.examples)
    return prompts.check(known, said, (), name), None
  if labels is not None and conditions_lib.LABEL in (conditions or {}):
    raise Refusal(f"{name} holds label: leave {run.say('labels')} out")
  never = conditioning.never_dropped(run.config, known)
  if labels is not None:
    never = [name for name in never if name != conditions_lib.LABEL]
  said = {} if conditions is None else conditions
  settled = prompts.check(known, said, never, name)
  all_said = [*settled, *([] if labels is None else [conditions_lib.LABEL])]
  conditioning.warn_of_unseen(run.config, known, all_said, name)
  return settled, name


def _cond(run, num_samples, labels, said, name):
  if said is None or labels is not None:
    labels = settings_lib.labels(
      labels, num_samples, run.card.num_classes, run.say, run.path
    )
    if labels is not None:
      said = {**(said or {}), conditions_lib.LABEL: labels}
  return prompts.cond(run.card.conditions, said or {}, num_samples, name)


def _check_memory(run, num_samples, batch_size):
  """Refuses more samples than the memory holds, before any is drawn."""
  told = memory.of_conditions(run.card.conditions)
  # samples batch by batch, then joined; what they are told is made at once
  example = 2 * 4 * math.prod(run.card.shape) + told
  for name, size, there in (
    ("num_samples", num_samples, memory.host()),
    ("batch_size", min(batch_size, num_samples), None),
  ):
    memory.need(f"{run.say(name)}={size}", size * example, there)
