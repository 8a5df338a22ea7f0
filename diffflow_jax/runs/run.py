"""A trained run as a thing in Python.

run = dfj.load("runs/digits")
samples = run.sample(64, solver="dpmpp_2m", num_steps=20, guidance=2.0)
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.objective import parameters
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.runs import (
  conditions_file,
  drawing,
  generate,
  methods,
  prompts,
  request,
  settings as settings_lib,
  sharding,
)
from diffflow_jax.runs.samplers import Adaptive
from diffflow_jax.store import history


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
  """A trained run, from `dfj.load`.

  Attributes:
    path: its folder.
    recipe: what its config names; also config, card (of the data), objective,
      network by themselves.
    ema: relative width of the average, None for the config's first.
  """

  path: str
  recipe: Any
  read: Callable  # () -> (step, params)
  ema: float | None = None
  say: Callable = str  # what messages call a setting

  config = property(lambda self: self.recipe.config)
  card = property(lambda self: self.recipe.card)
  network = property(lambda self: self.recipe.network)
  step = property(lambda self: self._arrays[0], doc="The step it is of.")
  params = property(
    lambda self: self._arrays[1],
    doc="The averaged parameters: run.network.apply(params, z, logsnr, cond).",
  )

  @functools.cached_property
  def _arrays(self):
    step, params = self.read()
    return int(step), sharding.as_trained(params)

  def __repr__(self):
    return f"<Run {self.path}: {self.config.objective.name}, step {self.step}>"

  @property
  def objective(self):
    """The recipe's, with the schedule that was trained, if it was."""
    objective = self.recipe.objective
    if not parameters.learns_schedule(objective):
      return objective  # which needs no file
    return parameters.settled(objective, self.params)

  @functools.cached_property
  def predict(self):
    """The predictor (z, lv, cond) -> (x̂, ε̂), without guidance.

    cond are labels (batch,), or None without classes; the label num_classes, or
    None, is the null condition. Of data that says more it is a dict, as `cond`
    makes it. A run of a flow map's method goes to lv.to, where that is given.
    """
    return predictor(
      self.objective,
      self.network.apply,
      self.params,
      reaches=methods.reaches(self.config) or "any",
    )

  def guided(self, strength, **settings):
    """`predict` with guidance around it, null condition included.

    Args:
      strength: of guidance; 1 is off.
      settings: guidance_interval, guidance_rescale, cfg_plus_plus,
        batched_guidance, weak, negative_label, guided and clip of `Settings`.
    Raises:
      Refusal: the run has no conditions, or was trained without their dropout,
        and neither a negative label nor a weak run stands in; or what
        `Settings` are refused for.
    """
    return drawing.predict(self, drawing.settle(self, strength, settings))

  def labels(self, num_samples, labels=None):
    """The label of every sample, (num_samples,) integers; None without classes.

    Args:
      labels: a label, or a list of them that is gone through over and over; if
        None all classes in turn, or those of the conditions that `sample` has
        by itself.
    """
    cond = self.cond(num_samples, labels=labels)
    return prompts.labels_of(cond, self.card.num_classes)

  def cond(self, num_samples, *, conditions=None, labels=None, held_out=None):
    """What num_samples samples are drawn under: `predict`'s cond, or None.

    Args:
      conditions: {name: array, or (array, mask)}, a row for each sample, or
        rows that are gone through over and over; what is left out is not said.
      labels: as of `labels`.
      held_out: indices of held-out examples whose conditions these are, which
        needs the run's data.
    If none of them is given, and the run's data has more than labels, they are
    those that training kept in conditions.npz.

    Raises:
      Refusal: what does not fit the run, in one sentence.
    """
    return request.cond(self, num_samples, conditions, labels, held_out)

  @functools.cached_property
  def examples(self):
    """Conditions of examples that training kept: {name: array}, and masks."""
    return conditions_file.read(self.path)

  def sample(
    self,
    num_samples=None,
    *,
    labels=None,
    conditions=None,
    held_out=None,
    seed=0,
    batch_size=256,
    **settings,
  ):
    """Samples (num_samples, *card.shape), float32.

        run.sample(64, solver="dpmpp_2m", num_steps=20, guidance=2.0, labels=3)

    The same bits as the command `sample` with these settings on the same
    devices, all of which take part. Sample i is a function of (seed, i, cond
    i), whatever num_samples and batch_size are.

    Args:
      num_samples: if None, as many as there are labels, or rows of conditions
        or held_out, where they are more than one, else the config's.
      labels: as of `labels`, which gives the label of every sample.
      conditions, held_out: as of `cond`.
      seed: of the noise; batch_size: samples at a time.
      settings: those of `Settings`; what is left out is the config's.
    Raises:
      Refusal: what cannot work, in one sentence.
    """
    return self.draw(
      num_samples,
      labels=labels,
      conditions=conditions,
      held_out=held_out,
      seed=seed,
      batch_size=batch_size,
      **settings,
    )[0]

  def draw(
    self,
    num_samples=None,
    *,
    labels=None,
    conditions=None,
    held_out=None,
    seed=0,
    batch_size=256,
    drawn=None,
    **settings,
  ):
    """`sample`, with its labels (or None) and the mean evaluations a sample.

    Args:
      drawn: None, or num_samples -> what is told after every batch how many
        there are, as `progress.Counter`.
    """
    how = self._settled(settings, seed)
    cond, num_samples = request.of(
      self, num_samples, conditions, labels, held_out, batch_size
    )
    tableau = drawing.tableau(self, how)
    return generate.evaluated(
      self.recipe,
      drawing.predict(self, how),
      tableau,
      num_samples=num_samples,
      seed=seed,
      cond=cond,
      batch_size=batch_size,
      mesh=sharding.make_mesh() if jax.device_count() > 1 else None,
      drawn=drawn(num_samples) if drawn else lambda num: None,
    )

  def trajectory(
    self,
    num_samples=None,
    *,
    labels=None,
    conditions=None,
    held_out=None,
    seed=0,
    most=None,
    **settings,
  ):
    """What `sample` sees on its way: `generate.trajectory`'s frames and names.

    Args:
      num_samples: as of `sample`; most: the first of them, in one batch;
        `shown` if num_samples is None.
      labels, conditions, held_out, seed, settings: as of `sample`.
    """
    how = self._settled(settings, seed)
    most = self.shown if num_samples is None and most is None else most
    asked = request.of(self, num_samples, conditions, labels, held_out)
    cond, num_samples = request.first(most, *asked)
    tableau = drawing.tableau(self, how)
    if isinstance(tableau, Adaptive):
      raise Refusal(
        f"{self.say('trajectory')} has no effect with "
        f"{self.say('solver')}={how.solver}"
      )
    return generate.trajectory(
      self.recipe,
      drawing.predict(self, how),
      tableau,
      num_samples=num_samples,
      seed=seed,
      cond=cond,
    )

  @property
  def shown(self):
    """How many samples a figure of the way has room for."""
    return 2000 if len(self.card.shape) == 1 else 25

  def save_picture(self, path, samples, labels=None, cond=None):
    """A PNG of samples: a grid of images, points beside some data, or lines.

    samples are (num, *card.shape), labels (num,) integers or None, cond None or
    that of `cond`, whose images stand before the samples; what is not is
    refused.
    """
    samples = np.asarray(samples)
    generate.save_picture(path, self.recipe, samples, labels, cond)

  def export(self, out, *, batch=None, **settings):
    """Writes a small folder to share; see `runs.export`.

    Args:
      out: the folder; may be a URL.
      batch: None, or the number of samples that one call of the exported
        sampler (`dfj.load_exported`) draws; settings: its `Settings`.
    Raises:
      Refusal: out holds something else, or the settings cannot work.
    """
    from diffflow_jax.runs import export

    sampler = export.sampler(self, batch, settings)
    export.write(self, out, sampler)

  def evaluate(self, metrics=("fid",), **asked):
    """Metrics of its samples with their errors: `dfj.evaluate` of this run.

    run.evaluate("fid,precision_recall", solvers="auto:10,heun:5")
    """
    import diffflow_jax  # by its door: scoring stands on this floor

    return diffflow_jax.evaluate(self, metrics, **asked)

  @functools.cached_property
  def metrics(self):
    """The curves by name, {name: (lines,) array}, for a plot or a DataFrame.

    NaN where a line lacks a number; {} for an export, which has no curves.
    """
    return history.columns(self.path)

  def _settled(self, settings, seed):
    how = settings_lib.settle(self, settings)
    settings_lib.seed(seed, self.say("seed"))
    return how
