"""A picture of a sweep: what a number does over what was changed."""

import numpy as np

from diffflow_jax.plots.figures import subplots

REPEATED = "seed"  # runs that differ in it alone are one point, with a spread
WIDE = 8.0  # largest over smallest from which on an axis is logarithmic


def plot_sweep(rows, metric, ax=None):
  """A metric against the number that was swept over most values.

  Runs that differ in another field are another line; those of other seeds are
  dots around their mean. Without a number that varies, runs stand side by side.

  Args:
    rows: [({field: value}, value of the metric, its standard error or None)];
      all rows have the same fields.
  """
  if ax is None:
    _, ax = subplots(figsize=(6.0, 4.0))
  along = _along(rows)
  lines = {}
  for fields, value, error in rows:
    rest = {k: v for k, v in fields.items() if k not in (along, REPEATED)}
    label = ", ".join(f"{k} = {_short(v)}" for k, v in rest.items())
    at = fields[along] if along else label
    lines.setdefault(label if along else "", []).append((at, value, error))
  places = list(dict.fromkeys(at for line in lines.values() for at, *_ in line))
  for label, line in lines.items():
    x = [at if along else places.index(at) for at, *_ in line]
    _draw(ax, np.array(x, float), line, label, bool(along))
  ax.set_ylabel(metric)
  if along:
    ax.set_xlabel(along)
    if _wide(places):
      ax.set_xscale("log")
      ax.set_xticks(places, [_short(one) for one in places])
      ax.minorticks_off()
  else:
    ax.set_xticks(range(len(places)), places, rotation=30, ha="right")
  if _wide([value for _, value, _ in rows]):
    ax.set_yscale("log")
  if any(lines) and len(lines) > 1:
    ax.legend(frameon=False, fontsize="small")
  return ax


def _along(rows):
  """The field on the axis: of those that are numbers in all runs."""
  best, most = None, 1
  for field in rows[0][0]:
    values = [fields[field] for fields, *_ in rows]
    if field != REPEATED and all(type(v) in (int, float) for v in values):
      if len(set(values)) > most:
        best, most = field, len(set(values))
  return best


def _draw(ax, x, line, label, joined):
  """The dots of one line with their errors, and their means joined."""
  y = np.array([value for _, value, _ in line], float)
  error = np.array([np.nan if e is None else e for *_, e in line], float)
  at = np.unique(x)
  mean = [np.mean(y[x == one]) for one in at]
  (drawn,) = ax.plot(at, mean, "-" if joined else "", label=label or None)
  ax.errorbar(x, y, 1.96 * error, fmt="o", ms=4, capsize=2, c=drawn.get_color())


def _wide(values):
  return min(values) > 0 and max(values) >= WIDE * min(values)


def _short(value):
  return f"{value:g}" if type(value) in (int, float) else str(value)
