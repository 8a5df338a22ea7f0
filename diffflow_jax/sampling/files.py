"""Tableaus in files: .npz of plain arrays, checked when they are read.

A file holds one tableau, or several by their number of evaluations, and then a
line of JSON that says what they were made for.
"""

import io
import itertools
import json
from zipfile import BadZipFile

import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import tableau as tableau_lib

FIELDS = ("logsnr", "alpha", "sigma")
ABOUT = "about"  # the JSON
PLACES = tuple(
  f"{name}_{field}"
  for name, field in itertools.product(("levels", "start", "end"), FIELDS)
)


def _arrays(table):
  """{name: array} of a tableau; a padded one is refused."""
  if table.length is not None:
    raise ValueError("a padded tableau is not saved: save it before `pad`")
  place = {"levels": table.levels, "start": table.start, "end": table.end}
  steps = table.step_of_row
  return dict(
    mix=table.mix,
    target=table.target,
    **({} if steps is None else {"step_of_row": steps}),
    **{
      f"{name}_{f}": getattr(lv, f)
      for name, lv in place.items()
      for f in FIELDS
    },
    **({} if table.levels.to is None else {"levels_to": table.levels.to}),
  )


def save(path, table):
  """Writes a tableau to a .npz file; a padded one is refused.

  Raises:
    ValueError: the tableau is padded.
  """
  np.savez(path, **_arrays(table))


def packed(tables, about):
  """The bytes of a file of several tableaus.

  Args:
    tables: {number of evaluations: Tableau}; about: what JSON can say.
  """
  file = io.BytesIO()
  named = {
    f"{count}_{name}": array
    for count, table in tables.items()
    for name, array in _arrays(table).items()
  }
  np.savez(file, **{ABOUT: np.array(json.dumps(about))}, **named)
  return file.getvalue()


def load(path, num_evaluations=None):
  """The tableau in a file that `save` or `packed` made; nothing is unpickled.

  Args:
    num_evaluations: which one, of a file of several; None for the one of the
      most.
  Raises:
    ValueError: the file holds no tableau, or none of num_evaluations, or its
      parts do not fit together.
  """
  tables = _read(path)[0]
  count = max(tables) if num_evaluations is None else num_evaluations
  if count not in tables:
    raise ValueError(
      f"{path} holds tableaus of {', '.join(map(str, sorted(tables)))} "
      f"evaluations, not of {count}"
    )
  return tables[count]


def about(path):
  """What `packed` was told the tableaus are for; None of a single one.

  Raises:
    ValueError: as of `load`.
  """
  return _read(path)[1]


def _read(path):
  """({number of evaluations: Tableau}, about)."""
  try:
    with open(path, "rb") as file:  # which numpy leaves open if it is damaged
      data = dict(np.load(file, allow_pickle=False))
    said = None
    if ABOUT in data:
      said = json.loads(str(data.pop(ABOUT)))
      if not isinstance(said, dict):
        raise ValueError("what it is about is no object")
    parts = {None: data} if said is None else _by_count(data)
    tables = [_table(path, one) for one in parts.values()]
  except (TypeError, KeyError, OSError, ValueError, EOFError, BadZipFile) as e:
    if isinstance(e, _Broken):
      raise ValueError(str(e)) from e
    raise ValueError(f"{path} is not a saved tableau: {e}") from e
  counts = [table.num_evaluations for table in tables]
  if said is not None and counts != list(parts):
    raise ValueError(
      f"{path}: tableaus of {counts} evaluations are filed under {list(parts)}"
    )
  return dict(zip(counts, tables, strict=True)), said


class _Broken(ValueError):
  """Of a tableau that was found, and is none."""


def _by_count(data):
  """{count: {name: array}} of names as 5_mix."""
  parts = {}
  for name, array in data.items():
    count, _, inner = name.partition("_")
    parts.setdefault(int(count), {})[inner] = array
  if not parts:
    raise ValueError("it holds none")
  return parts


def _table(path, data):
  """The Tableau of {name: array}."""
  names = ("mix", "target", *PLACES)
  may = "step_of_row", "levels_to"
  data = {n: data[n] for n in names} | {n: data[n] for n in may if n in data}
  for part, a in data.items():
    if a.dtype.kind != "f":
      raise _Broken(f"{path}: {part} must be floats, not {a.dtype}")
  level = lambda name: levels_lib.Level(*(data[f"{name}_{f}"] for f in FIELDS))
  table = tableau_lib.Tableau(
    data["mix"],
    data["target"],
    level("levels").replace(to=data.get("levels_to")),
    level("start"),
    level("end"),
    step_of_row=data.get("step_of_row"),
  )
  try:
    return tableau_lib.check(table)
  except ValueError as e:
    raise _Broken(f"{path}: {e}") from e
