"""A trained run as a thing in Python.

run = dfj.load("runs/digits")
samples = run.sample(64, solver="dpmpp_2m", num_steps=20, guidance=2.0)
"""

from collections.abc import Callable
import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.objective import parameters
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.runs import (
  generate,
  memory,
  settings as settings_lib,
  sharding,
)
from diffflow_jax.runs.samplers import Adaptive
from diffflow_jax.store import history

GUIDING = tuple(
  name
  for name in settings_lib.FIELDS
  if name not in ("solver", "grid", "num_steps", "restart", "guidance")
)


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
    None, is the null condition.
    """
    return predictor(self.objective, self.network.apply, self.params)

  def guided(self, strength, **settings):
    """`predict` with guidance around it, null condition included.

    Args:
      strength: of guidance; 1 is off.
      settings: guidance_interval, guidance_rescale, cfg_plus_plus,
        batched_guidance, weak, negative_label and clip of `Settings`.
    Raises:
      Refusal: the run has no classes, or was trained without label dropout, and
        neither a negative label nor a weak run stands in; or what `Settings`
        are refused for.
    """
    how = {**settings, "guidance": strength}
    known = ("guidance", *GUIDING)
    if how.get("cfg_plus_plus"):  # whose solver is yet to be chosen
      how["solver"], known = "ddim", (*known, "solver")
    return self._predict(settings_lib.settle(self, how, known))

  def labels(self, num_samples, labels=None):
    """The label of every sample, (num_samples,) integers; None without classes.

    Args:
      labels: a label, or a list of them that is gone through over and over; all
        classes in turn if None.
    """
    settings_lib.integer(num_samples, self.say("num_samples"), 1)
    return settings_lib.labels(
      labels, num_samples, self.card.num_classes, self.say, self.path
    )

  def sample(
    self, num_samples=None, *, labels=None, seed=0, batch_size=256, **settings
  ):
    """Samples (num_samples, *card.shape), float32.

        run.sample(64, solver="dpmpp_2m", num_steps=20, guidance=2.0, labels=3)

    The same bits as the command `sample` with these settings on the same
    devices, all of which take part. Sample i is a function of (seed, i, label
    i), whatever num_samples and batch_size are.

    Args:
      num_samples: the config's if None.
      labels: as of `labels`, which gives the label of every sample.
      seed: of the noise; batch_size: samples at a time.
      settings: those of `Settings`; what is left out is the config's.
    Raises:
      Refusal: what cannot work, in one sentence.
    """
    return self.draw(
      num_samples,
      labels=labels,
      seed=seed,
      batch_size=batch_size,
      **settings,
    )[0]

  def draw(
    self,
    num_samples=None,
    *,
    labels=None,
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
    how, num_samples, labels = self._asked(num_samples, labels, seed, settings)
    settings_lib.integer(batch_size, self.say("batch_size"), 1)
    self._check_memory(num_samples, batch_size)
    tableau = self._tableau(how)
    return generate.evaluated(
      self.recipe,
      self._predict(how),
      tableau,
      num_samples=num_samples,
      seed=seed,
      labels=labels,
      batch_size=batch_size,
      mesh=sharding.make_mesh() if jax.device_count() > 1 else None,
      drawn=drawn(num_samples) if drawn else lambda num: None,
    )

  def _check_memory(self, num_samples, batch_size):
    """Refuses more samples than the memory holds, before any is drawn."""
    example = 2 * 4 * math.prod(self.card.shape)  # batch by batch, then joined
    for name, size, there in (
      ("num_samples", num_samples, memory.host()),
      ("batch_size", min(batch_size, num_samples), None),
    ):
      memory.need(f"{self.say(name)}={size}", size * example, there)

  def trajectory(self, num_samples=None, *, labels=None, seed=0, **settings):
    """What `sample` sees on its way: `generate.trajectory`'s frames and names.

    Args:
      num_samples: in one batch; `shown` of the config's if None.
      labels, seed, settings: as of `sample`.
    """
    if num_samples is None:
      num_samples = min(self.config.sampler.num_samples, self.shown)
    how, num_samples, labels = self._asked(num_samples, labels, seed, settings)
    tableau = self._tableau(how)
    if isinstance(tableau, Adaptive):
      raise Refusal(
        f"{self.say('trajectory')} has no effect with "
        f"{self.say('solver')}={how.solver}"
      )
    return generate.trajectory(
      self.recipe,
      self._predict(how),
      tableau,
      num_samples=num_samples,
      seed=seed,
      labels=labels,
    )

  @property
  def shown(self):
    """How many samples a figure of the way has room for."""
    return 2000 if len(self.card.shape) == 1 else 25

  def save_picture(self, path, samples, labels=None):
    """A PNG of samples: a grid of images, or points beside some of the data.

    samples are (num, *card.shape), labels (num,) integers or None; what is not
    is refused.
    """
    generate.save_picture(path, self.recipe, np.asarray(samples), labels)

  def export(self, out, *, batch=None, **settings):
    """Writes a small folder to share; see `runs.export`.

    Args:
      out: the folder; may be a URL.
      batch: None, or the number of samples that one call of the exported
        sampler (`dfj.load_exported`) draws; settings: its `Settings`.
    Raises:
      Refusal: out holds something else, or the settings cannot work.
    """
    from diffflow_jax.runs import export, exported_sampler

    sampler = None
    settings = {k: v for k, v in settings.items() if v is not None}
    if batch is None and settings:
      raise Refusal(
        f"{self.say(min(settings))} needs {self.say('batch')}, the number of "
        "samples that one call of the exported sampler draws"
      )
    if batch is not None:
      settings_lib.integer(batch, self.say("batch"), 1)
      how = settings_lib.settle(self, settings)
      tableau = self._tableau(how)
      exported_sampler.check(tableau, self.say("solver"))
      sampler = exported_sampler.Sampler(
        self.recipe, self._predict(how), tableau, how, batch
      )
    export.write(self, out, sampler)

  @functools.cached_property
  def metrics(self):
    """The curves by name, {name: (lines,) array}, for a plot or a DataFrame.

    NaN where a line lacks a number; {} for an export, which has no curves.
    """
    return history.columns(self.path)

  def _asked(self, num_samples, labels, seed, settings):
    how = settings_lib.settle(self, settings)
    if num_samples is None:
      num_samples = self.config.sampler.num_samples
    settings_lib.integer(num_samples, self.say("num_samples"), 1)
    settings_lib.seed(seed, self.say("seed"))
    return how, num_samples, self.labels(num_samples, labels)

  def _tableau(self, how):
    names = tuple(self.say(name) for name in ("solver", "grid", "restart"))
    return generate.make_tableau(
      self.objective, how.solver, how.grid, how.num_steps, names, how.restart
    )

  def _predict(self, how):
    """The predictor of settings, with guidance and thresholding."""
    generate.clipped(None, how.clip, self.say("clip"))  # refuses, at once
    guiding = {}
    if how.guidance_interval is not None:
      guiding["interval"] = tuple(how.guidance_interval)
    if how.weak is not None:
      guiding["weak"] = self._weak(how.weak)
    predict = generate.make_predict(
      self.recipe,
      self.params,
      how.guidance,
      null=how.negative_label,
      rescale=how.guidance_rescale,
      plus_plus=how.cfg_plus_plus,
      batched=how.batched_guidance,
      **guiding,
    )
    return generate.clipped(predict, how.clip, self.say("clip"))

  def _weak(self, weak):
    """The predictor of a weaker run on data like ours."""
    if callable(weak):
      return weak
    other = weak
    if not isinstance(weak, Run):
      from diffflow_jax.runs import loading

      other = loading.opened(weak, say=self.say)
    ours, theirs = self.card, other.card
    if ours.shape != theirs.shape:
      raise Refusal(
        f"{self.say('weak')}: {other.path} was trained on data of shape "
        f"{theirs.shape}, and {self.path} of shape {ours.shape}"
      )
    if theirs.num_classes not in (0, ours.num_classes):
      raise Refusal(
        f"{self.say('weak')}: {other.path} has {theirs.num_classes} classes, "
        f"and {self.path} {ours.num_classes}"
      )
    return other.predict
