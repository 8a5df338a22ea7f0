"""Samples in the plane as a scatter plot."""

import numpy as np

from diffflow_jax.plots.figures import subplots


def save_points(path, points, reference=None, title=None):
  """Writes points (n, 2) as a PNG, over reference points in grey."""
  figure, axes = subplots(figsize=(4, 4))
  both = points if reference is None else np.concatenate([points, reference])
  if reference is not None:
    axes.scatter(*np.asarray(reference).T, s=2, c="0.8", label="data")
  axes.scatter(*np.asarray(points).T, s=2, c="C0", label="samples")
  reach = 1.1 * np.quantile(np.abs(both), 0.999)
  axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
  axes.set_title(title)
  axes.legend(loc="upper right", markerscale=4)
  figure.savefig(path, dpi=120)
