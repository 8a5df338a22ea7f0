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
from diffflow_jax.process import conditions as conditions_lib
from diffflow_jax.runs import (
  conditioning,
  conditions_file,
  generate,
  memory,
  settings as settings_lib,
  sharding,
  told,
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
    None, is the null condition. Of data that says more it is a dict, as `cond`
    makes it.
    """
    return predictor(self.objective, self.network.apply, self.params)

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
    how = {**settings, "guidance": strength}
    known = ("guidance", *GUIDING)
    if how.get("cfg_plus_plus"):  # whose solver is yet to be chosen
      how["solver"], known = "ddim", (*known, "solver")
    return self._predict(settings_lib.settle(self, how, known))

  def labels(self, num_samples, labels=None):
    """The label of every sample, (num_samples,) integers; None without classes.

    Args:
      labels: a label, or a list of them that is gone through over and over; if
        None all classes in turn, or those of the conditions that `sample` has
        by itself.
    """
    cond = self.cond(num_samples, labels=labels)
    return told.labels_of(cond, self.card.num_classes)

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
    settings_lib.integer(num_samples, self.say("num_samples"), 1)
    said, name = self._said(conditions, labels, held_out)
    return self._cond(num_samples, labels, said, name)

  def _said(self, conditions, labels, held_out):
    """({name: rows}, the setting that says so); None where labels say all."""
    if conditions is not None and held_out is not None:
      names = self.say("conditions"), self.say("held_out")
      raise Refusal(f"give {names[0]} or {names[1]}, not both")
    if held_out is not None:
      from diffflow_jax.runs import datasets

      name = self.say("held_out")
      said = datasets.held_out_conditions(self.recipe, held_out, name)
      return told.check(self.card.conditions, said, (), name), name
    name = self.say("conditions")
    if conditions is None and not conditions_file.is_needed(
      self.card.conditions
    ):
      return None, name
    if conditions is None and labels is None:
      said = told.paired(self.examples)
      return told.check(self.card.conditions, said, (), name), None
    if labels is not None and conditions_lib.LABEL in (conditions or {}):
      raise Refusal(f"{name} holds label: leave {self.say('labels')} out")
    never = conditioning.never_dropped(self.config, self.card.conditions)
    if labels is not None:
      never = [name for name in never if name != conditions_lib.LABEL]
    said = {} if conditions is None else conditions
    return told.check(self.card.conditions, said, never, name), name

  def _cond(self, num_samples, labels, said, name):
    known = self.card.conditions
    if said is None or labels is not None:
      labels = settings_lib.labels(
        labels, num_samples, self.card.num_classes, self.say, self.path
      )
      if labels is not None:
        said = {**(said or {}), conditions_lib.LABEL: labels}
    return told.cond(known, said or {}, num_samples, name)

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
      num_samples: if None, the rows of conditions or held_out where they are
        more than one, else the config's.
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
    cond, num_samples = self._asked(num_samples, labels, conditions, held_out)
    settings_lib.integer(batch_size, self.say("batch_size"), 1)
    self._check_memory(num_samples, batch_size)
    tableau = self._tableau(how)
    return generate.evaluated(
      self.recipe,
      self._predict(how),
      tableau,
      num_samples=num_samples,
      seed=seed,
      cond=cond,
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
    cond, num_samples = self._asked(
      num_samples, labels, conditions, held_out, most
    )
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
      cond=cond,
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

  def _settled(self, settings, seed):
    how = settings_lib.settle(self, settings)
    settings_lib.seed(seed, self.say("seed"))
    return how

  def _asked(self, num_samples, labels, conditions, held_out, most=None):
    """(cond, num_samples) of what is asked for; the first `most` of them."""
    if num_samples is not None:
      settings_lib.integer(num_samples, self.say("num_samples"), 1)
    said, name = self._said(conditions, labels, held_out)
    if num_samples is None:
      num_samples = self.config.sampler.num_samples
      if name is not None and said and told.num_rows(said) > 1:
        num_samples = told.num_rows(said)
    cond = self._cond(num_samples, labels, said, name)
    if most is not None and most < num_samples:
      cond, num_samples = jax.tree.map(lambda a: a[:most], cond), most
    return cond, num_samples

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
      null=self._null(how),
      rescale=how.guidance_rescale,
      plus_plus=how.cfg_plus_plus,
      batched=how.batched_guidance,
      **guiding,
    )
    return generate.clipped(predict, how.clip, self.say("clip"))

  def _null(self, how):
    """What the reference is told, or None where there is none."""
    known = self.card.conditions
    if not (how.is_guided and known) or how.weak is not None:
      return None
    if conditions_lib.is_label_only(known) and how.negative_label is not None:
      return how.negative_label
    names = conditioning.guided(self.config, known, how.guided)
    null = conditions_lib.without(known, names)
    if how.negative_label is not None:
      null = {**null, conditions_lib.LABEL: np.int32(how.negative_label)}
    return null

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
    told, also = (list(c.conditions) for c in (ours, theirs))
    if theirs.conditions and told != also:
      raise Refusal(
        f"{self.say('weak')}: {other.path} is told {', '.join(also)}, and "
        f"{self.path} {', '.join(told) or 'nothing'}"
      )
    return other.predict
