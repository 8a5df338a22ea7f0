"""Forward-mode derivatives of networks.

A fused kernel, as cuDNN's attention, may have a reverse-mode derivative alone.
What takes `jvp` from here says so while its function is traced, and a network
then takes operations that have both.
"""

import contextvars

import jax

_on = contextvars.ContextVar("forward_mode", default=False)


def is_on():
  """Whether what is traced now is to have a forward-mode derivative."""
  return _on.get()


def jvp(fn, primals, tangents, has_aux=False):
  """jax.jvp of what calls a network.

  A function under jax.jit is traced once for all: if it was traced outside
  first, this does not reach it.
  """
  token = _on.set(True)
  try:
    return jax.jvp(fn, primals, tangents, has_aux=has_aux)
  finally:
    _on.reset(token)
