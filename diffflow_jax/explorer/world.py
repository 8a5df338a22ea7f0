"""What the page knows beside tables: its data, schedules and recipes as curves.

    schedules    the angle phi = atan(sigma/alpha) at times t, exact at the ends
densities    log p(logsnr), weightings log w(logsnr), on one line of logsnr
mixture      two classes of three Gaussians in the plane
"""

import numpy as np

from diffflow_jax.objective import objectives
from diffflow_jax.process import levels, schedules

TIMES = np.linspace(0.0, 1.0, 161)
LOGSNR = np.linspace(-15.0, 15.0, 241)

SCHEDULES = {
  "flow matching": schedules.Flow,
  "cosine": schedules.Cosine,
  "VP linear (DDPM)": schedules.VPLinear,
  "shifted by 3 (SD3)": lambda: schedules.Shift(schedules.Flow(), 3.0),
  "Karras (EDM)": lambda: schedules.Karras(0.002, 80.0),
}
RECIPES = (
  "ddpm",
  "vdm",
  "v_diffusion",
  "edm",
  "flow_matching",
  "sd3",
  "simple_diffusion",
)
STD = 0.22  # of each Gaussian of the data


def mixture():
  """(weights, means, stds, classes): six Gaussians, in two classes."""
  angle = np.arange(6) * np.pi / 3 + np.pi / 6
  means = 1.6 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  return np.full(6, 1 / 6), means, np.full(6, STD), np.arange(6) % 2


def _schedule(schedule):
  lv = levels.level(schedule, levels.vp, TIMES)
  return np.arctan2(np.asarray(lv.sigma), np.asarray(lv.alpha))


def _recipe(name):
  """A recipe's density and weighting along LOGSNR, as logarithms."""
  made = objectives.make(name)
  log_p = np.asarray(made.density.log_prob(LOGSNR), np.float64)
  log_w = np.asarray(made.weighting(LOGSNR), np.float64)
  # JSON has no infinity: e^-60 is nothing on a curve
  return {
    "log_p": np.maximum(log_p, -60.0),
    "log_w": np.maximum(log_w, -60.0),
  }


def describe():
  """All of it, in numbers and names that JSON has."""
  weights, means, stds, classes = mixture()
  return {
    "times": TIMES,
    "logsnr": LOGSNR,
    "schedules": {k: _schedule(make()) for k, make in SCHEDULES.items()},
    "recipes": {name: _recipe(name) for name in RECIPES},
    "mixture": {
      "weights": weights,
      "means": means,
      "stds": stds,
      "classes": classes,
    },
  }
