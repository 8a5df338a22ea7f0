"""How good samples are."""

from diffflow_jax.evaluation.distances import (
  frechet_distance,
  nearest_distances,
)
from diffflow_jax.evaluation.held_out import eps_mse_by_logsnr

__all__ = ["eps_mse_by_logsnr", "frechet_distance", "nearest_distances"]
