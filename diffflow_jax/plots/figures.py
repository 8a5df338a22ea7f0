"""Figures that belong to nobody's session: no pyplot, no backend, no leaks."""

import warnings


def subplots(rows=1, columns=1, *, figsize, **kwargs):
  """(Figure, axes) as pyplot's, but not registered anywhere."""
  from matplotlib.figure import Figure  # slow to import

  figure = Figure(figsize=figsize, layout="constrained")
  return figure, figure.subplots(rows, columns, **kwargs)


def save(figure, path, dpi):
  """Writes a figure; letters that its font lacks are boxes, without a word."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Glyph .* missing from")
    figure.savefig(path, dpi=dpi)


def plain(text):
  """A user's text as it stands: Matplotlib would read dollars as formulas."""
  text = str(text).encode("utf-8", "backslashreplace").decode()
  return text.replace("$", r"\$")
