"""Samples of a trained run, for `sample` and for the pictures of training."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax import plots
from diffflow_jax.cli import Refusal, parse_spec
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.process import schedules
from diffflow_jax.sampling import grids, guidance as guidance_lib, solvers
from diffflow_jax.sampling.tableau import sample


def _to_clean(grid, again):
  """The grid, or one of a step less and then sigma = 0 where it stops short."""
  if grid.sigma[-1] == 0.0 or len(grid.logsnr) == 2:
    return grid
  shorter = again(len(grid.logsnr) - 2)
  return grids.from_logsnr(np.append(shorter.logsnr, np.inf))


def uniform_t(objective, num_steps):
  """Uniform in the objective's own time, down to sigma = 0."""
  make = lambda n: grids.uniform_t(objective.schedule, objective.scale, n)
  return _to_clean(make(num_steps), make)


def uniform_flow(objective, num_steps, shift=1.0):
  """Uniform in flow time, or shifted as SD3's, whatever the training was."""
  return grids.shifted_flow(num_steps, shift, objective.scale)


def uniform_cosine(objective, num_steps):
  """Uniform in the angle atan(sigma/alpha), whatever the training was."""
  return grids.uniform_t(schedules.Cosine(), objective.scale, num_steps)


def uniform_logsnr(objective, num_steps, start=-10.0, end=8.0):
  """Uniform in logsnr between two levels, and a last step to sigma = 0."""
  logsnr = np.linspace(start, end, num_steps)
  return grids.from_logsnr(np.append(logsnr, np.inf), objective.scale)


def karras(objective, num_steps, sigma_min=0.002, sigma_max=80.0, rho=7.0):
  """EDM's grid, arXiv:2206.00364 eq. 5."""
  return grids.karras(num_steps, sigma_min, sigma_max, rho, objective.scale)


def quadratic(objective, num_steps):
  """Steps in the objective's time that shorten towards the data."""
  make = lambda n: grids.quadratic_t(objective.schedule, objective.scale, n)
  return _to_clean(make(num_steps), make)


GRIDS = {
  f.__name__: f
  for f in (
    uniform_t,
    uniform_flow,
    uniform_cosine,
    uniform_logsnr,
    karras,
    quadratic,
  )
}


def _call(field, spec, table, *args):
  """table[name](*args, **settings) of "name:setting=value", or a Refusal."""
  name, settings = parse_spec(spec, field)
  if name not in table:
    raise Refusal(f"{field} is {name!r}; known: {', '.join(sorted(table))}")
  known = list(inspect.signature(table[name]).parameters)[len(args) :]
  for key in settings:
    if key not in known:
      raise Refusal(
        f"{field}: {name} has no setting {key!r}; it has: "
        f"{', '.join(known) or 'none'}"
      )
  try:
    return table[name](*args, **settings)
  except (TypeError, ValueError) as error:
    raise Refusal(f"{field}: {error}") from error


def make_tableau(objective, solver, grid, num_steps, names=("solver", "grid")):
  """The Tableau of a solver and a grid by name, or of a learned .npz file.

  Raises:
    Refusal: unknown names or settings; `names` is what to call the two.
  """
  if solver.endswith(".npz"):
    try:
      return solvers.named(solver)()
    except ValueError as error:
      raise Refusal(f"{names[0]}: {error}") from error
  levels = _call(names[1], grid, GRIDS, objective, num_steps)
  return _call(names[0], solver, solvers.SOLVERS, levels)


def make_predict(run, params, strength, clip=None, weak=None, **guiding):
  """The run's predictor with guidance around it, and thresholding around that.

  Args:
    strength: of guidance; 1 is off.
    clip: None, "static" or "dynamic" thresholding of x̂ to [-1, 1].
    weak: another predictor, for autoguidance.
    guiding: interval, rescale and plus_plus of `Guided`.
  """
  predict = predictor(run.objective, run.network.apply, params)
  if strength != 1.0 and (weak is not None or run.dataset.num_classes):
    predict = guidance_lib.Guided(
      predict, run.dataset.num_classes, float(strength), weak=weak, **guiding
    )
  if clip == "static":
    predict = guidance_lib.Clipped(predict)
  elif clip == "dynamic":
    predict = guidance_lib.DynamicallyClipped(predict)
  return predict


def default_labels(num_samples, num_classes):
  """0, 1, 2, … over and over, or None without classes."""
  return np.arange(num_samples) % num_classes if num_classes else None


def generate(
  run, predict, tableau, *, num_samples, seed, labels=None, batch_size=256
):
  """Samples (num_samples, *shape) as float32, and their labels or None.

  Sample i is a function of (seed, i, label i), whatever batch_size is.
  """
  if labels is None:
    labels = default_labels(num_samples, run.dataset.num_classes)
  size = min(batch_size, num_samples)
  chunks = []
  for first in range(0, num_samples, size):
    index = np.arange(first, first + size) % num_samples
    cond = None if labels is None else jnp.asarray(labels[index], jnp.int32)
    z = sample(
      predict,
      tableau,
      jax.random.key(seed),
      (size, *run.dataset.shape),
      cond=cond,
      first=first,
    )
    chunks.append(_to_host(z))
  return np.concatenate(chunks)[:num_samples], labels


def _to_host(x):
  """An array of all devices as NumPy, in every process."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(x, tiled=True)


def trajectory(run, predict, tableau, *, num_samples, seed, labels=None):
  """What the sampler sees on its way: frames (rows, num_samples, ...), names.

  Frames are z on the scale of unit variance, in the order of the evaluations,
  and the samples last; at most 12 of them.
  """
  if labels is None:
    labels = default_labels(num_samples, run.dataset.num_classes)
  every = max(1, -(-tableau.num_evaluations // 11))
  samples, (z, logsnr) = sample(
    predict,
    tableau,
    jax.random.key(seed),
    (num_samples, *run.dataset.shape),
    cond=None if labels is None else jnp.asarray(labels, jnp.int32),
    trajectory=lambda z, x_hat, eps_hat, lv: (
      z / jnp.hypot(lv.alpha, lv.sigma),
      lv.logsnr,
    ),
    every=every,
  )
  frames = np.concatenate([np.asarray(z), np.asarray(samples)[None]])
  return frames, [*(f"logsnr {l:.1f}" for l in np.asarray(logsnr)), "sample"]


def save_picture(path, run, samples, labels=None):
  """A PNG of samples: a grid of images (one column a class), or a scatter."""
  if len(run.dataset.shape) == 3:
    by_class = labels is not None and len(samples) % 10 == 0
    plots.save_images(path, samples, columns=10 if by_class else None)
  else:
    data = run.dataset.batch(run.config.seed, 0, len(samples))["x"]
    plots.save_points(path, samples, reference=data)
