"""Figures of the way from noise to data, from what `sample` kept of it."""

from typing import Any, NamedTuple

import numpy as np

from diffflow_jax.plots import lettering, series
from diffflow_jax.plots.class_grid import MARGIN, class_grid, join
from diffflow_jax.plots.figures import subplots

HOLD = 2.0  # seconds, of the last frame
SIDE = 400  # pixels, of a panel of an animation at least
DPI = 100


class Frames(NamedTuple):
  """What a sampler saw, and what it made of it.

  Attributes:
    z, x_hat: (frames, n, 2) points, or (frames, n, h, w, c) images in [-1, 1],
      or videos with one more axis; or series (frames, n, length, c).
    labels: (n,) classes of images, or None; names: of the classes.
  """

  z: Any
  x_hat: Any
  labels: Any = None
  names: Any = ()


def strip(frames, titles):
  """All frames beside each other, z above x̂, as pixels (H, W, 1 or 3)."""
  side = SIDE // 2
  columns = [
    _titled(title, join(pair, 0, MARGIN))
    for title, pair in zip(titles, _panels(frames, side), strict=True)
  ]
  return _sided("z", "x̂", join(columns, 1, MARGIN))


def save(path, frames, titles, frames_per_second=8):
  """Writes the trajectory: a strip to .png, an animation to .gif.

  Args:
    frames: a `Frames`; titles: one string a frame, as the log-SNR.
  Raises:
    ValueError: the name ends in neither.
  """
  path = str(path)
  if path.endswith(".png"):
    _image(strip(frames, titles)).save(path)
  elif path.endswith(".gif"):
    images = [
      _image(join([_titled(f"z, {title}", z), _titled("x̂", x)], 1, 2 * MARGIN))
      for title, (z, x) in zip(titles, _panels(frames, SIDE), strict=True)
    ]
    times = [round(1000 / frames_per_second)] * (len(images) - 1)
    images[0].save(
      path,
      save_all=True,
      append_images=images[1:],
      duration=[*times, round(1000 * HOLD)],
      loop=0,
    )
  else:
    raise ValueError(f"a trajectory is written to .png or .gif, not {path!r}")


def _panels(frames, side):
  """[(z, x̂)] of every frame as pixels, at least `side` wide."""
  both = np.stack([frames.z, frames.x_hat], axis=1)
  if both.ndim < 6:
    limit = float(np.quantile(np.abs(both), 0.999)) * 1.1
    kind = _points if both.shape[3:] == (2,) else _lines
    one = lambda examples: kind(examples, limit, side)
  else:
    small = side < SIDE
    one = lambda images: class_grid(
      images,
      frames.labels,
      () if small else frames.names,
      min_width=side,
      max_width=2 * side,
      min_side=1 if small else 32,
    )
  return [[one(panel) for panel in pair] for pair in both]


def _points(points, limit, side):
  """A scatter plot with equal axes as pixels (side, side, 3)."""
  fig, ax = subplots(figsize=(side / DPI, side / DPI))
  ax.scatter(points[:, 0], points[:, 1], s=3, lw=0, alpha=0.6)
  ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
  return _pixels(fig, ax)


def _lines(x, limit, side):
  """A few series, or vectors, as lines: pixels (side, side, 3)."""
  fig, ax = subplots(figsize=(side / DPI, side / DPI))
  series.overlaid(ax, x)
  ax.set_ylim(-limit, limit)
  return _pixels(fig, ax)


def _pixels(fig, ax):
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  ax.set_xticks([])
  ax.set_yticks([])
  canvas = FigureCanvasAgg(fig)
  fig.set_dpi(DPI)
  canvas.draw()
  return np.array(canvas.buffer_rgba())[..., :3]


def _titled(title, picture):
  """The picture with words above, in the middle."""
  words = lettering.draw(title)[..., None]
  missing = max(picture.shape[1] - words.shape[1], 0)
  sides = (missing // 2, missing - missing // 2)
  words = np.pad(words, ((4, 0), sides, (0, 0)), constant_values=255)
  return join([words, picture], 0, 2)


def _sided(upper, lower, picture):
  """The picture with words left of its upper and of its lower half."""
  top = picture.shape[0] // 4
  words = [lettering.draw(w)[..., None] for w in (upper, lower)]
  side = np.full((picture.shape[0], max(w.shape[1] for w in words), 1), 255)
  for i, word in enumerate(words):
    at = (1 + 2 * i) * top
    side[at : at + word.shape[0], : word.shape[1]] = word
  side = np.pad(
    side.astype(np.uint8), ((0, 0), (MARGIN, 0), (0, 0)), constant_values=255
  )
  return join([side, picture], 1, 0)


def _image(picture):
  from PIL import Image  # comes with matplotlib

  picture = picture.squeeze(-1) if picture.shape[-1] == 1 else picture
  return Image.fromarray(np.ascontiguousarray(picture))
