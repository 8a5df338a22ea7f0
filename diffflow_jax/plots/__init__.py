"""Figures of what the library computes. Each takes and returns an axis."""

from diffflow_jax.plots.comparisons import plot_comparison as plot_comparison
from diffflow_jax.plots.curves import (
  plot_densities as plot_densities,
  plot_schedules as plot_schedules,
  plot_weightings as plot_weightings,
)
