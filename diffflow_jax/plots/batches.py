"""A batch as the network sees it: what to look at before training on it."""

import textwrap

import numpy as np

from diffflow_jax.plots.figures import subplots

AS_PICTURES = (1, 3)  # channels that an eye can see as one
MOST_ROWS = 7  # that leave room for a name below each
GROUND = 0.85  # between the pictures: neither black nor white


def save_batch(path, x, labels=None, class_names=(), title=None):
  """Writes a batch, with the histogram of its values beside it, as a PNG.

  Pictures are shown with -1 black and 1 white, and so are the channels of
  latents, one beside the other; points are scattered, series drawn as lines, of
  volumes the middle slice is taken.

  Args:
    x: (n, ...) floats as the network gets them; labels: (n,), or None.
    class_names: of the labels; their numbers if ().
    title: one line, or None.
  """
  x = np.asarray(x, np.float32)
  figure, (left, right) = subplots(1, 2, figsize=(10, 6.5), width_ratios=(3, 1))
  if x.ndim == 2 and x.shape[1] == 2:
    _points(left, x, labels, class_names)
  elif x.ndim in (2, 3):
    _series(left, x if x.ndim == 3 else x[..., None])
  else:
    while x.ndim > 4:  # volumes, videos: the middle slice
      x = x[:, x.shape[1] // 2]
    _pictures(left, x, labels, class_names)
  _histogram(right, x)
  if title:
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=9)
  figure.savefig(path, dpi=110)


def _pictures(ax, x, labels, class_names):
  """A grid of tiles; channels that no eye sees as one lie side by side."""
  n, h, w, c = x.shape
  if c not in AS_PICTURES:
    x = np.pad(x.transpose(0, 1, 3, 2), ((0, 0),) * 3 + ((0, 1),))
    x = x.reshape(n, h, c * (w + 1), 1)[:, :, :-1]
  tall, wide = x.shape[1:3]
  columns = max(1, round(np.sqrt(n * tall / wide)))
  x = x[: MOST_ROWS * columns]
  rows = -(-len(x) // columns)
  gap_x, gap_y = max(1, wide // 16), max(1, tall // 4)
  shape = (rows * (tall + gap_y), columns * (wide + gap_x), x.shape[-1])
  picture = np.full(shape, GROUND, np.float32)
  for i, tile in enumerate(x):
    top, left = i // columns * (tall + gap_y), i % columns * (wide + gap_x)
    shown = np.clip(0.5 * (tile + 1.0), 0.0, 1.0)
    picture[top : top + tall, left : left + wide] = np.nan_to_num(shown)
    if labels is not None:
      ax.text(
        left + wide / 2, top + tall + 0.45 * gap_y,
        _name(labels[i], class_names), ha="center", va="center",
        fontsize=max(4, min(8, 60 // columns)),
      )  # fmt: skip
  # NaN and values beyond the scale are seen in the histogram's title
  one = picture.shape[-1] == 1
  ax.imshow(
    picture[..., 0] if one else picture, cmap="gray", vmin=0, vmax=1,
    interpolation="nearest",
  )  # fmt: skip
  ax.set_axis_off()


def _name(label, class_names):
  known = 0 <= label < len(class_names)
  return str(class_names[label])[:12] if known else str(label)


def _points(ax, x, labels, class_names):
  if labels is None:
    ax.scatter(*x.T, s=4)
  else:
    for label in np.unique(labels)[:20]:
      some = x[labels == label]
      ax.scatter(*some.T, s=4, label=_name(label, class_names))
    ax.legend(markerscale=3, fontsize=8)
  ax.set_aspect("equal")


def _series(ax, x):
  """A few examples (length, channels) as lines."""
  for i, example in enumerate(x[:6]):
    ax.plot(example, color=f"C{i}", lw=1)
  ax.set_xlabel("index")
  ax.set_ylabel(f"value, {min(6, len(x))} examples")


def _histogram(ax, x):
  """How often each value is there; what is no number, and what is far out."""
  finite = x[np.isfinite(x)]
  if finite.size:
    ax.hist(finite.ravel(), bins=64, color="0.4")
  for limit in (-1.0, 1.0):
    ax.axvline(limit, color="C3", lw=0.8, ls="--")
  lost = x.size - finite.size
  beyond = float(np.mean(np.abs(finite) > 1.0)) if finite.size else 0.0
  ax.set_title(
    f"values: {beyond:.1%} beyond ±1" + (f", {lost} NaN or inf" * (lost > 0)),
    fontsize=9,
  )
  ax.set_yticks([])
