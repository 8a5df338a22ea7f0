"""Where a flow map was taught to go, and what is refused of its way.

"any"      to any cleaner level, and to its own: a denoiser too
"other"    to cleaner levels only
"data"     to the data only, as consistency models
"""

import numpy as np

from diffflow_jax.process import host, nodes

REACHES = ("any", "other", "data")
SLACK = 1e-4  # of a logsnr at the schedule's end: float32's digits


def check_reaches(reaches):
  """Refuses what is none of the words above.

  Raises:
    ValueError: it lists them.
  """
  if reaches not in REACHES:
    raise ValueError(
      f"reaches must be one of {', '.join(REACHES)}, not {reaches!r}"
    )


def goes_elsewhere(lv):
  """Whether a Level's `to` is another level, as far as it is known."""
  if lv.to is None or not nodes.concrete(lv.logsnr, lv.to):
    return lv.to is not None
  return bool(np.any(np.asarray(lv.to) != np.asarray(lv.logsnr)))


def check(reaches, lv, schedule=None):
  """Refuses a way that a flow map was never taught; a traced one passes.

  Args:
    lv: the Level that it is called at; schedule: that it was trained on, whose
      clean end is the data to it.
  Raises:
    ValueError: it says what to do instead.
  """
  if reaches == "any":
    return
  known = lv.to is not None and nodes.concrete(lv.logsnr, lv.to)
  stays = known and np.any(np.asarray(lv.to) <= np.asarray(lv.logsnr))
  if lv.to is None or stays:
    raise ValueError(
      "this flow map was never taught to denoise, only to go to a cleaner "
      "level: sample it by solvers.flow_map, not by a solver of denoisers"
    )
  if reaches == "other" or not known or not nodes.concrete(schedule):
    return
  data = np.inf
  if schedule is not None:
    data = host.evaluate64(lambda s: s.logsnr(0.0), schedule) - SLACK
  short = np.asarray(lv.to)[np.asarray(lv.to) < data]
  if short.size:
    raise ValueError(
      "this flow map was taught to go to the data only, not to logsnr = "
      f"{short.flat[0]:g}: sample it by solvers.flow_map with gamma = 1, or in "
      "one step"
    )


def check_start(told, x_of_y):
  """Refuses a start of a flow map at which its row says nothing of x.

  Args:
    told: (logsnr, to); x_of_y: the factor of y in x̂, as `targets.solve` has it.
  Raises:
    ValueError: it says which targets do.
  """
  lost = (told[1] > told[0]) & (x_of_y == 0.0)
  if lost.any():
    at = np.broadcast_to(told[0], lost.shape)[lost].flat[0]
    raise ValueError(
      "a flow map cannot start where its target says nothing of x, as eps and "
      f"score at pure noise, and here at logsnr = {at:g}: train x, v, u, flow "
      "or F, or start the grid at a cleaner level"
    )
