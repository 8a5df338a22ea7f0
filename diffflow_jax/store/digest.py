"""A checksum of arrays, the same on any number of devices."""

import jax
import jax.numpy as jnp


@jax.jit
def digest(tree):
  """A 32-bit checksum of all bits of a pytree of arrays.

  Sums in integer arithmetic, so it is the same on any number of devices.
  """

  def one(leaf):
    leaf = jnp.asarray(leaf)
    size = leaf.dtype.itemsize
    bits = jax.lax.bitcast_convert_type(
      leaf.astype(jnp.uint8) if leaf.dtype == jnp.bool_ else leaf,
      {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[size],
    )
    bits = bits.astype(jnp.uint32).ravel()
    place = jnp.arange(bits.size, dtype=jnp.uint32)
    return jnp.sum(_scramble(bits ^ _scramble(place)), dtype=jnp.uint32)

  total = jnp.zeros((), jnp.uint32)
  # by name, so that a dataclass and the dict that it is stored as agree
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  named = {name_of(path): leaf for path, leaf in leaves}
  for name in sorted(named):
    total = _scramble(total) + one(named[name])
  return total


def _scramble(h):
  """MurmurHash3's 32-bit finaliser: every input bit moves half of them all."""
  h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
  h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
  return h ^ (h >> 16)


def name_of(path):
  """A leaf's place in its pytree, as params.Dense_0.kernel."""
  return jax.tree_util.keystr(path, simple=True, separator=".")
