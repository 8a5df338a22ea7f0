"""Several processes: their launcher tells each its place, or the cluster does.

On a TPU pod and under SLURM or Open MPI, JAX finds the others by itself;
elsewhere every process is given --coordinator, --num_processes, --process_id.
"""

import os

from diffflow_jax.cli import Refusal

# what a launcher of several processes leaves in the environment
CLUSTERS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def on_a_cluster(environ=os.environ):
  """Whether this is one of several processes that JAX can find by itself."""
  if any(int(environ.get(name, "1") or 1) > 1 for name in CLUSTERS):
    return True
  return "," in environ.get("TPU_WORKER_HOSTNAMES", "")


def initialize(coordinator=None, num_processes=None, process_id=None):
  """Joins the other processes, if there are any; before any other use of JAX.

  Args:
    coordinator: host:port of process 0; with it both others are needed.
  Raises:
    Refusal: only some of the three are given, or out of range.
  """
  import jax

  given = [x is not None for x in (coordinator, num_processes, process_id)]
  if any(given) and not all(given):
    raise Refusal("--coordinator, --num_processes and --process_id go together")
  if all(given):
    if num_processes < 1 or not 0 <= process_id < num_processes:
      raise Refusal(
        f"--process_id must be in [0, {num_processes}), not {process_id}"
      )
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif on_a_cluster():
    jax.distributed.initialize()
