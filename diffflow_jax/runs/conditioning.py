"""What a config says of its data's conditions: their nulls, and how they drop.

    config.label_dropout = 0.1                       of the classes
    config.conditions = dict(text=dict(dropout=0.1, null="zero"))
    config.drop_all = 0.1                            of all of them together

The last two may be left out. What is never dropped is told the network always,
in training and in sampling, and cannot be guided by.
"""

import dataclasses
import logging

from diffflow_jax.cli import Refusal, unknown
from diffflow_jax.process.conditions import (
  LABEL,
  NULLS,
  asked,
  is_label_only,
)
from diffflow_jax.runs.checks import in_range, need

log = logging.getLogger("diffflow_jax")
SETTINGS = ("dropout", "null")


def resolve(config, card):
  """The card, with the nulls that the config asks for.

  Raises:
    Refusal: a condition or a setting that there is not, or out of range.
  """
  said = config.get("conditions", {})
  need(hasattr(said, "items"), "conditions", said, "a dict of conditions")
  known = dict(card.conditions)
  for name, settings in said.items():
    field = f"conditions.{name}"
    if name not in asked(known):
      has = ", ".join(asked(known)) or "none"
      raise Refusal(
        f"config.{field} is no condition of the data, which has {has}"
      )
    need(hasattr(settings, "items"), field, settings, "a dict of settings")
    for key in settings:
      if key not in SETTINGS:
        raise Refusal(
          f"config.{field}.{key} is not a setting of a condition; "
          f"{unknown(key, SETTINGS)}"
        )
    in_range(
      f"config.{field}.dropout", settings.get("dropout", 0.0), "in [0, 1)"
    )
    null = settings.get("null", known[name].null)
    need(null in NULLS, f"{field}.null", null, " or ".join(NULLS))
    if name == LABEL:
      _check_label(config, settings)
    known[name] = dataclasses.replace(known[name], null=null)
  together = config.get("drop_all", 0.0)
  in_range("config.drop_all", together, "in [0, 1)")
  if together and not asked(known):
    raise Refusal(
      f"config.drop_all = {together:g} has no effect: the data has no condition"
    )
  return dataclasses.replace(card, conditions=known)


def _check_label(config, settings):
  """The label's rate has a field of its own, and its null is a class."""
  if settings.get("null", "learned") != "learned":
    raise Refusal(
      "config.conditions.label.null must be learned: it is one more class"
    )
  rate, own = config.get("label_dropout", 0.0), settings.get("dropout", 0.0)
  if rate and own and rate != own:
    raise Refusal(
      f"config.conditions.label.dropout = {own:g} and config.label_dropout = "
      f"{rate:g} are of the same label: leave one out, or 0"
    )


def rates(config, conditions):
  """({name: share that is dropped}, share that is dropped of all together)."""
  said = config.get("conditions", {})
  own = {
    name: said.get(name, {}).get("dropout", 0.0) for name in asked(conditions)
  }
  if LABEL in own:
    own[LABEL] = own[LABEL] or config.get("label_dropout", 0.0)
  return own, config.get("drop_all", 0.0)


def never_dropped(config, conditions):
  """Names of the conditions that training always told the network."""
  own, together = rates(config, conditions)
  return [name for name, rate in own.items() if not (rate or together)]


def guided(config, conditions, names=None):
  """Names of the conditions that guidance leaves out of its reference.

  Args:
    names: None for all that training ever dropped; () where none was.
  Raises:
    ValueError: there is no such condition, or training never left those out
      while it told the others.
  """
  own, together = rates(config, conditions)
  alone = [name for name, rate in own.items() if rate]
  if names is None:
    return tuple(own if together else alone)
  for name in names:
    if name not in own:
      has = ", ".join(own) or "none"
      raise ValueError(f"{name!r} is no condition of the data, which has {has}")
  if together and set(own) <= set(names):
    return tuple(names)
  for name in names:
    if name not in alone:
      alone_in_config = f"config.conditions.{name}.dropout"
      field = "config.label_dropout" if name == LABEL else alone_in_config
      raise ValueError(
        f"guidance by {', '.join(names)} needs what the network says without "
        f"{name}, which {field} = 0 never trains"
      )
  return tuple(names)


def warn_of_unseen(config, conditions, said, name):
  """Says so where what was left out was never left out alone in training.

  Args:
    said: names of what was said; name: what a message calls it all.
  """
  own, together = rates(config, conditions)
  lacks = [one for one in own if one not in said]
  unseen = [one for one in lacks if not own[one]]
  if together and unseen and set(lacks) < set(own):
    log.warning(
      "%s says nothing of %s: training dropped that only together with all "
      "else, so the network never saw the like",
      name,
      ", ".join(unseen),
    )


def check_guidance(config, conditions):
  """Refuses a config's guidance where nothing that it goes by is trained.

  Raises:
    ValueError: as that.
  """
  strength = config.sampler.guidance
  own, _ = rates(config, conditions)
  if strength == 1.0 or not own or guided(config, conditions):
    return
  if is_label_only(conditions):
    raise ValueError(
      f"a strength of {strength:g} needs what the model says without a label, "
      "which label_dropout = 0 never trains: set label_dropout = 0.1, or "
      "guidance to 1"
    )
  raise ValueError(
    f"a strength of {strength:g} needs what the model says without "
    f"{' or '.join(own)}, which nothing trains: set drop_all = 0.1, or the "
    "dropout of one of config.conditions, or guidance to 1"
  )
