"""Tests. What all of their processes share is set here, before JAX starts."""

import os

# One core for each worker of pytest-xdist and for all that it starts: several
# pools of as many threads as there are cores wait for each other.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")[2:]
if _worker.isdigit() and hasattr(os, "sched_setaffinity"):
  _cores = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, {_cores[int(_worker) % len(_cores)]})

# how well the compiler optimises is not what tests are about, and takes time
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
