"""Image samples by class: a column for each, its name above.

columns   the classes that occur, in order; where there are many, in bands
          below each other; a class of very many samples has several columns
tiles     a sample; frames of a video in a row; what a sample was drawn under
          before it, where that is a picture
zoom      whole numbers, so that every pixel stays a square
"""

import math

import numpy as np

from diffflow_jax.plots import lettering, tiles

MAX_COLUMNS = 10  # side by side, unless the picture is then too high
MARGIN = 8


def to_pixels(images):
  """Images (n, h, w, c) in [-1, 1] as uint8; NaN is grey.

  One channel is grey and three are colours; of others the first are shown.
  """
  images = np.asarray(images, np.float32)
  shown = 3 if images.shape[-1] >= 3 else 1
  scaled = np.clip((images[..., :shown] + 1.0) * 127.5, 0, 255)
  return np.round(np.nan_to_num(scaled, nan=128.0)).astype(np.uint8)


def class_grid(
  images,
  labels=None,
  names=(),
  beside=None,
  *,
  min_width=400,
  max_width=1400,
  min_side=32,
):
  """One uint8 picture (H, W, 1 or 3); an image's pixels are squares of it.

  Args:
    images: (n, h, w, c) in [-1, 1], n >= 1, or (n, t, h, w, c); labels: (n,)
      integers, or None for a square without names; names: of the classes 0, 1,
      2, …; a class beyond them has its number.
    beside: {name: images of the same sides} to stand before them.
    min_width: of the picture in pixels; min_side: of an image; larger ones, up
      to max_width, are chosen for names that need it to stand in lines.
  """
  beside = beside or {}
  parts = [to_pixels(tiles.flat(p)) for p in (*beside.values(), images)]
  n, h, w, _ = parts[0].shape
  axis = tiles.stack_axis(h, w)
  shape = [h, w]  # of a tile, before the zoom
  shape[axis] *= len(parts)
  members = _members(labels, n)
  most = max(len(m) for m in members.values())
  ratio = shape[0] / shape[1]
  across = max(1, round(math.sqrt(ratio * most / len(members))))
  bands = _bands(list(members), -(-most // across), across, ratio)
  columns = len(bands[0]) * across
  titles = [] if labels is None else [_name(k, names) for k in members]
  zoom = max(-(-min_width // (columns * shape[1])), -(-min_side // min(h, w)))
  for_names = -(-lettering.needed(titles) // (across * shape[1]))
  if for_names * columns * shape[1] <= max_width:
    zoom = max(zoom, for_names)
  within = max(2, min(h, w) * zoom // 16)
  gap = within if len(parts) == 1 and np.ndim(images) == 4 else 3 * within
  large = [part.repeat(zoom, axis=1).repeat(zoom, axis=2) for part in parts]
  whole = [join(pair, axis, within) for pair in zip(*large, strict=True)]
  blocks = {
    kind: _tiled([whole[i] for i in m], across, gap)
    for kind, m in members.items()
  }
  if titles:
    width = across * (whole[0].shape[1] + gap) - gap
    pictures = lettering.headings(titles, width)
    blocks = {
      kind: _below(title, blocks[kind], gap)
      for kind, title in zip(members, pictures, strict=True)
    }
  apart = gap if across == 1 else 3 * gap
  rows = [join([blocks[kind] for kind in band], 1, apart) for band in bands]
  if beside:
    words = tiles.legend([*beside, "sample"], axis)
    rows = [lettering.draw(words)[..., None], *rows]
  return np.pad(
    join(rows, 0, MARGIN),
    ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)),
    constant_values=255,
  )


def join(pictures, axis, gap):
  """Pictures (h, w, c) in a row (axis 1) or a column (axis 0), white between.

  Shorter ones are filled with white at their right or lower end.
  """
  other = 1 - axis
  size = max(p.shape[other] for p in pictures)
  channels = max(p.shape[2] for p in pictures)
  parts = []
  for p in pictures:
    missing = [(0, 0), (0, 0), (0, 0)]
    missing[other] = (0, size - p.shape[other])
    missing[axis] = (gap if parts else 0, 0)
    p = np.pad(p, missing, constant_values=255)
    parts.append(np.broadcast_to(p, (*p.shape[:2], channels)))
  return np.concatenate(parts, axis)


def _members(labels, n):
  """{class: indices of its samples}, in the order of the classes."""
  if labels is None:
    return {None: np.arange(n)}
  labels = np.asarray(labels)
  return {int(k): np.flatnonzero(labels == k) for k in np.unique(labels)}


def _bands(kinds, rows, across, ratio):
  """The classes in lists of about equal length: one to MAX_COLUMNS classes.

  Fewer where a tile's height is only a ratio of its width.
  """
  square = math.ceil(math.sqrt(ratio * len(kinds) * rows / across))
  length = max(1, int(MAX_COLUMNS * min(ratio, 1.0)), square)
  length = -(-len(kinds) // -(-len(kinds) // length))
  return [kinds[i : i + length] for i in range(0, len(kinds), length)]


def _tiled(pictures, across, gap):
  """Pictures row by row, `across` in a row."""
  rows = [
    join(pictures[i : i + across], 1, gap)
    for i in range(0, len(pictures), across)
  ]
  return join(rows, 0, gap)


def _name(kind, names):
  return str(names[kind]) if kind < len(names) else str(kind)


def _below(title, block, gap):
  """The block with its title above, in the middle."""
  width = max(block.shape[1], title.shape[1])
  left = (width - title.shape[1]) // 2
  right = width - title.shape[1] - left
  title = np.pad(title, ((0, 0), (left, right)), constant_values=255)
  return join([title[..., None], block], 0, max(gap, 4))
