"""A run judged with many samplers: `dfj.evaluate`, and the command's work."""

import dataclasses
import os
import platform

import diffflow_jax
from diffflow_jax import evaluation as library
from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.runs import settings as settings_lib
from diffflow_jax.runs.run import Run
from diffflow_jax.scoring import (
  compare,
  likelihood,
  needed,
  plan,
  report,
  scores,
)
from diffflow_jax.scoring.metrics import metrics_of
from diffflow_jax.scoring.subject import Subject, check_pair
from diffflow_jax.store import paths

BYTES = "uint8, 127.5 (x + 1) rounded"
LARGEST_BATCH = 256  # that fewer samples may have, the default
CHUNKS = "chunks"  # of features, in an evaluation's folder


def evaluate(
  run,
  metrics=("fid",),
  *,
  num_samples=5000,
  solvers=None,
  num_steps=None,
  guidance=None,
  labels=None,
  features=None,
  reference="train",
  against=None,
  seed=0,
  batch_size=256,
  out=None,
  counter=None,
  **settings,
):
  """Scores a run with every sampler that is asked for.

      found = dfj.load("runs/digits").evaluate(
        "fid,precision_recall", solvers="auto:10,dpmpp_2m:20", out="eval")

  Args:
    run: a `Run`, or the path of one or of an export.
    metrics: names with settings, "fid,precision_recall:k=5" or a list;
      `scoring.METRICS` has them.
    num_samples: of every sampler; the same noise and labels in all.
    solvers: "auto:10,dpmpp_2m:20" or a list; num_steps: a number or several,
      for those without one; guidance: a strength or several; what is left out
      is the config's.
    labels: gone through over and over; drawn uniformly if None.
    features: as "pixels", "inception:FILE" or "classifier:FOLDER"; pixels, or
      coordinates, if None.
    reference: "train" or "held_out" of the run's data, "folder:PATH" of images,
      an .npz of images or statistics, or a data set.
    against: another run (or its path), or a solver, to compare every one with.
    seed: of the noise; batch_size: samples at a time, on all devices together.
    out: None, or a folder or URL for evaluation.json, evaluation.png and the
      features that a killed evaluation goes on with.
    counter: None, or num -> what is told how many samples there are, as
      `progress.Counter`.
    settings: others of `Run.sample`, for all.
  Returns:
    The content of evaluation.json.
  Raises:
    Refusal: what cannot work, in one sentence, before anything is drawn.
    Failure: no sampler gave samples that are finite.
  """
  run = _loaded(run, str)
  say = run.say
  asked = dict(
    metrics=plan.listed(metrics, say("metrics")),
    num_samples=settings_lib.integer(num_samples, say("num_samples"), 1),
    labels=None if labels is None else list(map(int, _several(labels))),
    features=getattr(features, "name", features),
    reference=reference if isinstance(reference, str) else "a data set",
    against=getattr(against, "path", against),
    seed=settings_lib.seed(seed, say("seed")),
    batch_size=settings_lib.integer(batch_size, say("batch_size"), 1),
  )
  if asked["batch_size"] > max(num_samples, LARGEST_BATCH):
    raise Refusal(
      f"{say('batch_size')}={batch_size} is above {say('num_samples')}="
      f"{num_samples}, and whole batches are drawn"
    )
  metrics = metrics_of(asked["metrics"], say("metrics"))
  cache = None if out is None else paths.join(out, CHUNKS)
  used = needed.features_of(features, run)
  if out is not None:  # before a cache of features is made in it
    report.claim(out, say("out"))
  compared, own = needed.references(run, metrics, used, reference, cache)
  arms = plan.arms(solvers, num_steps, guidance, say)
  make = lambda run, arm: Subject(run, labels, **arm.settings(**settings))
  subjects = [(arm, make(run, arm)) for arm in arms]
  rivals = _rivals(run, against, arms, make)
  for _, subject in [*subjects, *rivals]:
    scores.check(metrics, subject, compared, num_samples, own)

  drawing = [m for m in metrics if m.of != "run"]
  total = num_samples * len([*subjects, *rivals]) if drawing else 0
  drawn = _counted(counter, total)
  how = num_samples, compared, seed, batch_size, cache, drawn
  judged, found = {}, []
  for _, subject in [*subjects, *rivals]:
    one = _one(subject, drawing, how, own)
    judged[subject] = one.pop("judged", None)
    found.append(one)
  result = {
    "run": _about(run),
    "asked": asked,
    "images": BYTES if library.are_images(run.card.shape) else None,
    "versions": versions(),
    "reference": {
      **compared.about(),
      "floor": scores.floors(metrics, compared),
    },
    "samplers": found,
  }
  of_run = [m for m in metrics if m.of == "run"]
  models, apart = _models(of_run, run, rivals, compared, seed, own)
  result |= {
    "model": models,
    "comparisons": [*_comparisons(drawing, subjects, rivals, judged), *apart],
  }
  if out is not None:
    report.write(out, result)
  failed = [one["failed"] for one in found if "failed" in one]
  if failed:
    raise Failure(failed[0])
  return result


