"""The features that an evaluation asks for."""

from diffflow_jax.cli import Refusal
from diffflow_jax.scoring import pixels


def settled(spec, run):
  """Features of a text, or what is one already; pixels if None.

  Raises:
    Refusal: it names none, or none for the run's data.
  """
  if callable(spec):
    return spec
  try:
    return pixels.features_of("pixels" if spec is None else spec, run.card)
  except ValueError as error:
    raise Refusal(f"{run.say('features')}: {error}") from error
