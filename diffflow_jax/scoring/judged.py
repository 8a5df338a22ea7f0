"""What a metric is given: samples, what they are compared with, and pairs.

Metrics of all pairs of rows share one pass over them (`evaluation.Pairs`), so
what is judged knows all of its metrics from the start. What the reference is
within itself is the same for all samplers, and is kept with it.
"""

import types

from diffflow_jax import evaluation
from diffflow_jax.evaluation.pairwise import kernels

K_PRECISION, K_DENSITY = 3, 5  # nearest neighbours, as in the papers


class Judged(types.SimpleNamespace):
  """samples, reference (Sides), features, law, train, held_out; num_samples.

  Attributes:
    metrics: all that will be asked for.
    bandwidth: of a Gaussian kernel, or None: the reference's median distance.
  """

  def __init__(self, **given):
    super().__init__(**{"bandwidth": None, "metrics": (), **given, "made": {}})

  @property
  def num_samples(self):
    return self.samples.num

  @property
  def pair(self):
    """The features of both, as arrays."""
    return self.samples.array(), self.reference.array()

  def gaussian(self, bandwidth=None):
    """(kernel, its bandwidth): the same kernel whenever it is asked for."""
    wanted = self.bandwidth if bandwidth is None else bandwidth
    kept = self.reference.kept
    if ("gaussian", wanted) not in kept:
      width = wanted
      if width is None:
        width = evaluation.median_distance(self.reference.array())
      if wanted is None and width == 0:
        raise ValueError(
          "the median distance of the reference is 0, which is no bandwidth: "
          "half of its pairs are equal rows"
        )
      kept["gaussian", wanted] = kernels.gaussian(width), float(width)
    return kept["gaussian", wanted]

  def pairs(self, metric, **settings):
    """The `Pairs` that a metric shares with all others of as many samples.

    Args:
      metric: its name; settings: those that it was called with.
    """
    num, wanted = self._wanted(metric, settings)
    if metric not in self.made.get(num, ((), None))[0]:
      shared = {metric: wanted}
      for other in self.metrics:
        try:
          of_other, wants = self._wanted(other.name, other.settings)
        except ValueError:
          continue  # said when that metric is asked for
        if of_other == num and wants:
          shared[other.name] = wants
      wanted = _merged(shared.values())
      pairs = evaluation.Pairs(
        self.samples.first(num).array(),
        self.reference.array(),
        **wanted,
        within=self._within(wanted["kernels"], wanted["k"], wanted["own"]),
      )
      self.made[num] = tuple(shared), pairs
    return self.made[num][1]

  def _within(self, kernels, k, own):
    """The `Within` of the reference that all samplers share."""
    name = "within", *kernels, max(own, *(k or (0, 0)))
    if name not in self.reference.kept:
      self.reference.kept[name] = evaluation.Within(
        self.reference.array(), kernels=kernels, num=name[-1]
      )
    return self.reference.kept[name]

  def _wanted(self, metric, settings):
    """(how many samples, arguments of `Pairs`), {} of what needs none."""
    num = min(settings.get("num") or self.num_samples, self.num_samples)
    k = settings.get("k")
    if metric == "kid":
      return num, {"kernels": [kernels.cubic]}
    if metric == "energy":
      return num, {"kernels": [kernels.negative_distance]}
    if metric == "mmd":
      return num, {"kernels": [self.gaussian(settings.get("bandwidth"))[0]]}
    if metric == "precision_recall":
      return num, {"k": (k or K_PRECISION, 0)}
    if metric == "density_coverage":
      return num, {"k": (0, k or K_DENSITY)}
    if metric == "memorisation" and self.train is self.reference:
      return num, {"across": 2, "own": 1}
    return num, {}


def _merged(wanted):
  """One set of arguments for several; of k, the papers' where none is named."""
  found = {"kernels": [], "k": None, "across": 0, "own": 0}
  for one in wanted:
    found["kernels"] += one.get("kernels", [])
    if "k" in one:
      found["k"] = tuple(map(max, found["k"] or (0, 0), one["k"]))
    for name in ("across", "own"):
      found[name] = max(found[name], one.get(name, 0))
  if found["k"]:
    precision, density = found["k"]
    found["k"] = precision or K_PRECISION, density or K_DENSITY
  return found
