"""What the networks share: precision, attention, dropout, recomputed blocks."""

import functools
import logging
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffflow_jax.process import forward_mode

log = logging.getLogger("diffflow_jax")
DTYPES = ("float32", "bfloat16")


def check_dtype(dtype):
  """Refuses a compute dtype other than float32 or bfloat16 (None: z's)."""
  if dtype is not None and jnp.dtype(dtype).name not in DTYPES:
    raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")


def check_positive(**counts):
  """Refuses counts that are not integers of at least 1."""
  for name, value in counts.items():
    if not isinstance(value, int) or value < 1:
      raise ValueError(f"{name} must be an integer >= 1, not {value!r}")


def check_one_of(known, **named):
  """Refuses a setting that is not one of those known."""
  for name, value in named.items():
    if value not in known:
      raise ValueError(
        f"{name} must be one of {', '.join(known)}, not {value!r}"
      )


def each(value):
  """The entries of a setting that may be one for each axis."""
  return value if isinstance(value, tuple | list) else (value,)


def per_axis(name, value, axes):
  """A setting for each axis: an integer is for all."""
  if not isinstance(value, tuple | list):
    return (value,) * axes
  if len(value) != axes:
    raise ValueError(
      f"{name} must be an integer or one for each of {axes} axes, not "
      f"{tuple(value)}"
    )
  return tuple(value)


def sides_of(network, z):
  """Sides of z (batch, *sides, channels), one at least."""
  if z.ndim < 3:
    raise ValueError(
      f"{network} takes z of shape (batch, *sides, channels), with one side or "
      f"more, not {z.shape}"
    )
  return z.shape[1:-1]


def dropout(module):
  """The module's dropout: there iff apply is given an rng named "dropout"."""
  return nn.Dropout(module.dropout, deterministic=not module.has_rng("dropout"))


def call(module, *args):
  """module(*args); `recomputed(module, *args)` has the same parameters."""
  return module(*args)


# keeps a block's inputs and runs it again in the backward pass
recomputed = nn.remat(call)


def keep_products(primitive, *_, **__):
  """A `jax.checkpoint` policy: what is not cheap to have again is kept.

  The outputs of matrix products and of cuDNN's attention, that is.
  """
  name = primitive.name
  return name == "dot_general" or name.startswith("dot_product_attention_fwd")


def has_flash_attention(dtype, head_dim, *lengths):
  """Whether cuDNN's fused attention takes this: bf16 on Ampere or newer.

  Of odd lengths it has no backward pass: JAX 0.11 refuses them.
  """
  if jax.default_backend() != "gpu" or dtype != jnp.bfloat16:
    return False
  if any(length % 2 for length in lengths):
    return False
  capability = getattr(jax.devices()[0], "compute_capability", "")
  is_cuda = capability[:1].isdigit()  # ROCm says gfx...
  return (
    is_cuda
    and float(capability) >= 8.0
    and head_dim <= 128
    and not head_dim % 8
  )


@functools.cache
def _say_that_it_is_left_out():
  log.warning(
    "cuDNN's fused attention has no forward-mode derivative: where a loss "
    "takes one, attention is computed without it"
  )


def attend(q, k, v, mask=None):
  """softmax(q kᵀ/√d) v, its logits and softmax in float32.

  Vaswani et al., arXiv:1706.03762 eq. 1; all (batch, tokens, heads, head_dim).

  Args:
    mask: bools (batch, tokens) of k and v that are attended to: one at least.
      With one the fused attention is not used, nor is it in `forward_mode`,
      which says so once.
  """
  flash = mask is None and has_flash_attention(
    q.dtype, q.shape[-1], q.shape[1], k.shape[1]
  )
  if flash and forward_mode.is_on():
    _say_that_it_is_left_out()
    flash = False
  return jax.nn.dot_product_attention(
    q,
    k,
    v,
    mask=None if mask is None else mask[:, None, None],
    implementation="cudnn" if flash else "xla",
  )


class CrossAttention(nn.Module):
  """What tokens take from a context, zero at initialisation.

  (batch, tokens, width), context (batch, length, dim), mask (batch, length) ->
  like the tokens, and 0 where the mask is False throughout.
  """

  num_heads: int
  dtype: Any = None

  @nn.compact
  def __call__(self, h, context, mask):
    width = h.shape[-1]
    dense = functools.partial(nn.Dense, width, dtype=self.dtype)
    heads = lambda a: a.reshape(*a.shape[:2], self.num_heads, -1)
    q = heads(dense(name="query")(h))
    # the key's bias would cancel in the softmax
    k = heads(dense(use_bias=False, name="key")(context))
    v = heads(dense(name="value")(context))
    some = mask.any(1)[:, None]
    y = attend(q, k, v, mask | ~some).reshape(h.shape)
    y = jnp.where(some[..., None], y, 0.0)
    return dense(use_bias=False, kernel_init=nn.initializers.zeros, name="out")(
      y
    )
