"""The metrics by name: of samples, of the closed form of data, of a run.

Each one is a function of what it judges and of settings, as
"precision_recall:k=5", and gives numbers by name, as precision and recall.
"""

from collections.abc import Callable
import dataclasses
import inspect
import warnings

import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.cli import Refusal, parse_spec, unknown
from diffflow_jax.runs import settings as settings_lib
from diffflow_jax.scoring import laws, likelihood
from diffflow_jax.scoring.judged import K_DENSITY, K_PRECISION
from diffflow_jax.scoring.plain import as_plain
from diffflow_jax.scoring.sides import PARTS


@dataclasses.dataclass(frozen=True)
class Metric:
  """One metric of METRICS.

  Attributes:
    function: (judged, **settings) -> {name: Estimate, float or dict}.
    least: rows that both sets must have.
    of: "samples", "law" (samples of data with a closed form) or "run".
    floor: what real data are put in the place of the samples for the floor:
      "halves" (one against the other), "reference", "accuracy" (of the
      classifier) or None.
    numbers: names of what it gives; of fid those of `names`.
    needs: "rows" of the reference, its "moments", "logits", "labels".
  """

  name: str
  function: Callable
  least: int = 2
  numbers: tuple = ()
  of: str = "samples"
  floor: str | None = "halves"
  needs: tuple = ("rows",)
  settings: dict = dataclasses.field(default_factory=dict)

  def names(self, features):
    """The names of its numbers, which Fréchet's has from the features."""
    if self.name != "fid":
      return self.numbers
    return features.metric, f"{features.metric}_unbiased"

  def __call__(self, judged):
    """{name: JSON-able dict} of value, error, interval; notes of warnings."""
    with warnings.catch_warnings(record=True) as heard:
      warnings.simplefilter("always", UserWarning)
      found = self.function(judged, **self.settings)
    notes = [str(w.message) for w in heard if w.category is UserWarning]
    plain = {name: as_plain(value) for name, value in found.items()}
    for entry in plain.values():
      if "num_samples" not in entry:
        entry["num_samples"] = judged.num_samples
      if notes:
        entry["note"] = "; ".join(notes)
    return plain


def _frechet(judged):
  """`evaluation.frechet`, streamed: as papers print it, and unbiased."""
  reference = judged.reference
  found = evaluation.frechet(
    judged.samples.parts, getattr(reference, "moments", reference)
  )
  name = judged.features.metric
  return {name: found.plain, f"{name}_unbiased": found.unbiased}


def _kid(judged):
  shared = judged.pairs("kid")
  return {"kid": evaluation.kid(*judged.pair, pairs=shared)}


def _energy(judged):
  shared = judged.pairs("energy")
  return {"energy": evaluation.energy_distance(*judged.pair, pairs=shared)}


def _mmd(judged, bandwidth=None):
  """The Gaussian MMD; its bandwidth is the reference's median distance."""
  kernel, width = judged.gaussian(bandwidth)
  shared = judged.pairs("mmd", bandwidth=bandwidth)
  found = as_plain(evaluation.mmd(*judged.pair, kernel, pairs=shared))
  return {"mmd": {**found, "bandwidth": width}}


def _sliced(judged, num_directions=256, seed=0):
  found = evaluation.sliced_wasserstein(
    *judged.pair, num_directions=num_directions, seed=seed
  )
  return {"sliced_wasserstein": found}


def _precision_recall(judged, k=K_PRECISION, num=None):
  num, found = _balls(judged, "precision_recall", k, num)
  return _of_fewer(num, precision=found.precision, recall=found.recall)


def _density_coverage(judged, k=K_DENSITY, num=None):
  num, found = _balls(judged, "density_coverage", k, num)
  return _of_fewer(num, density=found.density, coverage=found.coverage)


def _balls(judged, name, k, num):
  """(how many samples, `evaluation.prdc`), worked out once for both metrics."""
  shared = judged.pairs(name, k=k, num=num)
  key = "prdc", id(shared)
  if key not in judged.made:
    k_precision, k_density = shared.k
    judged.made[key] = evaluation.prdc(
      shared.samples, shared.reference,
      k_precision=k_precision, k_density=k_density, pairs=shared,
    )  # fmt: skip
  return len(shared.samples), judged.made[key]


def _of_fewer(num, **found):
  return {k: {**as_plain(v), "num_samples": num} for k, v in found.items()}


def _two_sample(judged):
  found = evaluation.classifier_two_sample(*judged.pair)
  accuracy = {**as_plain(found.accuracy), "p_value": found.p_value}
  return {"two_sample": accuracy, "jensen_shannon": found.jensen_shannon}


def _inception_score(judged):
  return {
    "inception_score": evaluation.inception_score(
      _softmax(judged.features.logits(f)) for f in judged.samples.stream()
    )
  }


def _softmax(logits):
  logits = np.asarray(logits, np.float64)
  shifted = np.exp(logits - logits.max(1, keepdims=True))
  return shifted / shifted.sum(1, keepdims=True)


