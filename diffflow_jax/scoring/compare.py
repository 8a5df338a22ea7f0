"""Is one better than the other, and how sure is that? In numbers and in words.

Two samplers draw sample i from the same noise under the same label, and meet
the same reference, so much of what is chance in one number is in the other too:

    var(A - B) = s_A² + s_B² - 2 ρ s_A s_B                                 (1)

The error of a difference is therefore that of differences: of leaving out one
part of both sets of samples together (Fréchet, whose 1/n bias goes as well), of
what each row adds to a mean over pairs (kernels), or of disjoint parts of both
and of the reference (all else; a bootstrap is wrong for nearest neighbours).
Where it tells nothing, about

    n' = n 7.849 (s/(A - B))²,     7.849 = (z_.975 + z_.8)²                (2)

samples would show this difference in four of five cases.
"""

import math

import numpy as np

from diffflow_jax.evaluation import estimates, fid, streaming
from diffflow_jax.evaluation.estimates import Estimate
from diffflow_jax.evaluation.pairwise import kernels
from diffflow_jax.scoring.judged import Judged
from diffflow_jax.scoring.metrics import better
from diffflow_jax.scoring.plain import as_plain
from diffflow_jax.scoring.sides import PARTS

POWER = 7.849  # of eq. (2)
KERNELS = ("kid", "energy", "mmd")


def differences(metric, one, other):
  """{number: Estimate of one - other} of a Metric and two Judged.

  Raises:
    ValueError: too few samples for parts.
  """
  if metric.name == "fid":
    name = one.features.metric
    return {name: _frechet(one, other)}
  if metric.name in KERNELS:
    return {metric.name: _kernel(metric, one, other)}
  if one.samples.num < PARTS * metric.least:
    raise ValueError(
      f"{one.samples.num} samples are too few for {PARTS} parts of "
      f"{metric.least}, which tell its error"
    )
  value = lambda judged: {k: v["value"] for k, v in metric(judged).items()}
  whole = _minus(value(one), value(other))
  found = []
  for i in range(PARTS):
    pair = [_part(metric, judged, i) for judged in (one, other)]
    found.append(_minus(*map(value, pair)))
  return {
    name: estimates.spread(whole[name], [part[name] for part in found])
    for name in whole
  }


def _minus(a, b):
  return {name: a[name] - b[name] for name in a}


def _part(metric, judged, i):
  """A part of the samples, and of the reference where one compares with it."""
  reference = judged.reference
  if metric.floor == "halves":
    reference = reference.part(i)
  return Judged(
    **{
      **vars(judged),
      "samples": judged.samples.part(i),
      "reference": reference,
      "metrics": [metric],
    }
  )


def _kernel(metric, one, other):
  """From differences of what rows add to the two, `kernels` eq. (2)."""
  name, settings = metric.name, metric.settings
  kernel = {
    "kid": lambda judged: kernels.cubic,
    "energy": lambda judged: kernels.negative_distance,
    "mmd": lambda judged: judged.gaussian(**settings)[0],
  }[name]
  found = [
    kernels.influences(judged.pairs(name, **settings).sums(kernel(judged)))
    for judged in (one, other)
  ]
  value, a, b = (
    np.subtract(*pair) for pair in list(zip(*found, strict=True))[:3]
  )
  variance = 4.0 * (a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
  dof = min(len(a), len(b)) - 1
  return estimates.student(value, np.sqrt(variance), dof)


def _frechet(one, other):
  """Of the values at infinitely many samples, parts left out of both."""
  reference = getattr(one.reference, "moments", one.reference)
  value = lambda moments: fid.frechet([moments], reference).plain.value
  wholes = [judged.samples.moments for judged in (one, other)]
  parts = zip(one.samples.parts, other.samples.parts, strict=True)
  left_out = [
    np.subtract(
      *(
        value(streaming.without(whole, part))
        for whole, part in zip(wholes, pair, strict=True)
      )
    )
    for pair in parts
  ]
  return estimates.jackknife(np.subtract(*map(value, wholes)), left_out)[1]


def needed(estimate, num):
  """Samples that would show a difference of this size, eq. (2), or None."""
  value, error = estimate.value, estimate.standard_error
  if not (math.isfinite(error) and value):
    return None
  return math.ceil(num * POWER * (error / value) ** 2)


def entry(number, estimate, names, num, what="samples"):
  """The JSON-able dict of a difference, its words among it."""
  more = needed(estimate, num)
  return {
    "number": number,
    "of": list(names),
    "difference": as_plain(estimate),
    "num_samples": num,
    "needed": more,
    "words": words(number, estimate, names, num, what),
  }


def words(number, estimate, names, num, what="samples"):
  """One sentence on an Estimate of the first minus the second.

  "fid: A is better than B by 0.31 ± 0.12": ± half of the 95 % interval.
  """
  one, other = names
  value, error, low, high = estimate
  apart = f"{number}: {one} and {other}"
  if value == 0 and error == 0:
    return f"{apart} are equal"
  if not math.isfinite(error):
    return (
      f"{apart} differ by {value:.3g}, of which {num:,} {what} tell no error"
    )
  half = (high - low) / 2.0
  if low <= 0.0 <= high:
    more = needed(estimate, num)
    hope = f"; about {_round(more)} would be needed" if more else ""
    return (
      f"{apart} cannot be told apart with {num:,} {what} ({value:.2g} ± "
      f"{half:.2g}){hope}"
    )
  which = better(number)
  if which is None:
    how = "higher" if value > 0 else "lower"
  else:
    how = "better" if (value < 0) == (which == "lower") else "worse"
  far = Estimate(abs(value), error, low, high).value
  return f"{number}: {one} is {how} than {other} by {far:.3g} ± {half:.2g}"


def _round(num):
  """ "40,000": two digits of a number of samples, or "over a billion"."""
  if num > 10**9:
    return "over a billion"
  scale = 10 ** max(0, len(str(num)) - 2)
  return f"{-(-num // scale) * scale:,}"
