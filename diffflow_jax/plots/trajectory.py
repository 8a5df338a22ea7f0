"""Figures of the way from noise to data, from what `sample` kept of it."""

import numpy as np

from diffflow_jax.plots.figures import subplots
from diffflow_jax.plots.images import image_grid


def _draw(ax, frame, limit):
  if np.ndim(frame) == 2:  # points (n, 2)
    ax.scatter(frame[:, 0], frame[:, 1], s=2, lw=0, alpha=0.6)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
  else:
    picture = image_grid(frame)
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
  ax.set_xticks([])
  ax.set_yticks([])


def _limit(frames):
  return float(np.quantile(np.abs(np.asarray(frames)), 0.999)) * 1.1


def strip(frames, labels=None):
  """All frames side by side.

  Args:
    frames: (frames, n, 2) points, or (frames, n, h, w, c) images in [-1, 1].
    labels: one string a frame, as the log-SNR.
  Returns:
    A Figure.
  """
  fig, axes = subplots(
    1, len(frames), figsize=(1.8 * len(frames), 2.0), squeeze=False
  )
  for i, ax in enumerate(axes[0]):
    _draw(ax, frames[i], _limit(frames))
    if labels is not None:
      ax.set_title(labels[i], fontsize=8)
  return fig


def save(path, frames, labels=None, frames_per_second=8):
  """Writes the trajectory: a strip to .png, an animation to .gif.

  Raises:
    ValueError: the name ends in neither.
  """
  path = str(path)
  if path.endswith(".png"):
    fig = strip(frames, labels)
    fig.savefig(path, dpi=120)
  elif path.endswith(".gif"):
    from matplotlib.animation import FuncAnimation, PillowWriter

    fig, ax = subplots(figsize=(4, 4))

    def show(i):
      ax.clear()
      _draw(ax, frames[i], _limit(frames))
      if labels is not None:
        ax.set_title(labels[i], fontsize=8)

    FuncAnimation(fig, show, frames=len(frames)).save(
      path, writer=PillowWriter(fps=frames_per_second)
    )
  else:
    raise ValueError(f"a trajectory is written to .png or .gif, not {path!r}")
