"""What makes the same arrays another function.

Parameters whose names and shapes fit may still mean another thing: an output
that is eps, read as v, is a mistake that nothing would show.
"""

import json

import numpy as np

from diffflow_jax.process import levels


def differences(source, known, run):
  """Sentences on what of two Recipes lets the same arrays mean another thing.

  Args:
    source: what the other run is called; known: its Recipe; run: the new one's.
  """
  theirs, ours = (json.loads(r.config.to_json()) for r in (known, run))
  one, two = output(known.objective), output(run.objective)
  if not np.allclose(one, two, rtol=1e-3, equal_nan=True):
    yield (
      f"config.objective = {json.dumps(ours['objective'])} reads the network's "
      f"output in another way than {json.dumps(theirs['objective'])}, with "
      f"which {source} was trained: training has to turn it"
    )
  one, two = known.card.conditions, run.card.conditions
  for name in one.keys() & two.keys():
    if one[name] != two[name]:
      yield (
        f"the condition {name} is {two[name]}, and in {source} it was "
        f"{one[name]}"
      )
  theirs, ours = theirs["network"], ours["network"]
  other = [
    f"{key} {theirs.get(key)} -> {ours.get(key)}"
    for key in sorted(theirs.keys() | ours.keys())
    if theirs.get(key) != ours.get(key)
  ]
  if other:
    yield f"config.network differs from that of {source}: {', '.join(other)}"


def output(objective):
  """(4, levels): how z and the network's output are made of x and eps.

  (alpha, sigma) and the target's (a, b) at levels from noise to data: two
  objectives with equal ones read the same network in the same way.
  """
  logsnr = np.linspace(-8.0, 8.0, 9)
  lv = levels.at_logsnr(objective.scale, logsnr, objective.schedule)
  row = objective.target(lv)
  return np.stack([np.broadcast_to(v, 9) for v in (lv.alpha, lv.sigma, *row)])
