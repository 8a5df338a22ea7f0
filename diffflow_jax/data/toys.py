"""Points, in the plane or elsewhere, without end: batch n is f(seed, n)."""

from collections.abc import Callable
import dataclasses

import jax.numpy as jnp
import numpy as np

from diffflow_jax.data.arrays import rows_of
from diffflow_jax.process import ranges


@dataclasses.dataclass(frozen=True)
class Points:
  """A distribution, as in the plane: draw(rng, num) -> (num, 2) float64.

  Attributes:
    density: its closed form, a predictor (z, lv, cond) -> (x̂, ε̂) as
      `closed_form.Mixture`, or None if it has none.
    shape: of one example; conditions: {name: Condition}: where there are some,
      draw gives a dict of x and of them.
  """

  draw: Callable
  density: object = None
  shape: tuple = (2,)
  conditions: dict = dataclasses.field(default_factory=dict)
  num_classes = 0

  def batch(self, seed, step, size, process=0, num_processes=1):
    """Rows of global batch number `step`: dict(x=..., and the conditions)."""
    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    drawn = self.draw(rng, size)
    drawn = drawn if self.conditions else {"x": drawn}
    rows = rows_of(process, num_processes, size)
    return {name: a.astype(np.float32)[rows] for name, a in drawn.items()}

  def augment(self, key, x):
    """x itself: there are points enough."""
    return x

  def to_float(self, x):
    return jnp.asarray(x, jnp.float32)


@ranges.checked(noise=">= 0")
def moons(noise=0.07):
  """Two interleaved half circles, centred, of about unit variance."""

  def draw(rng, num):
    upper = rng.random(num) < 0.5
    angle = np.pi * rng.random(num)
    x = np.where(upper, np.cos(angle) - 0.5, 0.5 - np.cos(angle))
    y = np.where(upper, np.sin(angle) - 0.25, 0.25 - np.sin(angle))
    points = np.stack([1.2 * x, 1.8 * y], axis=1)
    return points + noise * rng.standard_normal((num, 2))

  return Points(draw)


@ranges.checked(cells="an integer >= 2")
def checkerboard(cells=4):
  """The dark squares of a cells x cells board on [-2, 2]²."""

  def draw(rng, num):
    row = rng.integers(0, cells, num)
    column = 2 * rng.integers(0, cells // 2, num) + row % 2
    corner = np.stack([column, row], axis=1)
    return (corner + rng.random((num, 2))) * (4.0 / cells) - 2.0

  if cells < 2 or cells % 2:
    raise ValueError(f"cells must be even and at least 2, not {cells}")
  return Points(draw)


@ranges.checked(num_modes="an integer >= 1", std=">= 0")
def ring(num_modes=8, std=0.1):
  """Gaussians on a circle of radius 1.4, with the closed form of all of it."""
  from diffflow_jax.process import closed_form

  angle = 2 * np.pi * np.arange(num_modes) / num_modes
  means = 1.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)

  def draw(rng, num):
    mean = means[rng.integers(0, num_modes, num)]
    return mean + std * rng.standard_normal((num, 2))

  density = closed_form.mixture(
    np.ones(num_modes), means, np.full(num_modes, std)
  )
  return Points(draw, density)
