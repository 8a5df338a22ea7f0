"""Patches as tokens, and where they are: one definition for any axes."""

import math

import jax.numpy as jnp


def cut(sides, patch):
  """The number of patches along each axis.

  Args:
    patch: one side for each axis.
  """
  if any(side % p for side, p in zip(sides, patch, strict=True)):
    times = lambda sides: " x ".join(map(str, sides))
    of = patch[0] if len(set(patch)) == 1 else times(patch)
    raise ValueError(
      f"sides of z must be divisible by the patch of {of}, not {times(sides)}"
    )
  return tuple(side // p for side, p in zip(sides, patch, strict=True))


def to_patches(z, patch):
  """(batch, *sides, c) -> (batch, tokens, prod(patch) c), row by row."""
  batch, *sides, c = z.shape
  grid, axes = cut(sides, patch), len(patch)
  pairs = [n for pair in zip(grid, patch, strict=True) for n in pair]
  z = z.reshape(batch, *pairs, c)
  outer, inner = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
  z = z.transpose(0, *outer, *inner, 2 * axes + 1)
  return z.reshape(batch, math.prod(grid), math.prod(patch) * c)


def from_patches(h, grid, patch):
  """The inverse of `to_patches`, of that many patches along each axis."""
  batch, axes = h.shape[0], len(patch)
  h = h.reshape(batch, *grid, *patch, -1)
  pairs = [
    i for pair in zip(range(axes), range(axes), strict=True) for i in pair
  ]
  order = [1 + i + axes * (n % 2) for n, i in enumerate(pairs)]
  h = h.transpose(0, *order, 2 * axes + 1)
  sides = (n * p for n, p in zip(grid, patch, strict=True))
  return h.reshape(batch, *sides, -1)


def angles(grid, num_freqs):
  """Each token's place at num_freqs speeds, (tokens, axes, num_freqs).

  10000^(-i/num_freqs) radians a patch, arXiv:1706.03762 §3.5, on each axis.
  """
  freqs = 10000.0 ** (-jnp.arange(num_freqs) / num_freqs)
  at = jnp.indices(grid).reshape(len(grid), -1).T
  return at[:, :, None] * freqs


def _filled(features, width):
  """Zeros after them on the last axis, where the axes do not share evenly."""
  missing = width - features.shape[-1]
  if not missing:
    return features
  return jnp.pad(features, [*[(0, 0)] * (features.ndim - 1), (0, missing)])


def sincos(grid, width):
  """Fixed position embeddings on a grid, (tokens, width)."""
  angle = angles(grid, width // (2 * len(grid)))
  features = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=2)
  return _filled(features.reshape(angle.shape[0], -1), width)


def rotate(q, angle):
  """Turns pairs of channels by the token's angles: rotary positions.

  Su et al., arXiv:2104.09864 eq. 34, an equal part of the channels by each
  axis: q·k then depends on where they are relative to each other.

  Args:
    q: (batch, tokens, heads, head_dim); angle: (tokens, axes, num_freqs).
  """
  angle = angle.reshape(angle.shape[0], 1, -1)
  angle = _filled(angle, q.shape[-1] // 2)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  a, b = jnp.split(q.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)
  return turned.astype(q.dtype)
