"""Names in configs, and what they call."""

import importlib
import inspect

from diffflow_jax.cli import Refusal


def choose(field, spec, table, **given):
  """Calls table[spec.name] with the other entries of spec as arguments.

  A name "module:attribute" is imported: that is how a user's own dataset or
  network is named, from a file beside the config say.
  """
  spec = dict(spec)
  name = spec.pop("name", None)
  make = _imported(field, name) if ":" in str(name) else table.get(name)
  if make is None:
    raise Refusal(
      f"config.{field}.name is {name!r}; known: {', '.join(sorted(table))}, "
      "or module:attribute"
    )
  known = set(inspect.signature(make).parameters) - set(given)
  known -= {"parent", "name"}  # linen's own
  for key in spec:
    if key not in known:
      raise Refusal(
        f"config.{field}.{key} is not a setting of {name}; "
        f"it has: {', '.join(sorted(known)) or 'none'}"
      )
  try:
    return make(**spec, **given)
  except (TypeError, ValueError) as error:
    raise Refusal(f"config.{field}: {error}") from error


def _imported(field, name):
  """The attribute of a module that "module:attribute" names."""
  module, _, attribute = name.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise Refusal(f"config.{field}.name is {name!r}: {error}") from error


def named(field, name, table):
  """table[name], or a Refusal that lists the known names."""
  if name not in table:
    raise Refusal(
      f"config.{field} is {name!r}; known: {', '.join(sorted(table))}"
    )
  return table[name]
