"""TensorBoard's files are written without torch, which is left alone."""

import subprocess
import sys

from tests import commands

WRITE = """
import sys
from diffflow_jax.training import metrics

with metrics.Writer(sys.argv[1], 0) as writer:
  writer.write(1, {"loss": 2.0})
assert "torch" not in sys.modules  # neither imported nor barred
"""


def test_torch_is_not_imported_to_write_numbers(tmp_path):
  (tmp_path / "torch.py").write_text("")  # whether it is installed or not
  done = subprocess.run(
    [sys.executable, "-c", WRITE, tmp_path],
    cwd=commands.ROOT,
    env=commands.environment(PYTHONPATH=f"{tmp_path}:{commands.ROOT}"),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert list((tmp_path / "tensorboard").glob("events*"))
