"""Curves over the log-SNR axis: schedules, densities, weightings.

Each function takes {name: thing}, draws into `ax` (a new one if None) and
returns it. Data is on the right of the axis and noise on the left.
"""

import numpy as np

from diffflow_jax.plots.figures import subplots

LOGSNR = np.linspace(-15.0, 15.0, 601)


def _axis(ax, xlabel, ylabel):
  if ax is None:
    _, ax = subplots(figsize=(6.0, 3.6))
  ax.set(xlabel=xlabel, ylabel=ylabel)
  return ax


def plot_schedules(schedules, ax=None):
  """logsnr(t) of each schedule, within |logsnr| <= 15."""
  ax = _axis(ax, "t (0 data, 1 noise)", "logsnr")
  t = np.linspace(0.0, 1.0, 401)
  for name, schedule in schedules.items():
    ax.plot(t, np.asarray(schedule.logsnr(t)), label=name)
  ax.set_ylim(-15.0, 15.0)
  ax.legend(fontsize="small")
  return ax


def plot_densities(densities, ax=None, logsnr=LOGSNR):
  """p(logsnr) of each density."""
  ax = _axis(ax, "logsnr", "density of levels")
  for name, density in densities.items():
    ax.plot(logsnr, np.exp(density.log_prob(logsnr)), label=name)
  ax.set_ylim(bottom=0.0)
  ax.legend(fontsize="small")
  return ax


def plot_weightings(weightings, ax=None, logsnr=LOGSNR):
  """w(logsnr) of each weighting on a log axis, 1 at logsnr = 0.

  A weighting is a function logsnr -> log w; its constant has no meaning of its
  own, so each is divided by its value at logsnr = 0 (if it has one).
  """
  ax = _axis(ax, "logsnr", "weighting, 1 at logsnr = 0")
  for name, weighting in weightings.items():
    at_0 = float(weighting(np.zeros(())))
    log_w = np.asarray(weighting(logsnr)) - (at_0 if np.isfinite(at_0) else 0.0)
    ax.semilogy(logsnr, np.exp(log_w), label=name)
  ax.set_ylim(1e-5, 1e5)
  ax.legend(fontsize="small")
  return ax
