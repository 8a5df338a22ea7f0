"""Blocks of a transformer: of one stream, and of two that attend jointly."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from diffflow_jax.networks import layers
from diffflow_jax.networks.patches import rotate

XAVIER = nn.initializers.xavier_uniform()
ZEROS = nn.initializers.zeros


def normed(h, dtype=None):
  """LayerNorm without weights."""
  norm = nn.LayerNorm(
    epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype
  )
  return norm(h)


def modulated(h, shift, scale, dtype=None):
  """LayerNorm without weights, then scaled and shifted by the condition."""
  return normed(h, dtype) * (1.0 + scale) + shift


def _stream(module, h, emb, prefix=""):
  """The layers of one stream of a block, whose parameters start with prefix.

  Returns:
    its (q, k, v), each (batch, tokens, heads, head_dim); `take`, which adds
    what was attended to; `feed`, which adds what the MLP makes of that.
  """
  batch, tokens, width = h.shape
  drop = layers.dropout(module)
  numbers = iter(range(5))

  def dense(features, kernel_init=XAVIER, **settings):
    return nn.Dense(
      features,
      dtype=module.dtype,
      kernel_init=kernel_init,
      name=f"{prefix}Dense_{next(numbers)}",
      **settings,
    )

  six = dense(6 * width, ZEROS)(emb)[:, None]
  shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(six, 6, axis=-1)
  y = modulated(h, shift1, scale1, module.dtype)
  # the key's bias would cancel in the softmax
  qkv = dense(3 * width, use_bias=False)(y)
  qkv = qkv.reshape(batch, tokens, 3, module.num_heads, -1)

  def take(y):
    y = dense(width)(y.reshape(batch, tokens, width))
    return h + gate1 * drop(y)

  def feed(h):
    y = modulated(h, shift2, scale2, module.dtype)
    y = nn.gelu(dense(4 * width)(y), approximate=True)
    return h + gate2 * drop(dense(width)(y))

  return [qkv[:, :, i] for i in range(3)], take, feed


class Block(nn.Module):
  """Attention and MLP, each modulated and gated: the identity at first.

  Between them tokens attend to a context, (batch, length, dim) with its mask,
  where there is one.
  """

  num_heads: int
  dtype: Any = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, h, emb, angle, context=None):
    (q, k, v), take, feed = _stream(self, h, emb)
    if angle is not None:
      q, k = rotate(q, angle), rotate(k, angle)
    h = take(layers.attend(q, k, v))
    if context is not None:
      cross = layers.CrossAttention(self.num_heads, self.dtype)
      h = h + layers.dropout(self)(cross(normed(h, self.dtype), *context))
    return feed(h), None


class JointBlock(nn.Module):
  """Two streams with weights of their own, and one attention over both.

  Esser et al., arXiv:2403.03206 §4 and fig. 2 (MM-DiT), without its norms of
  queries and keys. What the last block makes of the context is not used.
  """

  num_heads: int
  dtype: Any = None
  dropout: float = 0.0

  @nn.compact
  def __call__(self, streams, emb, angle, mask):
    h, context = streams
    tokens = h.shape[1]
    (q, k, v), take, feed = _stream(self, h, emb)
    theirs, take_theirs, feed_theirs = _stream(self, context, emb, "context_")
    if angle is not None:
      q, k = rotate(q, angle), rotate(k, angle)
    both = functools.partial(jnp.concatenate, axis=1)
    seen = both([jnp.ones((mask.shape[0], tokens), bool), mask])
    q, k, v = (both(pair) for pair in zip((q, k, v), theirs, strict=True))
    y = layers.attend(q, k, v, seen)
    h = feed(take(y[:, :tokens]))
    return (h, feed_theirs(take_theirs(y[:, tokens:]))), None
