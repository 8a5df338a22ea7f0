"""Series and vectors as lines: (n, length, channels) or (n, d)."""

import numpy as np

from diffflow_jax.plots.figures import plain, save, subplots

MOST = 25  # samples, each in a panel of its own
OVERLAID = 6  # in one panel


def save_series(path, x, labels=None, names=(), beside=None):
  """Writes samples as a PNG: a panel for each, a line for each channel.

  Numbers (n, 1) are a histogram.

  Args:
    x: (n, length, channels), or (n, d) as series of one channel; labels: (n,)
      or None; names: of the classes.
    beside: {name: (n, length, channels)} that they were drawn under, dashed.
  """
  x = np.asarray(x, np.float32)
  if x.shape[1:] == (1,):
    figure, ax = subplots(figsize=(4, 4))
    ax.hist(x[:, 0], bins="auto")
    ax.set(xlabel="value", ylabel="samples")
    save(figure, path, 120)
    return
  x = x if x.ndim == 3 else x[..., None]
  num = min(MOST, len(x))
  columns = int(np.ceil(np.sqrt(num)))
  rows = -(-num // columns)
  figure, axes = subplots(
    rows, columns, figsize=(1 + 2.2 * columns, 1 + 1.5 * rows),
    sharex=True, sharey=True, squeeze=False,
  )  # fmt: skip
  for i, ax in enumerate(axes.ravel()):
    if i >= num:
      ax.set_axis_off()
      continue
    for k, (name, value) in enumerate((beside or {}).items()):
      line = dict(color=str(0.3 + 0.4 * (k % 2)), ls="--", lw=1)
      for j, channel in enumerate(np.asarray(value)[i].T):
        ax.plot(channel, **line, label=None if i or j else name)
    for j, channel in enumerate(x[i].T):
      ax.plot(channel, color=f"C{j}", lw=1)
    if labels is not None:
      label = int(labels[i])
      known = label < len(names)
      name = plain(str(names[label])[:24]) if known else label
      ax.set_title(name, fontsize=8)
  some = f"{num} of {len(x)} samples" if num < len(x) else f"{num} samples"
  figure.supxlabel(f"index, {some}", fontsize=9)
  if beside:
    figure.legend(loc="outside upper center", ncols=3, fontsize=8)
  save(figure, path, 100)


def overlaid(ax, x, beside=None):
  """The first examples of (n, length, channels) or (n, d) in one panel."""
  x = x if x.ndim == 3 else x[..., None]
  marker = "." if x.shape[1] == 1 else None
  for i, example in enumerate(x[:OVERLAID]):
    ax.plot(example, color=f"C{i}", lw=1, marker=marker)
    for value in (beside or {}).values():
      ax.plot(value[i], color=f"C{i}", lw=1, ls="--")
