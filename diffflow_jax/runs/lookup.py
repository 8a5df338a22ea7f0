"""Names in configs, and what they call."""

import importlib
import inspect

from diffflow_jax.cli import Refusal, unknown


def choose(field, spec, table, *, also=(), adapted=None, **given):
  """Calls table[spec.name] with the other entries of spec as arguments.

  A name "module:attribute" is imported: that is how a user's own dataset or
  network is named, from a file beside the config say.

  Args:
    also: fields of spec that are taken already, for the message.
    adapted: None, or what makes ours of something imported.
  """
  spec = dict(spec)
  name = spec.pop("name", None)
  if name is None:
    raise Refusal(f"config.{field}.name is missing; {unknown('', table)}")
  if not isinstance(name, str):
    raise Refusal(f"config.{field}.name must be a name, not {name!r}")
  own = ":" in name
  make = _imported(field, name) if own else _in(table, name)
  if make is None:
    raise Refusal(
      f"config.{field}.name is {name!r}; "
      f"{unknown(name, table, 'or module:attribute')}"
    )
  try:
    make = adapted(make) if own and adapted else make
    parameters = inspect.signature(make).parameters
  except (TypeError, ValueError) as error:  # no function, or one of C
    raise Refusal(
      f"config.{field}.name is {name!r}, which cannot be called with settings"
    ) from error
  known = set(parameters) - set(given) - {"parent", "name"}  # linen's own
  anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
  for key in given:
    if key not in parameters and not anything:
      raise Refusal(
        f"config.{field}.name is {name!r}, which must take an argument {key}"
      )
  for key in spec:
    if key not in (known | set(also)):
      raise Refusal(
        f"config.{field}.{key} is not a setting of {name}; "
        f"{unknown(key, known | set(also)) if known or also else 'it has none'}"
      )
  return calling(f"config.{field}", make, **spec, **given)


def _in(table, name):
  return table.get(name) if isinstance(name, str) else None


def calling(field, make, *args, **settings):
  """make(*args, **settings), or a Refusal with what it raised.

  It may be anyone's code, so whatever it raises is caught.
  """
  try:
    return make(*args, **settings)
  except Refusal:
    raise
  except (TypeError, ValueError) as error:
    raise Refusal(f"{field}: {error}") from error
  except Exception as error:
    raise Refusal(f"{field}: {type(error).__name__}: {error}") from error


def _imported(field, name):
  """The attribute of a module that "module:attribute" names."""
  module, _, attribute = name.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except Exception as error:  # a module may raise anything
    raise Refusal(f"config.{field}.name is {name!r}: {error}") from error


def named(field, name, table):
  """table[name], or a Refusal that lists the known names."""
  if _in(table, name) is None:
    raise Refusal(f"config.{field} is {name!r}; {unknown(name, table)}")
  return table[name]
