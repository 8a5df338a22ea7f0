"""What samples are compared with: real examples, or their statistics."""

import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.cli import Refusal
from diffflow_jax.data import splits
from diffflow_jax.process import conditions
from diffflow_jax.runs import datasets
from diffflow_jax.scoring.sides import Side

OWN = ("train", "held_out")  # of a run's data


class Reference:
  """A set of real examples and their features, computed once.

  Attributes:
    name: "train", "held_out", or as the text that named it; num: of examples.
    features: whose they are; found: `evaluation.reference_of`'s.
    side: a `Side` of the features, or None of statistics; moments: theirs.
    dataset: the examples, or None of a file; law: the closed form of the data
      with log_prob, or None.
  """

  def __init__(self, name, card, features, found, dataset=None):
    self.name, self.features, self.found = name, features, found
    self.card, self.dataset = card, dataset
    self.num, self.moments = found.num or found.moments.num, found.moments
    law = getattr(dataset, "density", None)
    self.law = law if hasattr(law, "log_prob") else None
    self.side = None
    if found.features is not None:
      self.side = Side.of_arrays({"features": found.features})

  @classmethod
  def of(
    cls, recipe, features, spec="train", *, cache=None, keep=True, say=str
  ):
    """The Reference that a text names, or of a data set.

    Args:
      recipe: of the run; features: `evaluation.features_of`'s.
      spec: "train" or "held_out" of the run's data, or as
        `evaluation.reference_of` has it, or a data set.
      cache: a folder to keep features in, or None.
      keep: whether features are wanted, and not their moments alone.
    Raises:
      Refusal: there is no such data, or of another shape than the run's.
    """
    dataset, there = None, dict.fromkeys(OWN)
    if not isinstance(spec, str):
      dataset, spec = spec, "a data set"
    elif spec in OWN:
      dataset = _of_config(recipe.config, spec, say("reference"))
    there[spec] = dataset
    if dataset is None:
      there.pop(spec) if spec not in OWN else None
    try:
      found = evaluation.reference_of(
        spec, features, recipe.card, datasets=there, cache=cache, keep=keep
      )
    except ValueError as error:
      raise Refusal(f"{say('reference')}: {error}") from error
    return cls(spec, recipe.card, features, found, dataset)

  def about(self):
    """{name: value} for JSON."""
    return {
      "of": self.name,
      "num": self.found.num,
      "fingerprint": self.found.fingerprint,
      "features": self.features.name,
      "features_fingerprint": self.features.fingerprint,
    }

  def halves(self):
    """Two Sides, disjoint and at random: the floor of every metric."""
    return self.side.part(0, 2), self.side.part(1, 2)

  def examples(self, num):
    """(x, cond or None) of up to num, as the network sees them."""
    if splits.is_finite(self.dataset):
      num = min(num, len(self.dataset))
      index = np.linspace(0, len(self.dataset) - 1, num).astype(int)
      batch = self.dataset.take(index)
    else:
      batch = self.dataset.batch(2**32, 0, num)
    x = np.asarray(self.dataset.to_float(batch["x"]), np.float32)
    known = conditions.asked(self.card.conditions)
    told = known.keys() & batch.keys()
    return x, conditions.from_batch(known, batch) if told else None


def _of_config(config, spec, name):
  train, held = datasets.of(config)
  if spec == "train":
    return train
  if held is None:
    raise Refusal(f"{name}: the run's config.held_out holds no examples out")
  dataset, num = held
  if splits.is_finite(dataset):
    return splits.subset(dataset, np.arange(num))
  return dataset
