"""Compiled programs are found again, wherever a run's folder lies."""

import subprocess
import sys

from tests import commands

COMPILE = """
import sys
import jax
from diffflow_jax.store import compile_cache

for workdir in sys.argv[1:]:
  compile_cache.use(workdir)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.clear_caches()
  jax.jit(lambda x: x + 1.0)(1.0)
"""


def test_a_copied_run_has_the_same_keys(tmp_path):
  places = [tmp_path / "one", tmp_path / "two"]
  done = subprocess.run(
    [sys.executable, "-c", COMPILE, *places],
    cwd=commands.ROOT,
    env=commands.environment(JAX_COMPILATION_CACHE_DIR=""),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  one, two = (
    sorted(p.name for p in (place / "compile_cache").glob("*-cache"))
    for place in places
  )
  assert one and one == two


def test_sample_compiles_nothing_that_training_compiled(tmp_path):
  # programs are kept however fast this machine compiles them
  alone = {
    "JAX_COMPILATION_CACHE_DIR": "",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  run = tmp_path / "run"
  done = commands.run(
    "train", "--config=configs/toy2d.py:smoke", f"--workdir={run}", **alone
  )
  assert done.returncode == 0, done.stderr
  samplers = lambda: {
    p.name for p in (run / "compile_cache").glob("jit_run-*-cache")
  }
  before = samplers()
  assert before
  done = commands.run(
    "sample", f"--workdir={run}", f"--out={tmp_path / 'x.png'}", **alone
  )
  assert done.returncode == 0, done.stderr
  assert samplers() == before