def _label_agreement(judged):
  """And without the classifier's mistakes, where its accuracy is known."""
  features, samples = judged.features, judged.samples
  logits = [features.logits(f).argmax(1) for f in samples.stream()]
  wanted = np.asarray(samples.array("labels"))
  num_classes = len(features.classes)
  found = evaluation.label_agreement(
    np.concatenate(logits), wanted, num_classes
  ).overall
  numbers = {"label_agreement": found}
  if features.accuracy is not None:
    numbers["label_reliability"] = evaluation.label_reliability(
      found, features.accuracy, num_classes
    )
  return numbers


def _memorisation(judged, threshold=1.0 / 3.0):
  """Against the run's training examples and its held-out ones."""
  samples, train = judged.samples.array(), judged.train.array()
  shared = None
  if judged.train is judged.reference:
    shared = judged.pairs("memorisation")
  found = evaluation.nearer_to_train(
    samples, train, judged.held_out.array(), pairs=shared
  )
  share = {**as_plain(found.share), "expected": found.expected}
  return {
    "nearer_to_train": share,
    "distance_ratio": evaluation.distance_ratio(
      samples, train, threshold, pairs=shared
    ),
    "authenticity": evaluation.authenticity(samples, train, pairs=shared),
  }


def _metric(name, function, least=2, numbers=None, **about):
  numbers = tuple((numbers or name).split())
  return name, Metric(name, function, least, numbers, **about)


METRICS = dict(
  (
    _metric("fid", _frechet, 2 * PARTS, needs=("moments",)),
    _metric("kid", _kid, 20),
    _metric("precision_recall", _precision_recall, 6, "precision recall"),
    _metric("density_coverage", _density_coverage, 6, "density coverage"),
    _metric("sliced_wasserstein", _sliced, 2 * PARTS),
    _metric("energy", _energy, 20),
    _metric("mmd", _mmd, 20),
    _metric("two_sample", _two_sample, 8, "two_sample jensen_shannon"),
    _metric(
      "memorisation",
      _memorisation,
      numbers="nearer_to_train distance_ratio authenticity",
      floor=None,
    ),
    _metric(
      "inception_score", _inception_score, floor="reference", needs=("logits",)
    ),
    _metric(
      "label_agreement",
      _label_agreement,
      numbers="label_agreement label_reliability",
      floor="accuracy",
      needs=("logits", "labels"),
    ),
    _metric("mode_shares", laws.mode_shares, of="law", floor="reference"),
    _metric("log_likelihood", laws.log_likelihood, of="law", floor="reference"),
    _metric("kl", laws.kl, of="run", floor=None, needs=("law",)),
    _metric(
      "bpd",
      likelihood.bpd,
      numbers="bpd_uniform bpd_importance bpd_flow bpd_variational",
      of="run",
      floor=None,
      needs=("values",),
    ),
  )
)
# which way is better, by how a number's name begins
_LOWER = (
  "fid", "fd_", "kid", "sliced_wasserstein", "energy", "mmd", "two_sample",
  "jensen_shannon", "nearer_to_train", "distance_ratio", "kl", "bpd",
  "mode_shares",
)  # fmt: skip
_HIGHER = ("precision", "recall", "density", "coverage", "inception_score")


_LEAST = {  # of settings that count something
  "k": 1, "num": 1, "num_directions": 1, "seed": 0,
  "num_importance": 1, "num_probes": 0, "batch_size": 1,
}  # fmt: skip


def better(number):
  """ "lower" or "higher", which of a number is good; None where neither is.

  More label agreement or likelihood under the data than real data have is no
  better: it says samples easier than data.
  """
  if number.startswith(_LOWER):
    return "lower"
  return "higher" if number.startswith(_HIGHER) else None


def metrics_of(specs, name="metrics"):
  """The Metrics of "fid,precision_recall:k=5" or of a list.

  Raises:
    Refusal: unknown metrics or settings, with the known ones.
  """
  from diffflow_jax.scoring import plan

  found = {}
  for text in plan.listed(specs, name):
    head, settings = parse_spec(text, name)
    head = {"fd": "fid"}.get(head, head)
    if head not in METRICS:
      raise Refusal(f"{name}: {head!r} is no metric; {unknown(head, METRICS)}")
    if head in found:
      raise Refusal(f"{name} names {head} twice")
    metric = METRICS[head]
    known = list(inspect.signature(metric.function).parameters)[1:]
    for key in settings:
      if key not in known:
        raise Refusal(
          f"{name}: {head} has no setting {key!r}; it has: "
          f"{', '.join(known) or 'none'}"
        )
      if key in _LEAST:
        label = f"{name}: {head}:{key}"
        settings[key] = settings_lib.integer(settings[key], label, _LEAST[key])
    found[head] = dataclasses.replace(metric, settings=settings)
  return list(found.values())
