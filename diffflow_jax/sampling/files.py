"""Tableaus in files: a .npz of plain arrays, checked when it is read."""

import itertools

import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import tableau as tableau_lib

FIELDS = ("logsnr", "alpha", "sigma")


def save(path, table):
  """Writes a tableau to a .npz file; a padded one is refused.

  Raises:
    ValueError: the tableau is padded.
  """
  if table.length is not None:
    raise ValueError("a padded tableau is not saved: save it before `pad`")
  place = {"levels": table.levels, "start": table.start, "end": table.end}
  steps = table.step_of_row
  np.savez(
    path,
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


def load(path):
  """The tableau that `save` wrote; nothing is unpickled.

  Raises:
    ValueError: the file is no tableau, or its parts do not fit together.
  """
  names = [
    f"{name}_{f}"
    for name, f in itertools.product(("levels", "start", "end"), FIELDS)
  ]
  try:
    with np.load(path, allow_pickle=False) as file:
      data = {n: file[n] for n in ("mix", "target", *names)}
      may = "step_of_row", "levels_to"
      data |= {n: file[n] for n in may if n in file}
  except (KeyError, OSError, ValueError) as e:
    raise ValueError(f"{path} is not a saved tableau: {e}") from e
  for part, a in data.items():
    if a.dtype.kind != "f":
      raise ValueError(f"{path}: {part} must be floats, not {a.dtype}")
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
    raise ValueError(f"{path}: {e}") from e
