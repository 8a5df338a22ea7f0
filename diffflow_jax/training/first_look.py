"""A run's data, looked at before it trains: refused, warned of, drawn."""

import logging
import os

from diffflow_jax.cli import Refusal
from diffflow_jax.data import inspection, splits
from diffflow_jax.runs import conditioning, methods
from diffflow_jax.sampling import guidance
from diffflow_jax.store import paths

log = logging.getLogger("diffflow_jax")
LARGE = 10.0  # a factor of the loss, over its mean


def inspect(run):
  """The Inspection of a run's training data, for its recipe.

  Raises:
    Refusal: an example cannot be read.
  """
  try:
    return inspection.inspect(run.dataset, run.objective)
  except ValueError as error:
    raise Refusal(f"config.dataset: {error}") from error


def check(run, found):
  """Refuses what cannot be trained on.

  Raises:
    Refusal: what the Inspection refuses, held-out examples that are training
      examples, or guidance by a label that is never trained.
  """
  if found.refusals:
    raise Refusal(f"config.dataset: {found.refusals[0]}")
  if run.held_out is not None:
    try:
      splits.check_apart(run.dataset, *run.held_out)
    except ValueError as error:
      raise Refusal(f"config.held_out: {error}") from error
  strength = run.config.sampler.guidance
  try:
    if methods.strengths(run.config) is None:  # which are told, and no branch
      conditioning.check_guidance(run.config, run.card.conditions)
  except ValueError as error:
    raise Refusal(f"config.sampler.guidance: {error}") from error
  guidance.warn_if_negative("config.sampler.guidance", strength)


def look(run):
  """The Inspection of data that can be trained on; warns of what is odd.

  Raises:
    Refusal: as `inspect` and `check`.
  """
  found = inspect(run)
  check(run, found)
  for warning in found.warnings:
    log.warning("config.dataset: %s", warning)
  return found


def lines(run, found):
  """What training says at its start: the data, and the loss's factor."""
  from diffflow_jax.objective import losses

  low, high = losses.factor_range(run.objective)
  if high > LARGE:
    log.warning(
      "config.objective: the network's squared error is multiplied by up to "
      "%.3g times the mean factor, so the loss rests on few levels and is "
      "noisy; weighting=own_mse is the plain MSE under the same density",
      high,
    )
  said = [found.summary()]
  if high - low > 1e-3:
    said.append(
      f"the network's squared error counts {low:.2g} to {high:.3g} times (mean "
      "1) over the levels drawn"
    )
  return said


def save_picture(path, run, found):
  """A batch as the network sees it, as a PNG."""
  from diffflow_jax import plots
  from diffflow_jax.plots import tiles

  size = min(run.config.batch_size, 1000 if len(run.card.shape) == 1 else 48)
  x, labels, cond = inspection.as_seen(run.dataset, run.config.seed, size)
  beside = tiles.told(run.card.conditions, cond, x.shape[1:-1])
  title = found.summary()
  plots.save_batch(path, x, labels, run.card.class_names, title, beside)


def write(run, found, workdir, folder, writer):
  """The picture in TensorBoard and a folder, unless the workdir has it."""
  import numpy as np
  from PIL import Image  # comes with matplotlib

  from diffflow_jax.training import metrics

  path = os.path.join(folder, "data.png")
  with metrics.patiently(path):
    if paths.exists(paths.join(workdir, "data.png")):
      return
    save_picture(path, run, found)
    with Image.open(path) as picture:
      writer.picture(0, "data", np.asarray(picture.convert("RGB")))
