"""A sweep's file: a function that yields overrides, and the runs they name.

    def sweep():
      for rate in (5e-4, 2e-3, 8e-3):
        yield {"learning_rate.peak_value": rate, "seed": 1}

Imports no JAX.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import re
from typing import Any

from diffflow_jax import cli
from diffflow_jax.cli import Refusal
from diffflow_jax.config_files import called, guarded

UNSWEPT = "base"  # the name of the run that overrides nothing
LONGEST = 120  # characters of a name; file systems take 255 bytes


@dataclasses.dataclass(frozen=True)
class Entry:
  """One run of a sweep: its name, {field: value}, and the config they make."""

  name: str
  overrides: dict
  flags: tuple  # of `train`, but for --workdir
  config: Any


def read(text, config, given):
  """The entries of FILE.py or FILE.py:SIZE, in its order.

  Args:
    config: the --config that they change; given: {field: value} that the
      command line changes in all of them.
  Raises:
    Refusal: it has no sweep(), or this yields nothing, no dict, a run twice, a
      field that the command line has, or what the config cannot take.
  """
  path, found = called(text, "sweep", "sweep")
  if not hasattr(found, "__iter__") or isinstance(found, (Mapping, str)):
    what = "nothing" if found is None else f"a {type(found).__name__}"
    raise Refusal(
      f"--sweep: sweep() of {path} must yield dicts of overrides, as "
      f"{{'seed': 1}}, and returns {what}"
    )
  entries = {}
  for one in guarded(path, "sweep", lambda: list(found)):
    if not isinstance(one, Mapping) and not hasattr(one, "to_dict"):
      raise Refusal(
        f"--sweep: sweep() of {path} must yield dicts of overrides, as "
        f"{{'seed': 1}}, not {one!r:.60}"
      )
    overrides = dict(sorted(_flat(one)))
    for field in overrides.keys() & given.keys():
      raise Refusal(
        f"--config.{field} is given, and sweep() of {path} yields {field}: "
        "say it in one place"
      )
    name = name_of(overrides)
    if name in entries:
      raise Refusal(f"--sweep: sweep() of {path} yields {name} twice")
    entries[name] = _entry(name, overrides, config, given)
  if not entries:
    raise Refusal(f"--sweep: sweep() of {path} yields nothing")
  return list(entries.values())


def _flat(tree, prefix=""):
  """Nested sections as dotted fields; numbers of NumPy as Python's."""
  for key, value in tree.items():
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
      yield from _flat(value, f"{prefix}{key}.")
    else:
      value = value.tolist() if hasattr(value, "tolist") else value
      yield f"{prefix}{key}", tuple(value) if type(value) is list else value


def name_of(overrides):
  """A folder's name: seed=1,x=0.5 by sorted fields, whatever else is swept."""
  parts = (f"{k}={_text(v).replace(' ', '')}" for k, v in overrides.items())
  whole = ",".join(parts) or UNSWEPT
  name = re.sub(r"[^\w.=,+()-]", "-", whole, flags=re.ASCII)
  if name != whole or len(name) > LONGEST:  # others may be read the same
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    name = f"{name[:LONGEST]}-{digest}"
  return name


def _text(value):
  """A value as the flag of a config's field has it."""
  return value if isinstance(value, str) else repr(value)


def _entry(name, overrides, config, given):
  """An Entry whose flags say what was yielded, and nothing else."""
  asked = given | overrides
  flags = (
    f"--config={config}",
    *(f"--config.{field}={_text(value)}" for field, value in asked.items()),
  )
  values = cli.new_flags()
  try:
    cli.define_config(values, ["sweep", *flags])
    cli.parse(values, ["sweep", *flags], "")
  except Refusal as error:
    raise Refusal(f"--sweep: run {name}: {error}") from error
  understood = values["config"].override_values
  for field, value in asked.items():
    if understood.get(field, value) != value:
      raise Refusal(
        f"--sweep: run {name}: config.{field} cannot be {value!r}, which is "
        f"read as {understood[field]!r}"
      )
  return Entry(name, overrides, flags, cli.chosen_config(values))
