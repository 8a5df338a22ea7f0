"""How much memory there is, and what arrays of known shapes would take."""

import math
import os

import jax

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions


def per_device(tree):
  """Bytes that a tree of (abstract) arrays takes on the fullest device.

  On CPU, whose devices share the host's memory, on all of them together.
  """
  shared = jax.default_backend() == "cpu"
  total = 0
  for leaf in jax.tree.leaves(tree):
    shape, copies = leaf.shape, 1
    sharding = getattr(leaf, "sharding", None)
    if sharding is not None:
      shape = sharding.shard_shape(shape)
      copies = len(sharding.addressable_devices) if shared else 1
    total += copies * math.prod(shape) * leaf.dtype.itemsize
  return total


def of_conditions(known):
  """Bytes of what one example is told, {name: Condition}, with its masks."""
  of = lambda c: 4 * math.prod(c.shape) + math.prod(conditions.mask_shape(c))
  return sum(map(of, conditions.asked(known).values()))


def available():
  """Bytes of one device, or of the host where the devices are CPUs; or None."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" in stats:
    return stats["bytes_limit"]
  return host() if jax.default_backend() == "cpu" else None


def host():
  """Bytes of the host's memory, or None where the system does not tell."""
  try:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  except (AttributeError, ValueError, OSError):  # Windows
    return None


def need(what, size, there=None):
  """Refuses what takes more bytes than there are, on a device by default."""
  there = available() if there is None else there
  if there is not None and size > there:
    raise Refusal(
      f"{what} would take {_readable(size)} of memory: there are only "
      f"{_readable(there)}"
    )


def _readable(size):
  return f"{size / 2**30:,.3g} GiB"
