"""Data: batch n is a pure function of (seed, n), so nothing need be resumed."""

from diffflow_jax.data.arrays import Arrays
from diffflow_jax.data.digits import digits
from diffflow_jax.data.toys import Points, checkerboard, moons, ring

DATASETS = {
  "digits": digits,
  "moons": moons,
  "checkerboard": checkerboard,
  "ring": ring,
}
__all__ = [
  "Arrays",
  "Points",
  "DATASETS",
  "digits",
  "moons",
  "checkerboard",
  "ring",
]
