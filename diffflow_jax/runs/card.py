"""What a run knows of its data, so that sampling needs none of it.

Written beside the config as data.json when training starts; a run that is moved
to another machine takes it along.
"""

import dataclasses

import numpy as np

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions
from diffflow_jax.store import paths
from diffflow_jax.store.seals import seal, unseal

DATA = "data.json"
MAX_POINTS = 512  # of data in the plane, drawn in grey behind the samples


@dataclasses.dataclass(frozen=True)
class Card:
  """What sampling and pictures need to know of a data set.

  Attributes:
    shape: of one example; num_classes: 0 without labels.
    class_names: names in the order of the labels, or ().
    points: up to 512 examples of data in the plane, for pictures, else ().
    found: what was found when it was looked at, `Inspection.as_dict()`; {} of
      a run that did not keep it.
    conditions: {name: Condition} of all that a network is told, those of
      `process.conditions.of`; the classes alone if it is left out.
  """

  shape: tuple
  num_classes: int = 0
  class_names: tuple = ()
  points: tuple = ()
  found: dict = dataclasses.field(default_factory=dict, hash=False)
  conditions: dict = dataclasses.field(default_factory=dict, hash=False)

  def __post_init__(self):
    object.__setattr__(self, "conditions", conditions.of(self))

  def to_json(self):
    return seal(dataclasses.asdict(self))


def of(dataset):
  """The card of a data set."""
  points = ()
  if tuple(dataset.shape) == (2,):
    batch = dataset.batch(0, 0, MAX_POINTS)
    points = np.asarray(dataset.to_float(batch["x"]), np.float64).round(4)
    points = tuple(map(tuple, points.tolist()))
  return Card(
    tuple(map(int, dataset.shape)),
    int(dataset.num_classes),
    tuple(getattr(dataset, "class_names", ())),
    points,
    conditions=conditions.of(dataset),
  )


def read(workdir):
  """The card in a workdir, or None where there is none.

  Raises:
    Refusal: it cannot be read.
  """
  path = paths.join(workdir, DATA)
  try:
    known = unseal(paths.read(path))
    return Card(
      tuple(map(int, known["shape"])),
      int(known["num_classes"]),
      tuple(map(str, known["class_names"])),
      tuple(map(tuple, known["points"])),
      dict(known.get("found", {})),
      {
        str(name): conditions.Condition(**one)
        for name, one in known.get("conditions", {}).items()
      },
    )
  except FileNotFoundError:
    return None
  except OSError as error:
    raise Refusal(f"{path} cannot be read: {paths.reason(error)}") from error
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise Refusal(f"{path} cannot be read: {error}") from error
