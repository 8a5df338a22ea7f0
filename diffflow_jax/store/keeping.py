"""Which checkpoints of a run stay: the newest, every n-th, and the best."""

import json
import logging

from diffflow_jax.store import seals

log = logging.getLogger("diffflow_jax")


def kept(losses, latest, every, best):
  """The steps of {step: loss or None} that stay."""
  steps = sorted(losses)
  if latest is None:
    return set(steps)
  of_loss = [s for s in steps if losses[s] is not None]
  lowest = sorted(of_loss, key=lambda step: (losses[step], -step))[:best]
  nth = [step for step in steps if every and step % every == 0]
  return {*steps[len(steps) - min(latest, len(steps)) :], *nth, *lowest}


def loss_of(path, by=None):
  """The loss that a checkpoint was saved with, or None.

  Args:
    by: what the loss is of; another one is none.
  """
  try:
    if (path / seals.CHECKSUMS).exists():
      said = seals.read(path)
      return said["loss"] if said["by"] == by else None
    return float(json.loads((path / "metrics/metrics").read_text())["loss"])
  except FileNotFoundError:  # an older version, which saved without a loss
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    log.warning(
      "the loss of checkpoint %s cannot be read: %s", path.name, error
    )
    return None
