"""One job on many devices: the same job."""

import json
import subprocess
import sys

import jax
import pytest

from tests import commands

# how well the compiler optimises is not what this is about, and takes its time
EIGHT = (
  "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)


@pytest.mark.slow
def test_every_topology_takes_the_same_steps():
  """Five ways to use 8 devices; also with accumulation and recomputed blocks.

  Data parallel, FSDP and both by the compiler; the gradient by `shard_map` and,
  while JAX has it, `pmap`.
  """
  done = subprocess.run(
    [sys.executable, "-m", "tests.topologies"],
    cwd=commands.ROOT,
    env=commands.environment(XLA_FLAGS=EIGHT),
    capture_output=True,
    text=True,
    timeout=1200,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  result = json.loads(done.stdout.splitlines()[-1])
  assert len(result) == 2 * (4 + hasattr(jax, "pmap"))
  for name, r in result.items():
    assert r["losses"] < 5e-6 and r["params"] < 5e-6 and r["ema"] < 5e-6, name
  state = {name: r["bytes"] for name, r in result.items()}
  peak = {name: r["peak"] for name, r in result.items()}
  whole = state["data8 x1"]
  assert state["fsdp8 x1"] < 0.3 * whole
  assert state["mixed x1"] < 0.6 * whole
  # over a step: the state's part of the peak is split as the state is
  saved = whole - state["fsdp8 x1"]
  assert peak["fsdp8 x1"] < peak["data8 x1"] - 0.9 * saved, (peak, saved)
  for name in ("data8 x1", "fsdp8 x1", "mixed x1"):
    assert result[name]["remat"] < peak[name], result[name]
