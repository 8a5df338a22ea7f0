"""Samples of a trained run, for `sample` and for the pictures of training."""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax import plots
from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.plots import tiles
from diffflow_jax.plots.trajectory import Frames
from diffflow_jax.process import conditions
from diffflow_jax.runs import methods, prompts, sharding
from diffflow_jax.runs.samplers import (
  GRIDS,
  Adaptive,
  call,
  make_tableau,
)
from diffflow_jax.sampling import adaptive, guidance as guidance_lib, ode
from diffflow_jax.sampling.tableau import sample

__all__ = [
  "GRIDS", "clipped", "default_cond", "evaluated", "generate",
  "make_predict", "make_tableau", "save_picture", "trajectory",
]  # fmt: skip
CLIPS = {
  "static": guidance_lib.Clipped,
  "dynamic": guidance_lib.DynamicallyClipped,
}


def make_predict(run, params, strength, null=None, **guiding):
  """The run's predictor with guidance around it, or told to it.

  Args:
    strength: of guidance; 1 is off.
    null: what the reference is told, as a negative label, or of some conditions
      only; that nothing is said if None.
    guiding: weak, interval, rescale, batched and plus_plus of `Guided`.
  """
  predict = predictor(
    run.objective,
    run.network.apply,
    params,
    reaches=methods.reaches(run.config) or "any",
  )
  if methods.strengths(run.config) is not None:
    return guidance_lib.AtStrength(predict, strength)
  # at strength 1 CFG++ still renoises with the reference's ε̂
  used = strength != 1.0 or guiding.get("plus_plus", False)
  known = run.card.conditions
  if used and (guiding.get("weak") is not None or known):
    null = conditions.without(known) if null is None and known else null
    predict = guidance_lib.Guided(predict, null, strength, **guiding)
  return predict


def clipped(predict, clip, name):
  """predict with thresholding of x̂ around it.

  Args:
    clip: None, or "static" or "dynamic" with settings, as
      "dynamic:percentile=99,limit=1".
    name: what a message calls it.
  Raises:
    Refusal: clip is no thresholding.
  """
  return predict if clip is None else call(name, clip, CLIPS, predict)


def default_cond(num_samples, known):
  """Labels 0, 1, 2, … over and over, as the cond of conditions; or None."""
  if conditions.LABEL not in known:
    return None
  labels = np.arange(num_samples) % known[conditions.LABEL].num_classes
  alone = conditions.is_label_only(known)
  return labels if alone else {conditions.LABEL: labels}


def generate(
  run, predict, tableau, *, num_samples, seed, cond=None, batch_size=256
):
  """Samples (num_samples, *shape) as float32, and their labels or None.

  Sample i is a function of (seed, i, cond i), whatever batch_size is.

  Args:
    tableau: a Tableau or `Adaptive`, from `make_tableau`.
    cond: of every sample, NumPy arrays of num_samples; `default_cond` if None.
  """
  return evaluated(
    run,
    predict,
    tableau,
    num_samples=num_samples,
    seed=seed,
    cond=cond,
    batch_size=batch_size,
  )[:2]


