"""One job on many devices: the same job."""

import json
import subprocess
import sys

import pytest

from tests import commands

EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


@pytest.mark.slow
def test_every_topology_takes_the_same_steps():
  """Data parallel, FSDP, both; accumulation and recomputed blocks or not."""
  done = subprocess.run(
    [sys.executable, "-m", "tests.topologies"],
    cwd=commands.ROOT,
    env=commands.environment(**EIGHT),
    capture_output=True,
    text=True,
    timeout=1200,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  result = json.loads(done.stdout.splitlines()[-1])
  for name in ("shard_map", "pmap"):
    if name in result:
      assert result.pop(name) < 1e-6, name
  whole = result["data8"]["bytes"]
  for name, r in result.items():
    assert r["losses"] < 5e-6 and r["params"] < 5e-6 and r["ema"] < 5e-6, name
  assert result["fsdp8"]["bytes"] < 0.3 * whole
  assert result["mixed"]["bytes"] < 0.6 * whole
  # over a step: the state's part of the peak is split as the state is
  peak = {name: r["peak"] for name, r in result.items()}
  saved = whole - result["fsdp8"]["bytes"]
  assert peak["fsdp8"] < peak["data8"] - 0.9 * saved, (peak, saved)
  assert peak["data8_remat"] < peak["data8"], peak