def _loaded(run, say):
  if isinstance(run, Run):
    return run
  from diffflow_jax.runs import loading

  return loading.opened(run, say=say)


def _several(labels):
  return [labels] if isinstance(labels, int) else labels


def _rivals(run, against, arms, make):
  """[(Arm, Subject)] of what the samplers are compared with."""
  if against is None:
    return []
  name = run.say("against")
  is_path = isinstance(against, str) and (
    paths.is_remote(against) or os.path.exists(os.path.expanduser(against))
  )
  if isinstance(against, Run) or is_path:
    other = _loaded(against, run.say)
    check_pair(run, other)
    return [(arm, make(other, arm)) for arm in arms]
  try:
    arm = plan.arm(plan.listed(against, name)[0])
    arm = dataclasses.replace(arm, guidance=arms[0].guidance)
    return [(arm, make(run, arm))]
  except Refusal as error:
    raise Refusal(
      f"{name} must be a run or a solver, and there is no run {against!r}: "
      f"{error}"
    ) from error


def _counted(counter, total):
  done, show = [0], counter(total) if counter and total else None

  def drawn(num):
    done[0] += num
    if show:
      show(done[0])

  return drawn


def _one(subject, metrics, how, own):
  """What one sampler gets in evaluation.json, and what it was judged by."""
  num, compared, seed, batch_size, cache, drawn = how
  about = {
    "sampler": subject.name,
    "run": subject.run.path,
    "step": subject.run.step,
    "settings": subject.settings(),
    "evaluations": subject.num_evaluations,
    "numbers": {},
  }
  if not metrics:
    return about
  try:
    side = scores.samples(
      subject, num, compared, seed, batch_size, cache, drawn
    )
  except Failure as error:
    return {**about, "failed": str(error)}
  judged = scores.judge(side, compared, metrics, own)
  for metric in metrics:
    about["numbers"] |= scores.numbers(metric, judged)
  about["evaluations"] = round(float(side.array("evaluations").mean()), 3)
  return {**about, "judged": judged}


def _comparisons(metrics, subjects, rivals, judged):
  """Differences of every sampler and what it is compared with."""
  found = []
  for i, (_, subject) in enumerate(subjects if rivals else []):
    _, other = rivals[i if len(rivals) == len(subjects) else 0]
    one, two = judged[subject], judged[other]
    if one is None or two is None:
      continue
    names = subject.name, other.name
    if other.run is not subject.run:
      names = tuple(
        f"{n} of {s.run.path}"
        for n, s in zip(names, (subject, other), strict=True)
      )
    for metric in metrics:
      try:
        apart = compare.differences(metric, one, two)
      except ValueError as error:
        found.append({"number": metric.name, "of": list(names),
                      "words": f"{metric.name}: {error}"})  # fmt: skip
        continue
      found += [
        compare.entry(number, estimate, names, one.num_samples)
        for number, estimate in apart.items()
      ]
  return found


def _models(metrics, run, rivals, compared, seed, own):
  """({number: …} of the run itself, differences from another run)."""
  others = [s.run for _, s in rivals if s.run is not run][:1]
  found, apart = {}, []
  for metric in metrics:
    if metric.name != "bpd":
      found |= scores.of_run(metric, run, compared, seed, own)
      continue
    examples = own[1] or own[0]
    bounds = [
      likelihood.measured(r, examples, seed, **metric.settings)
      for r in (run, *others)
    ]
    found |= {name: entry for name, (entry, _) in bounds[0].items()}
    names = run.path, *(o.path for o in others)
    for number, estimate in _items(bounds):
      num = found[number]["num_samples"]
      apart.append(compare.entry(number, estimate, names, num, "images"))
  return found, apart


def _items(bounds):
  return likelihood.differences(*bounds).items() if len(bounds) > 1 else ()


def _about(run):
  return {
    "path": run.path,
    "step": run.step,
    "ema": run.ema,
    "objective": run.config.objective.name,
  }


def versions():
  """{name: version} of what numbers depend on."""
  import flax
  import jax
  import numpy as np

  return {
    "diffflow_jax": diffflow_jax.__version__,
    "jax": jax.__version__,
    "flax": flax.__version__,
    "numpy": np.__version__,
    "python": platform.python_version(),
  }
