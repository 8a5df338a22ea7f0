"""Learned tables for a trained run, and what they are worth."""

import os
import time
import warnings

import jax
import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import (
  datasets,
  drawing,
  prompts,
  samplers,
  settings as settings_lib,
  tables as tables_lib,
)
from diffflow_jax.sampling import files, learned, solvers
from diffflow_jax.sampling.candidates import candidate_grids, hand_made
from diffflow_jax.sampling.fitting import pairs as pairs_lib
from diffflow_jax.store import paths

STREAM = 0x666974  # of the seed's noise: no sample that `sample` draws
FINE = 60  # steps of the reference, one evaluation each, of order 4
LOOKS = 16  # noises by which hand-made tables are chosen to start from
STEPS = 12
MOST = 50  # evaluations; a table of N has (N² + 5 N)/2 numbers to fit
REAL = 2048  # examples, at most
FEATURES = 4096  # pixels, above which there is no Fréchet distance in them


def fit(
  run,
  counts,
  *,
  guidance=None,
  batch=16,
  num_train=64,
  num_held=256,
  num_starts=1,
  seed=0,
  features=None,
  say=print,
):
  """Tables of several numbers of evaluations for a `Run`, and a report.

  Fitted on num_train noises, chosen on as many others, judged on num_held more.

  Args:
    counts: numbers of evaluations.
    guidance: strength, the config's if None.
    batch: samples at a time; say: told a line of what was done.
    features: of samples, (num, ...) -> (num, dim), in which the Fréchet
      distances are; None: the numbers themselves.
  Returns:
    ({count: Tableau}, about, {count: rows}), rows as of `_judged`.
  Raises:
    Refusal: what cannot work, in one sentence.
  """
  counts = check_counts(counts, run.say("num_evaluations"))
  settings_lib.integer(batch, run.say("batch"), 1)
  settings_lib.seed(seed, run.say("seed"))
  if getattr(run.network, "destination", False):
    raise Refusal(
      f"{run.path} is of a flow map, which is sampled by solver=flow_map: "
      "there is no table to learn"
    )
  how = settings_lib.settle(run, {"guidance": guidance})
  grid = samplers.call(
    *("config.sampler.grid", run.config.sampler.grid, samplers.GRIDS),
    *(run.objective, run.config.sampler.num_steps),
  )
  ends = learned.ends(grid)
  started = time.monotonic()
  make = _maker(run, how, ends, counts, batch, seed)
  train, valid, held = make(num_train), make(num_train), make(num_held)
  say(
    f"{len(train.z) + len(valid.z) + len(held.z)} noises and their fine "
    f"solutions in {time.monotonic() - started:.0f} s"
  )
  features = features or _numbers
  data, made, rows = _real(run, features), {}, {}
  for count in counts:
    started, by_hand = time.monotonic(), hand_made(*ends, count)
    told = lambda step, error, count=count: say(
      f"{count} evaluations: step {step}, error {error:.4g}"
    )
    made[count], found = learned.fit(
      *(train, valid, by_hand, count),
      num_steps=STEPS,
      num_starts=num_starts,
      num_looks=LOOKS,
      told=told,
    )
    say(
      f"{count} evaluations: error {found['learned']:.4g}, by hand "
      f"{found['hand_made']:.4g}; {time.monotonic() - started:.0f} s"
    )
    names = learned.best_of_each_solver(found["scores"])
    tables = {"learned": made[count]} | {n: by_hand[n] for n in names}
    rows[count] = judged(held, tables, data, features)
  return made, tables_lib.about(run, how), rows


def check_counts(counts, name):
  """The numbers of evaluations, in order, or a Refusal."""
  for count in counts:
    settings_lib.integer(count, name, 2, MOST + 1)
  if not counts or len(set(counts)) < len(counts):
    raise Refusal(f"{name} must be different integers, not {counts}")
  return sorted(counts)


def _maker(run, how, ends, counts, batch, seed):
  """num -> the next num `Pairs` of the run."""
  predict = drawing.predict(run, how)
  fine = candidate_grids(*ends, FINE)["flow_power_1.5"]
  fine = solvers.adams_bashforth(fine, order=4, two_stage_start=True)
  key = jax.random.fold_in(jax.random.key(seed), STREAM)
  first = 0

  def make(num):
    nonlocal first
    num = -(-num // batch) * batch
    cond = run.cond(first + num)
    index = np.arange(first, first + num)
    first += num
    return pairs_lib.make(
      *(predict, fine, key, run.card.shape, num),
      first=first - num,
      cond=prompts.rows(cond, index),
      batch=batch,
      room=(max(counts), learned.room_of(counts)),
    )

  return make


def _numbers(samples):
  return samples.reshape(len(samples), -1)


def _real(run, features):
  """(features of real examples, the Fréchet distance of two halves) or None.

  None where the data is not there, or has too many numbers an example.
  """
  if features is _numbers and np.prod(run.card.shape) > FEATURES:
    return None
  try:
    dataset = datasets.of(run.config)[0]
    num = min(REAL, len(dataset)) if hasattr(dataset, "__len__") else REAL
    batch = dataset.batch(0, 0, num)
    x = features(np.asarray(dataset.to_float(batch["x"])))
  except (Refusal, OSError):
    return None
  return x, _frechet(x[::2], x[1::2])


def _frechet(rows, real):
  from diffflow_jax import evaluation

  with warnings.catch_warnings():  # of few samples: all here are as many
    warnings.simplefilter("ignore")
    return evaluation.frechet_distance(rows, real)


def judged(held, tables, data, features=_numbers):
  """What tables are worth on noise that no fit saw.

  Args:
    tables: {name: Tableau}, the learned one first.
    data: what `_real` found; features: of samples, as of `fit`.
  Returns:
    List of (name, error, Fréchet ratio or None): the learned one, the others
    by their error, and the fine solution.
  """

  def ratio(samples):
    if data is None:
      return None
    return _frechet(features(np.asarray(samples)), data[0]) / data[1]

  def row(name, one):
    samples = held.run(one)
    error = float(pairs_lib.rms(samples, held.goal).mean())
    name = name if isinstance(name, str) else ", ".join(name)
    return name, error, ratio(samples)

  first, *rows = [row(name, one) for name, one in tables.items()]
  return [
    first,
    *sorted(rows, key=lambda one: one[1]),
    ("fine", 0.0, ratio(held.goal)),
  ]


def write(out, made, about):
  """Writes tables to a file, whole or not at all."""
  paths.write(out, files.packed(made, about))


def check_out(out, name):
  """Refuses a file that is there, or no .npz."""
  if not out.lower().endswith(".npz"):
    raise Refusal(f"{name} must end in .npz, not {out!r}")
  if os.path.exists(out):
    raise Refusal(f"{name}: {out} exists already")