def evaluated(
  run,
  predict,
  tableau,
  *,
  num_samples,
  seed,
  cond=None,
  batch_size=256,
  mesh=None,
  drawn=lambda num: None,
  start=0,
):
  """What `generate` returns, and the mean number of evaluations a sample.

  Args:
    start: the global index of the first one, whose cond is cond's first.
    mesh: of devices to split each batch over, which holds a multiple of them;
      adaptive steps are taken on one. None: where predict's arrays are.
    drawn: is told after every batch how many samples there are.
  """
  if cond is None:
    cond = default_cond(num_samples, run.card.conditions)
  size, where = min(batch_size, num_samples), None
  if mesh is not None and not isinstance(tableau, Adaptive):
    size = -(-size // mesh.size) * mesh.size
    where = sharding.batch_sharding(mesh)
    predict = sharding.replicate(predict, mesh)
  chunks, counts = [], []
  for first in range(0, num_samples, size):
    index = np.arange(first, first + size) % num_samples
    shape, key = (size, *run.card.shape), jax.random.key(seed)
    how = dict(cond=prompts.rows(cond, index), first=start + first)
    if isinstance(tableau, Adaptive):
      x, count = _adaptively(predict, tableau, key, shape, **how)
    else:
      x = sample(predict, tableau, key, shape, sharding=where, **how)
      count = np.full(size, tableau.num_evaluations)
    chunks.append(to_host(x))
    counts.append(to_host(jnp.asarray(count)))
    drawn(min(first + size, num_samples))
  samples, counts = (np.concatenate(c)[:num_samples] for c in (chunks, counts))
  return (
    samples,
    prompts.labels_of(cond, run.card.num_classes),
    float(counts.mean()),
  )


def _adaptively(predict, how, key, shape, **settings):
  """`adaptive.sample` as `Adaptive` says, or a Failure where it gives up."""
  rtol, atol = how.rtol, how.atol
  try:
    return jax.block_until_ready(
      adaptive.sample(
        *(predict, how.start, how.end, key, shape),
        rtol=rtol,
        atol=atol,
        **settings,
      )
    )
  except jax.errors.JaxRuntimeError as error:
    gives_up = {
      "maximum number of solver steps": f"after {ode.MAX_STEPS:,} steps",
      "minimum step size": "as its steps shrink to nothing",
    }
    how = [text for what, text in gives_up.items() if what in str(error)]
    if not how:
      raise
    raise Failure(
      f"the adaptive solver gives up {how[0]}: rtol={rtol} and atol={atol} are "
      "too small for this network, or what it says is NaN"
    ) from error


def to_host(x):
  """An array of all devices as NumPy, in every process."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  from jax.experimental import multihost_utils

  return multihost_utils.process_allgather(x, tiled=True)


def trajectory(run, predict, tableau, *, num_samples, seed, cond=None):
  """What the sampler sees on its way: `plots.trajectory.Frames`, and titles.

  Frames are z on the scale of unit variance and x̂, in the order of the
  evaluations, and the samples last; at most 12 of them.
  """
  if cond is None:
    cond = default_cond(num_samples, run.card.conditions)
  every = max(1, -(-tableau.num_evaluations // 11))
  samples, (z, x_hat, logsnr) = sample(
    predict,
    tableau,
    jax.random.key(seed),
    (num_samples, *run.card.shape),
    cond=prompts.rows(cond, np.arange(num_samples)),
    trajectory=lambda z, x_hat, eps_hat, lv: (
      z / jnp.hypot(lv.alpha, lv.sigma),
      x_hat,
      lv.logsnr,
    ),
    every=every,
  )
  ended = lambda way: np.concatenate([way, np.asarray(samples)[None]])
  frames = Frames(
    ended(z),
    ended(x_hat),
    prompts.labels_of(cond, run.card.num_classes),
    run.card.class_names,
  )
  return frames, [*(f"logsnr {l:.1f}" for l in np.asarray(logsnr)), "sample"]


def save_picture(path, run, samples, labels=None, cond=None):
  """A PNG of samples: images with a column for each class, points, or lines.

  Frames of videos stand in a row. An image in cond stands before its sample.

  Raises:
    Refusal: samples or labels are not of the data's shape, or of another num.
  """
  shape, inner = np.shape(samples), tuple(run.card.shape)
  if shape[1:] != inner or not all(shape):
    wanted = ", ".join(map(str, ("num", *inner)))
    raise Refusal(f"samples must have shape ({wanted}), not {shape}")
  if labels is not None and np.shape(labels) != shape[:1]:
    raise Refusal(
      f"labels of {shape[0]} samples must have shape ({shape[0]},), not "
      f"{np.shape(labels)}"
    )
  if cond is not None and conditions.num_examples(cond) != shape[0]:
    raise Refusal(
      f"cond of {shape[0]} samples is of {conditions.num_examples(cond)}"
    )
  if inner == (2,):
    data = np.array(run.card.points) if run.card.points else None
    plots.save_points(path, samples, reference=data)
    return
  beside = tiles.told(run.card.conditions, cond, inner[:-1])
  save = plots.save_images if len(inner) > 2 else plots.save_series
  save(path, samples, labels, run.card.class_names, beside)
