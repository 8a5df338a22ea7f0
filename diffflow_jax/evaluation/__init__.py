"""How good samples are."""

from diffflow_jax.evaluation.distances import (
  frechet_distance,
  nearest_distances,
)

__all__ = ["frechet_distance", "nearest_distances"]
