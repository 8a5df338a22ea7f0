"""The numbers of one subject: samples, their features, every metric."""

import functools
import hashlib

import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.cli import Refusal
from diffflow_jax.runs import settings as settings_lib
from diffflow_jax.scoring import likelihood
from diffflow_jax.scoring.chunks import Rows
from diffflow_jax.scoring.judged import Judged
from diffflow_jax.scoring.plain import as_plain
from diffflow_jax.scoring.sides import Side
from diffflow_jax.store import paths


def score(
  subject,
  metrics,
  *,
  num_samples,
  reference,
  seed=0,
  batch_size=256,
  cache=None,
  drawn=lambda num: None,
  own=None,
):
  """{number: {value, error, low, high, num_samples, …}} of a `Subject`.

  Args:
    subject: what is judged; metrics: of `metrics_of`.
    num_samples: how many; sample i is a function of (seed, i).
    reference: a `Reference`, whose features are those of the samples.
    batch_size: samples at a time, on all devices together.
    cache: a folder to keep the samples' features in, so that what was killed
      goes on, or None; drawn: is told of every batch how many samples it had.
    own: (train, held-out) References, for `memorisation` and `bpd`.
  Raises:
    Refusal: a metric that this run, reference or number of samples cannot have.
    Failure: samples that are not finite.
  """
  check(metrics, subject, reference, num_samples, own)
  found, judged = {}, None
  for metric in metrics:
    if metric.of == "run":
      found |= of_run(metric, subject.run, reference, seed, own)
      continue
    if judged is None:
      side = samples(
        subject, num_samples, reference, seed, batch_size, cache, drawn
      )
      judged = judge(side, reference, metrics, own)
    found |= numbers(metric, judged)
  return found


def samples(subject, num, reference, seed, batch_size, cache, drawn):
  """The `Side` of a subject's samples, made where they are not yet."""
  features, folder = reference.features, None
  images = evaluation.are_images(reference.card.shape)
  if cache is not None:
    key = repr((subject.fingerprint(), features.fingerprint, seed, batch_size))
    key = hashlib.sha256(key.encode()).hexdigest()[:32]
    folder = paths.join(cache, f"samples-{key}")

  def make(first):  # whole batches, so that one program makes all of them
    x, labels, evaluations = subject.draw(first, batch_size, seed)
    given = evaluation.to_bytes(x) if images else x
    made = {
      "features": features(given),
      "evaluations": np.full(len(x), evaluations),
    }
    return made if labels is None else {**made, "labels": labels}

  rows = Rows(folder, make, num, batch_size)
  rows.made(drawn)
  return Side.of_rows(rows)


def judge(side, reference, metrics, own=None):
  """What the metrics are given: samples and what they are compared with."""
  train, held_out = own or (None, None)
  return Judged(
    samples=side,
    reference=reference.side or reference,
    features=reference.features,
    law=reference.law,
    metrics=[m for m in metrics if m.of == "samples"],
    train=train and train.side,
    held_out=held_out and held_out.side,
  )


def of_run(metric, run, reference, seed, own=None):
  """The numbers of a metric that judges the run and no sampler."""
  train, held_out = own or (None, None)
  judged = Judged(
    run=run,
    reference=reference,
    examples=held_out or train or reference,
    law=reference.law,
    seed=seed,
  )
  return numbers(metric, judged)


def numbers(metric, judged):
  """A Metric of a Judged; what it cannot be made of is a Refusal."""
  try:
    return metric(judged)
  except ValueError as error:
    raise Refusal(f"metrics: {metric.name}: {error}") from error


def floors(metrics, reference):
  """{number: …} of real examples in the place of samples, or {}.

  One half against the other, of what compares; of a classifier's and a law's
  numbers, those of the reference itself.
  """
  if reference.side is None:
    return {}

  @functools.cache
  def halves():
    one, other = reference.halves()
    compares = [m for m in metrics if m.floor == "halves"]
    judged = judge(one, reference, [m for m in compares if one.num >= m.least])
    judged.reference = other
    return judged

  found = {}
  for metric in metrics:
    if metric.floor is None or metric.of == "run":
      continue
    if metric.floor == "accuracy":
      if (accuracy := reference.features.accuracy) is not None:
        found[metric.name] = as_plain(accuracy)
      continue
    if metric.floor == "reference":
      judged = judge(reference.side, reference, [metric])
    else:
      judged = halves()
      if metric not in judged.metrics:  # too few for it
        continue
    found |= numbers(metric, judged)
  return found


def check(metrics, subject, reference, num_samples, own=None):
  """Refuses what a metric cannot be made of, before anything is drawn."""
  say, features = subject.run.say, reference.features
  for metric in metrics:
    name, needs = f"{say('metrics')}: {metric.name}", metric.needs
    no_rows = reference.side is None and metric.needs != ("moments",)
    if no_rows and metric.of == "samples":
      raise Refusal(
        f"{name} needs examples, and {reference.name} holds statistics alone, "
        "which are enough for fid"
      )
    if (metric.of == "law" or "law" in needs) and reference.law is None:
      raise Refusal(
        f"{name} is for data with a closed form, as ring, and "
        f"{reference.name} of {subject.run.path} has none"
      )
    if "logits" in needs and features.logits is None:
      raise Refusal(
        f"{name} needs the logits of a classifier, and features "
        f"{features.name} have none"
      )
    if "values" in needs:
      train, held_out = own or (None, None)
      likelihood.check(held_out or train or reference, subject.run, name)
    if "labels" in needs:
      _check_classes(name, subject.run, features)
    if metric.name == "memorisation" and (own is None or None in own):
      raise Refusal(
        f"{name} needs held-out examples of {subject.run.path} beside its "
        "training ones, and config.held_out holds none out"
      )
    if metric.of == "samples":
      _check_numbers(name, metric, say, reference, num_samples)


def _check_classes(name, run, features):
  wanted = run.card.num_classes
  if not wanted:
    raise Refusal(f"{name}: {run.path} was trained without classes")
  if len(features.classes) != wanted:
    raise Refusal(
      f"{name}: {run.path} has {wanted} classes, and features {features.name} "
      f"tell {len(features.classes) or 'none'} of them"
    )


def _check_numbers(name, metric, say, reference, num_samples):
  settings_lib.integer(num_samples, say("num_samples"), 1)
  limited = metric.settings.get("num", num_samples)
  if limited > num_samples:
    raise Refusal(
      f"{name}:num={limited} is above {say('num_samples')}={num_samples}"
    )
  for what, num in (
    (say("num_samples"), min(limited, num_samples)),
    (f"the number of {reference.name}", reference.num),
  ):
    if num < metric.least:
      raise Refusal(f"{name} needs {metric.least} examples: {what} is {num}")
  if metric.name in ("precision_recall", "density_coverage"):
    k, fewest = metric.settings.get("k"), min(limited, reference.num // 2)
    if k is not None and k >= fewest:
      raise Refusal(
        f"{name}:k={k} must be below the {fewest} of the smaller set, or of "
        "half the reference"
      )
    if min(limited, num_samples) > reference.num:
      raise Refusal(
        f"{name} compares at equal numbers: {say('num_samples')}={num_samples} "
        f"is above the {reference.num} of {reference.name}; take "
        f"{metric.name}:num={reference.num} for the first of them"
      )
