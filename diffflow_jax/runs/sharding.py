"""Where arrays live, on one device or on a pod.

A mesh has two axes. The batch is split over both; parameters, EMA and optimiser
state are whole along "data" and split along "fsdp":

    mesh = {data: 8, fsdp: 1}   data parallel: every device holds the state
    mesh = {data: 1, fsdp: 8}   fully sharded: every device holds an eighth
    mesh = {data: 2, fsdp: 4}   both

The compiler inserts the collectives; the step is the same function everywhere.
"""

from flax import linen as nn
import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

AXES = ("data", "fsdp")
# Arrays of fewer numbers stay whole: splitting them saves no memory worth the
# messages.
MIN_SIZE = 1024


def mesh_shape(data, fsdp, num_devices):
  """(data, fsdp) with a -1 filled in so that all devices are used.

  Raises:
    ValueError: the axes do not multiply to the number of devices.
  """
  given = {"data": data, "fsdp": fsdp}
  for name, size in given.items():
    if size < 1 and size != -1:
      raise ValueError(f"mesh.{name} must be at least 1, or -1, not {size}")
  if data == fsdp == -1:
    raise ValueError("only one of mesh.data and mesh.fsdp can be -1")
  known = data * fsdp if -1 not in (data, fsdp) else max(data, fsdp)
  if known > num_devices or num_devices % known:
    raise ValueError(
      f"mesh {given} does not fit {num_devices} device(s): "
      f"{known} does not divide {num_devices}"
    )
  rest = num_devices // known
  data, fsdp = (rest if n == -1 else n for n in (data, fsdp))
  if data * fsdp != num_devices:
    raise ValueError(
      f"mesh {given} uses {data * fsdp} of {num_devices} device(s); "
      "set one of them to -1 to use all"
    )
  return data, fsdp


def make_mesh(data=-1, fsdp=1):
  """A mesh of all devices of all processes, each process's side by side.

  Rows of the global batch then belong to the process that reads them, in order.
  """
  shape = mesh_shape(data, fsdp, jax.device_count())
  # Auto: jax.make_mesh's default, Explicit, cannot differentiate convolutions
  types = (AxisType.Auto,) * 2
  mesh = jax.make_mesh(shape, AXES, axis_types=types)
  places = [d.process_index for d in mesh.devices.flat]
  if places == sorted(places):
    return mesh
  # the order that suits the wires interleaves the processes
  devices = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  return Mesh(np.array(devices).reshape(shape), AXES, axis_types=types)


def state_spec(shape, fsdp):
  """The rule: split the largest dimension that fsdp divides, if it is large.

  Of equal dimensions the last: for kernels that is the output features.
  """
  size = 1
  for n in shape:
    size *= n
  fits = [i for i, n in enumerate(shape) if n % fsdp == 0]
  if fsdp == 1 or size < MIN_SIZE or not fits:
    return PartitionSpec()
  axis = max(fits, key=lambda i: (shape[i], i))
  return PartitionSpec(*[None] * axis, "fsdp")


def state_sharding(abstract, mesh):
  """A NamedSharding for every array of a state, by `state_spec`."""
  fsdp = mesh.shape["fsdp"]
  return jax.tree.map(
    lambda x: NamedSharding(mesh, state_spec(x.shape, fsdp)), abstract
  )


def batch_sharding(mesh, leading=0):
  """Split over all devices along the batch, after `leading` whole axes."""
  return NamedSharding(mesh, PartitionSpec(*[None] * leading, AXES))


def put_batch(batch, sharding):
  """A global batch from this process's rows."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, x), batch
  )


def put(x, sharding):
  """An array that every process has whole, on the devices as sharded there."""
  return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def replicate(tree, mesh):
  """A pytree with its arrays whole on every device."""
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.tree.map(
    lambda x: jax.device_put(x, whole) if isinstance(x, jax.Array) else x, tree
  )


def as_trained(tree):
  """A pytree with its arrays where training has them, if on one device.

  An array on a mesh of one device and one on that device are two programs to
  the compiler: `sample` would compile what training did already.
  """
  if jax.device_count() > 1:
    return tree
  return jax.device_put(tree, NamedSharding(make_mesh(), PartitionSpec()))


def keep_batch_split(apply, mesh):
  """apply(params, z, ...), with every layer's output split along the batch.

  The arrays of a layer are then gathered where it needs them. Left to itself
  the compiler may as well gather the batch and split the features, which needs
  more memory than FSDP is meant to save.

  Args:
    apply: of a flax module.
  """
  split = batch_sharding(mesh)

  def constrained(params, z, *rest, **keys):
    def one(x):
      fits = isinstance(x, jax.Array) and x.shape[:1] == z.shape[:1]
      return jax.lax.with_sharding_constraint(x, split) if fits else x

    def after(method, args, kwargs, context):
      return jax.tree.map(one, method(*args, **kwargs))

    with nn.intercept_methods(after):
      return apply(params, z, *rest, **keys)

  return constrained
