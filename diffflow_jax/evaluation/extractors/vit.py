"""DINOv2's network, a vision transformer: Oquab et al., arXiv:2304.07193.

    h <- h + γ₁ Attention(LN(h)),   h <- h + γ₂ W₂ gelu(W₁ LN(h))

The published position table is of 37×37 patches. For side×side ones it is read
by torch's cubic (a = -¾, no antialias) at the places

    (j + ½)·37/(side + 0.1) - ½                                            (1)

whose 0.1, a guard against rounding in the published code, moves all of them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.evaluation.extractors import resize

PATCH = 14
HIGHEST = jax.lax.Precision.HIGHEST  # the same number on every device
_EPSILON = 1e-6
_GUARD = 0.1


def positions(table, side, guard=_GUARD):
  """(side², width) of a table (its side², width), eq. (1).

  Raises:
    ValueError: the table is no square.
  """
  table = np.asarray(table, np.float64)
  whole = round(len(table) ** 0.5)
  if whole**2 != len(table):
    raise ValueError(f"{len(table)} positions are no square of patches")
  if whole == side:
    return table
  place = (np.arange(side) + 0.5) * whole / (side + guard) - 0.5
  taps = resize.cubic_taps(place, whole, a=-0.75)
  square = table.reshape(whole, whole, -1)
  return np.einsum("ih,jw,hwd->ijd", taps, taps, square).reshape(side**2, -1)


class _Dense(nn.Module):
  """x Wᵀ + b, with torch's names and shapes."""

  width: int

  @nn.compact
  def __call__(self, x):
    init = nn.initializers.ones  # of shapes only: values come from the file
    weight = self.param("weight", init, (self.width, x.shape[-1]))
    bias = self.param("bias", init, (self.width,))
    return jnp.einsum("...i,oi->...o", x, weight, precision=HIGHEST) + bias


class _Norm(nn.Module):
  @nn.compact
  def __call__(self, x):
    init = nn.initializers.ones
    gain = self.param("weight", init, x.shape[-1:])
    shift = self.param("bias", init, x.shape[-1:])
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + _EPSILON)
    return x * gain + shift


class _Attention(nn.Module):
  num_heads: int

  @nn.compact
  def __call__(self, x):
    n, length, width = x.shape
    qkv = _Dense(3 * width, name="qkv")(x)
    heads = lambda a: a.reshape(n, length, self.num_heads, -1)
    q, k, v = (heads(a) for a in jnp.split(qkv, 3, axis=-1))
    scores = jnp.einsum("nihd,njhd->nhij", q, k, precision=HIGHEST)
    shares = jax.nn.softmax(scores / np.sqrt(width // self.num_heads))
    x = jnp.einsum("nhij,njhd->nihd", shares, v, precision=HIGHEST)
    return _Dense(width, name="proj")(x.reshape(n, length, width))


class _MLP(nn.Module):
  @nn.compact
  def __call__(self, x):
    y = _Dense(4 * x.shape[-1], name="fc1")(x)
    return _Dense(x.shape[-1], name="fc2")(nn.gelu(y, approximate=False))


class _Scale(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x * self.param("gamma", nn.initializers.ones, x.shape[-1:])


class _Layer(nn.Module):
  num_heads: int

  @nn.compact
  def __call__(self, x):
    y = _Attention(self.num_heads, name="attn")(_Norm(name="norm1")(x))
    x = x + _Scale(name="ls1")(y)
    y = _MLP(name="mlp")(_Norm(name="norm2")(x))
    return x + _Scale(name="ls2")(y)


class DINOv2(nn.Module):
  """x (n, side·14, side·14, 3), table (1, 1 + side², d) -> class token (n, d).

  The position table is an argument, of the side that x has; all else has the
  names and shapes that the weights were published under.
  """

  width: int
  depth: int
  num_heads: int

  @nn.compact
  def __call__(self, x, table):
    n, side, _, channels = x.shape
    side = side // PATCH
    x = x.reshape(n, side, PATCH, side, PATCH, channels)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(n, side**2, -1)  # as the kernel's
    x = _Dense(self.width, name="patch_embed")(x)
    first = self.param("cls_token", nn.initializers.ones, (1, 1, self.width))
    first = jnp.broadcast_to(first, (n, 1, self.width))
    x = jnp.concatenate([first, x], axis=1) + table
    for i in range(self.depth):
      x = _Layer(self.num_heads, name=f"blocks_{i}")(x)
    return _Norm(name="norm")(x[:, 0])
