"""Inception in NumPy, written down apart from ours, and weights for it.

arXiv:1512.00567 figs. 5 to 7 and table 1, with what the graph of 2015 changed.
"""

import numpy as np

# name: (channels out, in, height, width) is all that a convolution is here
rng = np.random.default_rng(0)


def _mixed(name, channels, branches):
  """{name of convolution: shape} of lists of (name, out, (height, width))."""
  found = {}
  for branch in branches:
    width = channels
    for conv, out, size in branch:
      found[f"{name}.branch{conv}"] = (out, width, *size)
      width = out
  return found


def _line(name, inner, out, sizes):
  last = len(sizes)
  return [
    (f"{name}_{i}", out if i == last else inner, size)
    for i, size in enumerate(sizes, 1)
  ]


ONE, THREE, FIVE = (1, 1), (3, 3), (5, 5)
WIDE, TALL = (1, 7), (7, 1)


def shapes():
  found = {
    "Conv2d_1a_3x3": (32, 3, 3, 3),
    "Conv2d_2a_3x3": (32, 32, 3, 3),
    "Conv2d_2b_3x3": (64, 32, 3, 3),
    "Conv2d_3b_1x1": (80, 64, 1, 1),
    "Conv2d_4a_3x3": (192, 80, 3, 3),
  }
  for name, width, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
    found |= _mixed(
      f"Mixed_{name}",
      width,
      [
        [("1x1", 64, ONE)],
        _line("5x5", 48, 64, [ONE, FIVE]),
        [
          ("3x3dbl_1", 64, ONE),
          *_line("3x3dbl", 96, 96, [ONE] + [THREE] * 2)[1:],
        ],
        [("_pool", pool, ONE)],
      ],
    )
  deep = [
    ("3x3dbl_1", 64, ONE),
    ("3x3dbl_2", 96, THREE),
    ("3x3dbl_3", 96, THREE),
  ]
  found |= _mixed("Mixed_6a", 288, [[("3x3", 384, THREE)], deep])
  for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
    found |= _mixed(
      f"Mixed_{name}",
      768,
      [
        [("1x1", 192, ONE)],
        _line("7x7", inner, 192, [ONE, WIDE, TALL]),
        _line("7x7dbl", inner, 192, [ONE, TALL, WIDE, TALL, WIDE]),
        [("_pool", 192, ONE)],
      ],
    )
  found |= _mixed(
    "Mixed_7a",
    768,
    [
      _line("3x3", 192, 320, [ONE, THREE]),
      _line("7x7x3", 192, 192, [ONE, WIDE, TALL, THREE]),
    ],
  )
  for name, width in (("7b", 1280), ("7c", 2048)):
    start, deep = ("3x3_1", 384, ONE), [("3x3dbl_1", 448, ONE)]
    deep.append(("3x3dbl_2", 384, THREE))
    found |= _mixed(
      f"Mixed_{name}",
      width,
      [
        [("1x1", 320, ONE)],
        [start, ("3x3_2a", 384, (1, 3))],
        [start, ("3x3_2b", 384, (3, 1))],
        [*deep, ("3x3dbl_3a", 384, (1, 3))],
        [*deep, ("3x3dbl_3b", 384, (3, 1))],
        [("_pool", 192, ONE)],
      ],
    )
  return found


def weights():
  """{name: float32 array} of a whole published file, at random."""
  found = {}
  for name, (out, *rest) in shapes().items():
    scale = np.float32((2.0 / np.prod(rest)) ** 0.5)
    found[f"{name}.conv.weight"] = scale * _normal(out, *rest)
    found[f"{name}.bn.weight"] = 1.0 + 0.2 * _normal(out)
    found[f"{name}.bn.bias"] = 0.3 * _normal(out)
    found[f"{name}.bn.running_mean"] = 0.3 * _normal(out)
    found[f"{name}.bn.running_var"] = 0.5 + _normal(out) ** 2
  found["fc.weight"], found["fc.bias"] = _normal(1008, 2048) / 45, _normal(1008)
  return {k: np.asarray(v, np.float32) for k, v in found.items()}


