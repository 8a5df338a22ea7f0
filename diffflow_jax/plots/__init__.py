"""Figures. matplotlib is imported when a figure is made, not before.

`save_*` write a PNG of samples; `plot_*` draw what the library computes on
matplotlib axes and return them; the others are whole figures of solvers.
"""

from diffflow_jax.plots.batches import save_batch
from diffflow_jax.plots.comparisons import plot_comparison
from diffflow_jax.plots.curves import (
  plot_densities,
  plot_schedules,
  plot_weightings,
)
from diffflow_jax.plots.images import image_grid, save_images
from diffflow_jax.plots.points import save_points
from diffflow_jax.plots.series import save_series
from diffflow_jax.plots.solvers import (
  churn,
  contributions,
  damping,
  order_conditions,
)

__all__ = [
  "churn",
  "contributions",
  "damping",
  "image_grid",
  "order_conditions",
  "plot_comparison",
  "plot_densities",
  "plot_schedules",
  "plot_weightings",
  "save_batch",
  "save_images",
  "save_points",
  "save_series",
]
