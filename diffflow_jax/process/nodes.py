"""Functions and plain objects as pytree nodes, so that what holds them can
enter jit, grad and vmap as an argument."""

from typing import Any

from flax import struct
import jax


@struct.dataclass
class Opaque:
  """A function, or an object with methods, as a pytree without leaves.

  Calls and attributes are those of what it holds. Equal functions are equal
  nodes; another function is another trace.
  """

  held: Any = struct.field(pytree_node=False)

  def __call__(self, *args):
    return self.held(*args)

  def __repr__(self):
    return getattr(self.held, "__name__", repr(self.held))

  def __getattr__(self, name):
    if name == "held":  # while copied or unpickled
      raise AttributeError(name)
    return getattr(self.held, name)


def as_node(value):
  """value, or an Opaque of it where JAX would refuse it as an argument.

  Functions and instances of ordinary classes are wrapped; numbers, arrays and
  pytree dataclasses (`flax.struct.dataclass`), whose numbers are leaves, are
  not.
  """
  is_leaf = jax.tree_util.all_leaves([value])
  ours = callable(value) or hasattr(value, "log_prob")
  return Opaque(value) if is_leaf and ours else value


def hold_nodes(instance, *fields):
  """Makes those fields of a frozen dataclass nodes, from its __post_init__.

  Raises:
    ValueError: a field is a name and not what it names.
  """
  for field in fields:
    value = getattr(instance, field)
    if isinstance(value, str):
      raise ValueError(
        f"{field} must be what make({value!r}) of its module gives, "
        "not the name alone"
      )
    object.__setattr__(instance, field, as_node(value))


def concrete(*values):
  """Whether all numbers in values are known now, so that they can be checked.

  Under jit, grad and vmap they are not: there, ranges are the caller's affair.
  """
  leaves = jax.tree.leaves(values)
  return not any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
