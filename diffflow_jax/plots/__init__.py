"""Figures. matplotlib is imported when a figure is made, not before."""

from diffflow_jax.plots.images import image_grid, save_images
from diffflow_jax.plots.points import save_points

__all__ = ["image_grid", "save_images", "save_points"]
