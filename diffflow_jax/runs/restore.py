"""Reading a trained run: no optimiser, no training data."""

import logging

from etils import epath
import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import (
  averages,
  card as card_lib,
  recipe,
  snapshots,
  workdir as workdir_lib,
)
from diffflow_jax.runs.lookup import choose
from diffflow_jax.store import checkpoints

log = logging.getLogger("diffflow_jax")


def load_recipe(workdir):
  """The Recipe of the run in a workdir."""
  config = workdir_lib.load_config(workdir)
  for section in ("objective", "network", "sampler"):
    if section not in config:
      raise Refusal(
        f"{workdir} holds no run: its config.json names no {section}"
      )
  try:
    card = card_lib.read(workdir)
  except Refusal as error:
    log.warning("%s; the data set is asked instead", error)
    card = None
  if card is None:  # a run of before there were cards: its data tells
    from diffflow_jax.data import DATASETS

    card = card_lib.of(choose("dataset", config.dataset, DATASETS))
  return recipe.resolve(config, card)


def load_ema(workdir, known, step=None, sigma_rel=None):
  """(step, the first EMA) of the newest whole checkpoint of a run.

  Args:
    known: the run's Recipe.
    step: None, or that of another checkpoint which was kept.
    sigma_rel: None, or the relative width of another average, which is then
      rebuilt from the run's snapshots.
  Raises:
    Refusal: there is no checkpoint, or not this one, that can be read.
  """
  ema = known.config.ema
  widths = (
    ema.get("sigma_rel", averages.WIDTHS) if ema.name == "power" else (None,)
  )
  like = (
    jax.eval_shape(
      lambda: recipe.init(known.objective, known.network, known.card, 0)
    ),
  ) * len(widths)
  if sigma_rel is not None:
    if widths == (None,):
      raise Refusal(f"{workdir} has no snapshots: config.ema is {ema.name!r}")
    gammas = [averages.gamma_of(width) for width in widths]
    return snapshots.rebuild(workdir, like, gammas, sigma_rel)
  directory = epath.Path(workdir) / "checkpoints"
  with checkpoints.Checkpoints(directory, read_only=True) as saved:
    there = saved.steps()
    if there and step not in (None, *there):
      raise Refusal(
        f"{workdir} has no checkpoint of step {step}; it has {there}"
      )
    try:
      restored = saved.restore({"ema": like}, step) if there else None
    except checkpoints.OtherArrays as error:
      raise Refusal(f"{workdir}: {error}") from error
  if restored is None:
    what = "that can be read" if there else "yet"
    raise Refusal(f"{workdir} has no checkpoint {what}")
  step, items = restored
  return step, items["ema"][0]
