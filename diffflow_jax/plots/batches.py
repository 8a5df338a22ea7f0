"""A batch as the network sees it: what to look at before training on it."""

import textwrap

import numpy as np

from diffflow_jax.plots import series, tiles
from diffflow_jax.plots.figures import plain, save, subplots

AS_PICTURES = (1, 3)  # channels that an eye can see as one
MOST_ROWS = 7  # that leave room for a name below each
GROUND = 0.5 * (tiles.GAP + 1.0)  # between the pictures


def save_batch(path, x, labels=None, class_names=(), title=None, beside=None):
  """Writes a batch, with the histogram of its values beside it, as a PNG.

  Pictures are shown with -1 black and 1 white, and so are the channels of
  latents, one beside the other; points are scattered, series drawn as lines,
  frames of videos and slices of volumes stand in a row.

  Args:
    x: (n, ...) floats as the network gets them; labels: (n,), or None.
    class_names: of the labels; their numbers if ().
    title: one line, or None.
    beside: {name: images on x's grid} that come with x, before its pictures;
      dashed where x is lines.
  """
  x = np.asarray(x, np.float32)
  figure, (left, right) = subplots(1, 2, figsize=(10, 6.5), width_ratios=(3, 1))
  if x.ndim == 2 and x.shape[1] == 2:
    _points(left, x, labels, class_names)
  elif x.ndim in (2, 3):
    series.overlaid(left, x, beside)
    if beside:
      left.set_title(f"dashed: {', '.join(beside)}", fontsize=9)
    some = min(series.OVERLAID, len(x))
    left.set(xlabel="index", ylabel=f"value, {some} examples")
  else:
    joined = _joined(left, x, beside or {})
    _pictures(left, joined, labels, class_names, 3 if beside else 1)
  _histogram(right, x)
  if title:
    figure.suptitle("\n".join(textwrap.wrap(title, 110)), fontsize=9)
  save(figure, path, 110)


def _joined(ax, x, beside):
  """x as tiles (n, h, w, c), each after what is beside it."""
  parts = [_visible(np.nan_to_num(p, nan=tiles.GAP)) for p in beside.values()]
  parts.append(_visible(x))
  if not beside:
    return parts[0]
  h, w = parts[-1].shape[1:3]
  alike = len({p.shape[2] for p in parts}) == 1
  axis = tiles.stack_axis(h, w) if alike else 1
  ax.set_title(tiles.legend([*beside, "x"], axis), fontsize=9)
  channels = max(p.shape[3] for p in parts)
  whole = [np.broadcast_to(p, (*p.shape[:3], channels)) for p in parts]
  return tiles.in_a_row(whole, 1 + axis, max(1, min(h, w) // 16))


def _visible(x):
  """Flat pictures; channels that no eye sees as one lie side by side."""
  x = tiles.flat(x)
  if x.shape[-1] in AS_PICTURES:
    return x
  return tiles.in_a_row(np.moveaxis(x, -1, 0)[..., None])


def _pictures(ax, x, labels, class_names, apart):
  """A grid of tiles (n, h, w, 1 or 3), their names below."""
  n = len(x)
  tall, wide = x.shape[1:3]
  columns = max(1, round(np.sqrt(n * tall / wide)))
  x = x[: MOST_ROWS * columns]
  rows = -(-len(x) // columns)
  gap_x, gap_y = apart * max(1, wide // 16), max(1, tall // 4)
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
  return plain(str(class_names[label])[:12]) if known else str(label)


def _points(ax, x, labels, class_names):
  if labels is None:
    ax.scatter(*x.T, s=4)
  else:
    for label in np.unique(labels)[:20]:
      some = x[labels == label]
      ax.scatter(*some.T, s=4, label=_name(label, class_names))
    ax.legend(markerscale=3, fontsize=8)
  ax.set_aspect("equal")


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
