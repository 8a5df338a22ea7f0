"""Where arrays live: the batch is split over devices, the state on each."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def make_mesh():
  """All devices of all processes as one axis, "data"."""
  # Auto: jax.make_mesh's default, Explicit, cannot differentiate convolutions
  return jax.make_mesh(
    (jax.device_count(),), ("data",), axis_types=(AxisType.Auto,)
  )


def replicated(mesh):
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def split(mesh):
  """The sharding of a batch: leading axis over the devices."""
  return NamedSharding(mesh, PartitionSpec("data"))


def put_batch(batch, mesh):
  """A global batch from this process's rows."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(split(mesh), x), batch
  )
