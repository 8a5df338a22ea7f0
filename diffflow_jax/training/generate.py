"""Samples of a trained run, for `sample` and for the pictures of training."""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax import plots
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.sampling import grids
from diffflow_jax.sampling.guidance import Guided
from diffflow_jax.sampling.solvers import SOLVERS
from diffflow_jax.sampling.tableau import sample


def grid_of(objective, num_steps):
  """num_steps steps, uniform in the objective's own time, down to sigma = 0.

  Where the schedule itself stops short of clean data, the last step goes on.
  """
  grid = grids.uniform_t(objective.schedule, objective.scale, num_steps)
  if grid.sigma[-1] == 0.0 or num_steps == 1:
    return grid
  grid = grids.uniform_t(objective.schedule, objective.scale, num_steps - 1)
  return grids.from_logsnr(np.append(grid.logsnr, np.inf), objective.scale)


def default_labels(num_samples, num_classes):
  """0, 1, 2, … over and over, or None without classes."""
  return np.arange(num_samples) % num_classes if num_classes else None


def generate(
  run, params, *, num_samples, solver, num_steps, guidance, seed,
  labels=None, batch_size=256,
):  # fmt: skip
  """Samples (num_samples, *shape) as float32, and their labels or None.

  Sample i is a function of (seed, i, label i), whatever batch_size is.
  """
  num_classes = run.dataset.num_classes
  predict = predictor(run.objective, run.network.apply, params)
  if num_classes and guidance != 1.0:
    predict = Guided(predict, num_classes, float(guidance))
  if labels is None:
    labels = default_labels(num_samples, num_classes)
  tableau = SOLVERS[solver](grid_of(run.objective, num_steps))
  key = jax.random.key(seed)
  size = min(batch_size, num_samples)
  chunks = []
  for first in range(0, num_samples, size):
    index = np.arange(first, first + size) % num_samples
    chunks.append(
      sample(
        predict,
        tableau,
        key,
        (size, *run.dataset.shape),
        cond=None if labels is None else jnp.asarray(labels[index], jnp.int32),
        first=first,
      )
    )
  samples = np.concatenate([np.asarray(c) for c in chunks])[:num_samples]
  return samples, labels


def save_picture(path, run, samples, labels=None):
  """A PNG of samples: a grid of images (one column a class), or a scatter."""
  if len(run.dataset.shape) == 3:
    by_class = labels is not None and len(samples) % 10 == 0
    plots.save_images(path, samples, columns=10 if by_class else None)
  else:
    data = run.dataset.batch(run.config.seed, 0, len(samples))["x"]
    plots.save_points(path, samples, reference=data)
