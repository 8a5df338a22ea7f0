"""What the networks share: precision, attention, recomputed blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp

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


def call(module, *args):
  """module(*args); `recomputed(module, *args)` has the same parameters."""
  return module(*args)


# keeps a block's inputs and runs it again in the backward pass
recomputed = nn.remat(call)


def has_flash_attention(dtype, head_dim):
  """Whether cuDNN's fused attention takes this: bf16 on Ampere or newer."""
  if jax.default_backend() != "gpu" or dtype != jnp.bfloat16:
    return False
  capability = getattr(jax.devices()[0], "compute_capability", "")
  is_cuda = capability[:1].isdigit()  # ROCm says gfx...
  return (
    is_cuda
    and float(capability) >= 8.0
    and head_dim <= 128
    and not head_dim % 8
  )


def attend(q, k, v):
  """softmax(q kᵀ/√d) v, its logits and softmax in float32.

  Vaswani et al., arXiv:1706.03762 eq. 1; all (batch, tokens, heads, head_dim).
  """
  flash = has_flash_attention(q.dtype, q.shape[-1])
  return jax.nn.dot_product_attention(
    q, k, v, implementation="cudnn" if flash else "xla"
  )
