"""What is judged: a run with a sampler, as samples by their global index."""

import dataclasses
import hashlib
import json

import jax
import numpy as np

from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import (
  conditions_file,
  drawing,
  generate,
  prompts,
  request,
  settings as settings_lib,
  sharding,
)
from diffflow_jax.runs.samplers import Adaptive
from diffflow_jax.sampling.tableau import as_pytree


def drawn_labels(num_classes, num=65536):
  """Labels of samples, drawn uniformly; gone through over and over.

  Not all classes in turn: samples would not be independent, and what corrects a
  distance for their number would take off too much.
  """
  return np.random.default_rng(0).integers(num_classes, size=num)


class Subject:
  """A run and how it is sampled.

  Args:
    run: a `Run`, or while training Run(workdir, recipe, lambda: (step,
      parameters)).
    labels: of the samples, gone through over and over; drawn uniformly if
      None. A run that is told more takes the examples that training kept.
    settings: those of `Run.sample`; what is left out is the config's.
  Raises:
    Refusal: settings that cannot work.
  """

  def __init__(self, run, labels=None, **settings):
    self.run = run
    self.how = settings_lib.settle(run, settings)
    self.tableau = drawing.tableau(run, self.how)
    self.cond, self.period = _conditions(run, labels)
    self._predict = None

  @property
  def name(self):
    """ "dpmpp_2m:20 at guidance 2": what a table calls it."""
    how, strength = self.how, f" at guidance {self.how.guidance:g}"
    alone = how.solver.endswith(".npz") or isinstance(self.tableau, Adaptive)
    steps = "" if alone else f":{how.num_steps}"
    return f"{how.solver}{steps}{strength if how.is_guided else ''}"

  @property
  def predict(self):
    """The guided predictor; it reads the parameters."""
    if self._predict is None:
      self._predict = drawing.predict(self.run, self.how)
    return self._predict

  @property
  def num_evaluations(self):
    """Of the network a sample, or None where the solver decides."""
    adaptive = isinstance(self.tableau, Adaptive)
    return None if adaptive else int(self.tableau.num_evaluations)

  def draw(self, first, num, seed):
    """Samples first … first + num - 1 of a seed, in one batch on all devices.

    Returns:
      (float32 (num, *shape), labels (num,) or None, mean evaluations).
    Raises:
      Failure: samples that are not finite.
    """
    index = (first + np.arange(num)) % max(self.period, 1)
    cond = jax.tree.map(lambda a: a[index], self.cond)
    samples, labels, evaluations = generate.evaluated(
      self.run.recipe,
      self.predict,
      self.tableau,
      num_samples=num,
      seed=seed,
      cond=cond,
      batch_size=num,
      mesh=sharding.make_mesh() if jax.device_count() > 1 else None,
      start=first,
    )
    bad = ~np.isfinite(samples).reshape(num, -1).all(1)
    if bad.any():
      raise Failure(
        f"{int(bad.sum())} of {num} samples are not finite (NaN or inf), the "
        f"first of them number {first + int(bad.argmax())}, of {self.name}"
      )
    return samples, labels, evaluations

  def settings(self):
    """{name: value} of all that was settled, for JSON."""
    how = {
      field.name: getattr(self.how, field.name)
      for field in dataclasses.fields(self.how)
    }
    weak = how["weak"]
    if weak is not None and not isinstance(weak, str):
      how["weak"] = getattr(weak, "path", "a predictor")
    if how["solver"] == "auto":
      how["grid"] = "auto"
    return how

  def fingerprint(self):
    """32 hexadecimal digits of all that a sample is a function of but a seed.

    SHA-256 of the parameters, the table, the conditions and the settings.
    """
    config = self.run.config
    named = {
      k: json.loads(config.to_json())[k] for k in ("objective", "network")
    }
    found = hashlib.sha256(
      repr((sorted(named.items()), sorted(self.settings().items()))).encode()
    )
    table = self.tableau
    if isinstance(table, Adaptive):
      table = table.start, table.end, table.rtol, table.atol
    whole = as_pytree(self.predict), table, self.cond
    for leaf in jax.tree.leaves(whole):
      leaf = np.asarray(leaf)
      found.update(f"{leaf.dtype}{leaf.shape}".encode())
      found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:32]


def _conditions(run, labels):
  """(cond of `period` samples, period): what the samples are drawn under."""
  known = run.card.conditions
  if labels is not None:
    labels = np.atleast_1d(np.asarray(labels))
    period = max(1, labels.size)
  elif conditions_file.is_needed(known):
    period = prompts.num_rows(prompts.paired(run.examples))
  elif run.card.num_classes:
    labels = drawn_labels(run.card.num_classes)
    period = labels.size
  else:
    period = 1
  return request.cond(run, period, None, labels, None), period


def check_pair(run, other):
  """Refuses two runs whose samples cannot be of the same noise and labels."""
  for what in ("shape", "num_classes"):
    ours, theirs = getattr(run.card, what), getattr(other.card, what)
    if ours != theirs:
      what = {"shape": "data of shape", "num_classes": "classes:"}[what]
      raise Refusal(
        f"{run.say('against')}: {other.path} has {what} {theirs}, and "
        f"{run.path} {ours}"
      )
