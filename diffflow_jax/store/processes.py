"""Several processes that train one model, each on its own devices.

On a TPU pod and under SLURM or Open MPI, JAX finds the others by itself;
anywhere else every process is given --coordinator, --num_processes and
--process_id. They share the workdir: a file system that all of them mount.
"""

import contextlib
import glob
import hashlib
import os
import re

import jax
import numpy as np

from diffflow_jax import cli

# what a launcher of several processes leaves in the environment
CLUSTERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
TPU_HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")


def on_a_cluster(environ=os.environ):
  """Whether this is one of several processes that JAX can find by itself."""
  if any(int(environ.get(name, "1") or 1) > 1 for name in CLUSTERS):
    return True
  return any("," in environ.get(name, "") for name in TPU_HOSTS)


def initialize(coordinator=None, num_processes=None, process_id=None):
  """Joins the other processes, if there are any; before any other use of JAX.

  Args:
    coordinator: host:port of process 0; with it both others are needed.
  Raises:
    Refusal: only some of the three are given, or out of range.
  """
  given = [x is not None for x in (coordinator, num_processes, process_id)]
  if any(given) and not all(given):
    raise cli.Refusal(
      "--coordinator, --num_processes and --process_id go together"
    )
  if all(given):
    if not re.fullmatch(r".+:\d+", coordinator):
      raise cli.Refusal(f"--coordinator must be HOST:PORT, not {coordinator!r}")
    if num_processes < 1 or not 0 <= process_id < num_processes:
      raise cli.Refusal(
        f"--process_id must be in [0, {num_processes}), not {process_id}"
      )
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif on_a_cluster():
    jax.distributed.initialize()
  elif any(glob.glob(pattern) for pattern in TPU_DEVICES):
    # the hosts of a pod are found by its metadata server; one alone has none
    with contextlib.suppress(ValueError):
      jax.distributed.initialize()


@contextlib.contextmanager
def fail_at_once():
  """Ends a process of several as soon as it fails.

  Python would first wait for the others, which wait for this one; so they are
  told by its end, and whoever started them can start them again.
  """
  try:
    yield
  except BaseException as error:
    if jax.process_count() > 1:
      os._exit(cli.exit_status(_in_words(error)))
    raise


def _in_words(error):
  """What JAX raises where another process is gone, in a sentence."""
  said = str(error)
  lost = "Gloo" in said or "CoordinationService" in said
  if isinstance(error, jax.errors.JaxRuntimeError) and lost:
    return cli.Failure(
      "another process has ended, or was not heard of for half a minute: "
      "start all of them again, and they go on"
    )
  return error


def agree(what, text):
  """Refuses a text that is not the same in all processes; waits for them."""
  if jax.process_count() == 1:
    return
  from jax.experimental import multihost_utils

  digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
  everyones = multihost_utils.process_allgather(digest)
  if (everyones != digest).any():
    raise cli.Refusal(f"the processes were given different {what}")


def everyone(ok):
  """Whether it is so in all processes; waits for them."""
  if jax.process_count() == 1:
    return ok
  from jax.experimental import multihost_utils

  return bool(multihost_utils.process_allgather(np.array(ok)).all())
