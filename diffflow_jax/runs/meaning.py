"""What makes the same arrays another function.

Parameters whose names and shapes fit may still mean another thing: an output
that is eps, read as v, is a mistake that nothing would show.
"""

import json

import numpy as np

from diffflow_jax.process import levels


def differences(source, known, run):
  """Sentences on what makes the same arrays another function."""
  theirs, ours = known.config.objective, run.config.objective
  if not np.allclose(
    output(known.objective),
    output(run.objective),
    rtol=1e-3,
    equal_nan=True,
  ):
    yield (
      f"config.objective = {_text(ours)} reads the network's output in another "
      f"way than {_text(theirs)}, with which {source} was trained: the first "
      "steps unlearn it"
    )
  theirs, ours = dict(known.config.network), dict(run.config.network)
  other = [
    f"{key} {theirs.get(key)} -> {ours.get(key)}"
    for key in sorted(theirs.keys() | ours.keys())
    if theirs.get(key) != ours.get(key)
  ]
  if other:
    yield f"config.network differs from that of {source}: {', '.join(other)}"


def _text(section):
  return json.dumps(section.to_dict())


def output(objective):
  """What the output is of x and eps, and how large z is, over the levels."""
  logsnr = np.linspace(-8.0, 8.0, 9)
  lv = levels.at_logsnr(objective.scale, logsnr, objective.schedule)
  row = objective.target(lv)
  return np.stack([np.broadcast_to(v, 9) for v in (lv.alpha, lv.sigma, *row)])
