"""What metrics of a run need beside samples: features, and what to compare."""

from diffflow_jax import evaluation
from diffflow_jax.cli import Refusal
from diffflow_jax.scoring.reference import Reference


def features_of(spec, run):
  """The `Features` of a text, or of a function that makes them.

  Args:
    spec: as `evaluation.features_of` has it; pixels, or coordinates, if None.
  Raises:
    Refusal: there are no such features for the run's data.
  """
  if callable(spec):
    return spec
  try:
    return evaluation.features_of("pixels" if spec is None else spec, run.card)
  except ValueError as error:
    raise Refusal(f"{run.say('features')}: {error}") from error


def references(run, metrics, features, spec, cache):
  """(Reference, own): what is compared with, and what `score` calls own.

  Args:
    spec, cache: as of `Reference.of`.
  """
  statistics_do = isinstance(spec, str) and spec.endswith(".npz")
  keep = not statistics_do or any("rows" in m.needs for m in metrics)
  of = lambda spec, keep=True: Reference.of(
    run.recipe, features, spec, cache=cache, keep=keep, say=run.say
  )
  compared = of(spec, keep)
  if not any(m.name in ("memorisation", "bpd") for m in metrics):
    return compared, None
  train = compared if compared.name == "train" else of("train")
  return compared, (
    train,
    of("held_out") if run.config.get("held_out") else None,
  )