def _normal(*shape):
  return rng.standard_normal(shape, np.float32)


def _windows(x, size, stride, padding, fill):
  edge = [(0, 0), *((p, p) for p in padding), (0, 0)]
  x = np.pad(x, edge, constant_values=fill)
  seen = np.lib.stride_tricks.sliding_window_view(x, size, (1, 2))
  return seen[:, ::stride, ::stride]  # (n, h, w, channels, *size)


def average(x):
  """3×3 means of what is inside: padding is NaN, and left out."""
  return np.nanmean(_windows(x, (3, 3), 1, (1, 1), np.nan), (-2, -1))


def features(w, x):
  """x (n, 299, 299, 3) -> (n, 2048), means of the last 8×8."""

  def conv(x, name, stride=1, pad=None):
    kernel = w[f"{name}.conv.weight"]
    size = kernel.shape[2:]
    same = tuple(n // 2 for n in size) if pad is None else (pad, pad)
    seen = _windows(x, size, stride, same, 0.0)
    y = np.tensordot(seen, kernel, ((3, 4, 5), (1, 2, 3)))
    gain, bias, mean, variance = (
      w[f"{name}.bn.{part}"]
      for part in ("weight", "bias", "running_mean", "running_var")
    )
    y = (y - mean) / np.sqrt(variance + 1e-3) * gain + bias
    return np.maximum(y, 0.0).astype(np.float32)

  largest = lambda x, stride, pad: _windows(
    x, (3, 3), stride, (pad, pad), -np.inf
  ).max((-2, -1))

  def chain(x, block, kind, num, last_stride=1):
    for i in range(1, num + 1):
      end = i == num and last_stride == 2
      x = conv(x, f"{block}.branch{kind}_{i}", *((2, 0) if end else ()))
    return x

  join = lambda *parts: np.concatenate(parts, -1)
  x = conv(x, "Conv2d_1a_3x3", 2, 0)
  x = conv(x, "Conv2d_2a_3x3", 1, 0)
  x = largest(conv(x, "Conv2d_2b_3x3"), 2, 0)
  x = conv(x, "Conv2d_3b_1x1")
  x = largest(conv(x, "Conv2d_4a_3x3", 1, 0), 2, 0)
  for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
    x = join(
      conv(x, f"{b}.branch1x1"),
      chain(x, b, "5x5", 2),
      chain(x, b, "3x3dbl", 3),
      conv(average(x), f"{b}.branch_pool"),
    )
  x = join(
    conv(x, "Mixed_6a.branch3x3", 2, 0),
    chain(x, "Mixed_6a", "3x3dbl", 3, 2),
    largest(x, 2, 0),
  )
  for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
    x = join(
      conv(x, f"{b}.branch1x1"),
      chain(x, b, "7x7", 3),
      chain(x, b, "7x7dbl", 5),
      conv(average(x), f"{b}.branch_pool"),
    )
  x = join(
    chain(x, "Mixed_7a", "3x3", 2, 2),
    chain(x, "Mixed_7a", "7x7x3", 4, 2),
    largest(x, 2, 0),
  )
  for b in ("Mixed_7b", "Mixed_7c"):
    flat = conv(x, f"{b}.branch3x3_1")
    deep = chain(x, b, "3x3dbl", 2)
    pooled = average(x) if b == "Mixed_7b" else largest(x, 1, 1)
    x = join(
      conv(x, f"{b}.branch1x1"),
      conv(flat, f"{b}.branch3x3_2a"),
      conv(flat, f"{b}.branch3x3_2b"),
      conv(deep, f"{b}.branch3x3dbl_3a"),
      conv(deep, f"{b}.branch3x3dbl_3b"),
      conv(pooled, f"{b}.branch_pool"),
    )
  assert x.shape[1:] == (8, 8, 2048)
  return x.mean((1, 2))
