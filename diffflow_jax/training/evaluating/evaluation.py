"""The judge of a run in training, and what its best checkpoint goes by."""

import logging
import math
import time

import jax

from diffflow_jax import scoring
from diffflow_jax.cli import Failure, Refusal, unknown
from diffflow_jax.runs.run import Run
from diffflow_jax.scoring import needed, scores
from diffflow_jax.store import paths
from diffflow_jax.training.evaluating.checks import PREFIX, is_asked, samplers

log = logging.getLogger("diffflow_jax")

FOLDER = "eval/chunks"  # of the workdir, where `evaluate` keeps features, too


def of(run, workdir, params):
  """The `Evaluation` of a TrainingRun, or None where it asks for none."""
  return Evaluation(run, workdir, params) if is_asked(run.config) else None


def loss_of(config, line, held_out):
  """What config.keep.best goes by, less is better; None if there is none here.

  Args:
    line: the metrics line of a step; held_out: its held-out loss, or None.
  """
  by = config.keep.get("by")
  if by is None:
    return held_out
  value = line.get(by)
  more = scoring.better(by.removeprefix(PREFIX)) == "higher"
  return -value if more and value is not None else value


class Evaluation:
  """Judges averaged parameters of a run; made once, before its next step.

  Args:
    run: a TrainingRun; workdir: its folder; params: like those to be judged.
  Raises:
    Refusal: metrics, features, a reference or a sampler that do not fit.
  """

  def __init__(self, run, workdir, params):
    how = run.config.evaluate
    self._recipe, self._workdir = run, workdir
    self._metrics = scoring.metrics_of(how.metrics, "config.evaluate.metrics")
    known = self._run(0, params)
    features = needed.features_of(how.get("features"), known)
    self._check_by(features)
    self._reference, own = self._references(known, features)
    self._how = dict(
      num_samples=how.num_samples,
      reference=self._reference,
      seed=run.config.seed,
      batch_size=how.get("batch_size", 256),
      own=own,
    )
    subject = self._subject(known)
    scores.check(self._metrics, subject, self._reference, how.num_samples, own)
    self._ended = time.monotonic()

  def __call__(self, step, params, note):
    """{eval/<number>: float} of the parameters of a step; note(text) says it.

    With eval/<number>_error, the standard error, where there is one, and
    eval/seconds and eval/share, of the time since the one before.
    """
    begun, found, text = time.monotonic(), {}, ""
    try:
      subject = self._subject(self._run(step, params))
      found = scoring.score(subject, self._metrics, **self._how)
    except (Failure, Refusal, OSError) as error:  # training goes on
      text = f"evaluation fails: {paths.reason(error)}"
    line = dict(_plain(found))
    ended = time.monotonic()
    seconds = ended - begun
    share = seconds / max(ended - self._ended, 1e-9)
    self._ended = ended
    text = text or ", ".join(_words(found))
    cost = f"{seconds:.3g} s, {100 * share:.0f} % of the time"
    note(f"step {step}: {text}; {cost}")
    return line | {f"{PREFIX}seconds": seconds, f"{PREFIX}share": share}

  def _run(self, step, params):
    """The run as it stands, as `dfj.load` would give it."""
    return Run(self._workdir, self._recipe, lambda: (step, params), say=_say)

  def _subject(self, run):
    how = samplers(self._recipe.config)["evaluate"]
    if how["solver"] == "auto":
      del how["grid"]
    return scoring.Subject(run, **how)

  def _check_by(self, features):
    by = self._recipe.config.keep.get("by")
    numbers = [n for metric in self._metrics for n in metric.names(features)]
    if by is not None and by.removeprefix(PREFIX) not in numbers:
      known = unknown(by, [f"{PREFIX}{name}" for name in numbers])
      raise Refusal(
        f"config.keep.by is no number of config.evaluate.metrics: {by!r}; "
        f"{known}"
      )

  def _references(self, run, features):
    """The real examples, kept where there is room for them."""
    spec = self._recipe.config.evaluate.get("reference", "train")
    of = lambda cache: needed.references(
      run, self._metrics, features, spec, cache
    )
    if jax.process_index():  # one process writes for all
      return of(None)
    try:
      return of(paths.join(self._workdir, *FOLDER.split("/")))
    except OSError as error:
      log.warning("%s cannot be written: %s", FOLDER, paths.reason(error))
      return of(None)


def _say(name):
  """What a message calls a setting."""
  return f"config.evaluate.{name}"


def _plain(found):
  """Values and standard errors by name, those that are finite numbers."""
  for name, entry in found.items():
    for key, part in ((name, "value"), (f"{name}_error", "standard_error")):
      number = entry.get(part)
      if number is not None and math.isfinite(number):
        yield f"{PREFIX}{key}", float(number)


def _words(found):
  for name, entry in found.items():
    value, error = entry.get("value"), entry.get("standard_error")
    if value is not None:
      yield f"{name} {value:.4g}" + ("" if error is None else f" ± {error:.2g}")
