"""Things by name: one sentence for a name or an argument that is not known."""

import inspect


def make_from(table, what, name, kwargs):
  """table[name](**kwargs).

  Raises:
    ValueError: an unknown name, or an argument that the entry does not take.
  """
  if name not in table:
    known = ", ".join(sorted(table))
    raise ValueError(f"unknown {what} {name!r}: known are {known}")
  taken = inspect.signature(table[name]).parameters
  for argument in kwargs:
    if argument not in taken:
      known = ", ".join(taken) or "none"
      raise ValueError(
        f"{what} {name!r} takes no {argument!r}: its arguments are {known}"
      )
  return table[name](**kwargs)
