"""Figures that belong to nobody's session: no pyplot, no backend, no leaks."""


def subplots(rows=1, columns=1, *, figsize, **kwargs):
  """(Figure, axes) as pyplot's, but not registered anywhere."""
  from matplotlib.figure import Figure  # slow to import

  figure = Figure(figsize=figsize, layout="constrained")
  return figure, figure.subplots(rows, columns, **kwargs)
