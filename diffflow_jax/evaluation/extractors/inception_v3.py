"""The network of FID: Szegedy et al., arXiv:1512.00567, as released in 2015.

The graph "inception-2015-12-05" differs from what is in the paper and in later
ports: average pools do not count their padding, and the last block has a
maximum in the place of one. Modules and parameters have the names and shapes
that the weights were published under, so the file is the tree, flattened.
"""

import flax.linen as nn
from jax import lax
import jax.numpy as jnp

WIDTH = 2048
_EPSILON = 1e-3
_INIT = nn.initializers.ones  # of shapes only: values come from the file


class _Values(nn.Module):
  """Parameters by their shapes."""

  shapes: tuple

  @nn.compact
  def __call__(self):
    return [self.param(name, _INIT, shape) for name, shape in self.shapes]


class Conv(nn.Module):
  """Convolution, batch norm of stored moments, ReLU."""

  channels: int
  size: int | tuple = 1
  stride: int = 1
  padding: int | tuple = 0

  @nn.compact
  def __call__(self, x):
    num, pair = self.channels, lambda n: (n, n) if isinstance(n, int) else n
    shape = (num, x.shape[-1], *pair(self.size))
    (kernel,) = _Values((("weight", shape),), name="conv")()
    names = ("weight", "bias", "running_mean", "running_var")
    bn = _Values(tuple((name, (num,)) for name in names), name="bn")
    gain, shift, mean, variance = bn()
    gain = gain * lax.rsqrt(variance + _EPSILON)
    x = lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      [(p, p) for p in pair(self.padding)],
      dimension_numbers=("NHWC", "OIHW", "NHWC"),
      precision=lax.Precision.HIGHEST,  # the same number on every device
    )
    return nn.relu((x - mean) * gain + shift)


def average(x):
  """3×3 means at stride 1 over what is inside."""
  return nn.avg_pool(
    x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False
  )


def _shrunk(x):
  return nn.max_pool(x, (3, 3), (2, 2))


def _largest(x):
  return nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))


class _Block(nn.Module):
  """Branches side by side; each makes its convolutions by their names."""

  pool_channels: int = 0

  def chain(self, x, *convs):
    for name, channels, *rest in convs:
      x = Conv(channels, *rest, name=name)(x)
    return x


class _A(_Block):
  @nn.compact
  def __call__(self, x):
    deep = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3, 1, 1)]
    branches = [
      self.chain(x, ("branch1x1", 64)),
      self.chain(x, ("branch5x5_1", 48), ("branch5x5_2", 64, 5, 1, 2)),
      self.chain(x, *deep, ("branch3x3dbl_3", 96, 3, 1, 1)),
      self.chain(average(x), ("branch_pool", self.pool_channels)),
    ]
    return jnp.concatenate(branches, -1)


class _B(_Block):
  @nn.compact
  def __call__(self, x):
    deep = [("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, 3, 1, 1)]
    branches = [
      self.chain(x, ("branch3x3", 384, 3, 2)),
      self.chain(x, *deep, ("branch3x3dbl_3", 96, 3, 2)),
      _shrunk(x),
    ]
    return jnp.concatenate(branches, -1)


class _C(_Block):
  inner: int = 128

  @nn.compact
  def __call__(self, x):
    wide, tall = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    line = lambda name, kinds: [
      (f"{name}_{i}", 192 if i == len(kinds) else self.inner, *kind)
      for i, kind in enumerate(kinds, 1)
    ]
    branches = [
      self.chain(x, ("branch1x1", 192)),
      self.chain(x, *line("branch7x7", [(), wide, tall])),
      self.chain(x, *line("branch7x7dbl", [(), tall, wide, tall, wide])),
      self.chain(average(x), ("branch_pool", 192)),
    ]
    return jnp.concatenate(branches, -1)


class _D(_Block):
  @nn.compact
  def __call__(self, x):
    deep = [("branch7x7x3_1", 192), ("branch7x7x3_2", 192, (1, 7), 1, (0, 3))]
    deep.append(("branch7x7x3_3", 192, (7, 1), 1, (3, 0)))
    branches = [
      self.chain(x, ("branch3x3_1", 192), ("branch3x3_2", 320, 3, 2)),
      self.chain(x, *deep, ("branch7x7x3_4", 192, 3, 2)),
      _shrunk(x),
    ]
    return jnp.concatenate(branches, -1)


class _E(_Block):
  last: bool = False

  @nn.compact
  def __call__(self, x):
    fork = lambda x, name: [
      self.chain(x, (f"{name}a", 384, (1, 3), 1, (0, 1))),
      self.chain(x, (f"{name}b", 384, (3, 1), 1, (1, 0))),
    ]
    deep = [("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, 3, 1, 1)]
    pooled = _largest(x) if self.last else average(x)
    branches = [
      self.chain(x, ("branch1x1", 320)),
      *fork(self.chain(x, ("branch3x3_1", 384)), "branch3x3_2"),
      *fork(self.chain(x, *deep), "branch3x3dbl_3"),
      self.chain(pooled, ("branch_pool", 192)),
    ]
    return jnp.concatenate(branches, -1)


class InceptionV3(nn.Module):
  """x (n, 299, 299, 3) of about [-1, 1] -> (n, 2048), means of 8×8."""

  @nn.compact
  def __call__(self, x):
    x = Conv(32, 3, 2, name="Conv2d_1a_3x3")(x)
    x = Conv(32, 3, name="Conv2d_2a_3x3")(x)
    x = _shrunk(Conv(64, 3, 1, 1, name="Conv2d_2b_3x3")(x))
    x = Conv(80, name="Conv2d_3b_1x1")(x)
    x = _shrunk(Conv(192, 3, name="Conv2d_4a_3x3")(x))
    for name, channels in zip("bcd", (32, 64, 64), strict=True):
      x = _A(channels, name=f"Mixed_5{name}")(x)
    x = _B(name="Mixed_6a")(x)
    for name, inner in zip("bcde", (128, 160, 160, 192), strict=True):
      x = _C(inner=inner, name=f"Mixed_6{name}")(x)
    x = _D(name="Mixed_7a")(x)
    x = _E(name="Mixed_7b")(x)
    return _E(last=True, name="Mixed_7c")(x).mean((1, 2))
