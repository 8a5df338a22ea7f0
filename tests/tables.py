"""One table of each kind: a new entry inherits every property test."""

import numpy as np

from diffflow_jax.process import levels, schedules, targets

SCHEDULES = {
  "cosine": schedules.Cosine(),
  "flow": schedules.Flow(),
  "karras": schedules.Karras(),
}
SCALES = {
  "vp": levels.vp,
  "ve": levels.ve,
  "linear": levels.linear,
  "unit": levels.Unit(0.5),
}
TARGETS = dict(targets.TARGETS, F2=targets.F(2.0))

# logsnr at t = 0.25, 0.5, 0.75 by the closed forms of MATH.md 1.4, 1.10, 1.12
GOLDEN_LOGSNR = {
  "cosine": -2.0 * np.log(np.tan(np.pi / 2 * np.array([0.25, 0.5, 0.75]))),
  "flow": 2.0 * np.log(np.array([3.0, 1.0, 1.0 / 3.0])),
  "karras": np.array([3.546825, -1.844720, -5.727580]),
}
