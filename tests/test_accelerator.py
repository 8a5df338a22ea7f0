"""The benchmark of one accelerator, in its tiny form."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import pytest

from diffflow_jax import networks
from tests import commands

FOLDER = commands.ROOT / "benchmarks"


def _run(script, *args):
  env = {**os.environ, "PYTHONPATH": str(commands.ROOT)}
  done = subprocess.run(
    [sys.executable, str(FOLDER / script), *args],
    cwd=commands.ROOT,
    env=env,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_part_measures_what_it_says(tmp_path):
  out = tmp_path / "part.json"
  _run("accelerator_part.py", "dit", str(out), "--tiny")
  found = json.loads(out.read_text())
  assert (
    found["peak_flops"] is None and "no peak is known" in found["peak_is_of"]
  )
  assert found["attention"] == "xla" and found["batch"] == 2
  for name in ("library", "hand_written"):
    train = found[f"train_{name}"]
    assert train["share_of_peak"] is None
    flops = found["model_flops_per_step"] * train["images_per_s"] / 2
    assert math.isclose(train["model_flops_per_s"], flops, rel_tol=1e-6)
    assert train["compile_s"] > 0
  assert found["train_over_hand_written"] > 0
  tables = ("ddim_3", "ddim_6", "learned_keeps_10", "padded_3", "padded_6")
  for table in tables:
    assert found[f"sample_{table}"]["over_bare_evaluations"] > 0


def test_both_frameworks_train_the_same_number_of_parameters():
  torch = pytest.importorskip("torch")
  spec = importlib.util.spec_from_file_location("d", FOLDER / "torch_dit.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  import jax
  import jax.numpy as jnp

  ours = networks.DiT(width=32, depth=2, num_heads=2, patch=4, num_classes=1000)
  z, label = jnp.zeros((1, 32, 32, 4)), jnp.zeros(1, int)
  like = jax.eval_shape(ours.init, jax.random.key(0), z, z[:, 0, 0, 0], label)
  net = module.build(torch, 32, 2, 2, 4, channels=4, classes=1000)
  assert sum(p.numel() for p in net.parameters()) == networks.count(like)
  with torch.no_grad():
    out = net(torch.zeros(2, 4, 32, 32), torch.zeros(2), torch.tensor([1, 2]))
  assert out.shape == (2, 4, 32, 32)


def test_a_part_that_fails_or_lasts_too_long_is_said(tmp_path, monkeypatch):
  spec = importlib.util.spec_from_file_location("a", FOLDER / "accelerator.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  monkeypatch.setattr(module, "HERE", tmp_path)
  (tmp_path / "torch_dit.py").write_text(
    "import pathlib, sys, time\n"
    "pathlib.Path(sys.argv[2]).write_text('{\"batch\": 7}')\n"
    'time.sleep(9) if "--tiny" in sys.argv else sys.exit("no memory")\n'
  )
  slow = module.run_part("torch", 1.5, None, True)
  assert slow["batch"] == 7 and "the time was up" in slow["ended"]
  failed = module.run_part("torch", 60, 3, False)
  assert failed["batch"] == 7 and failed["ended"] == "failed: no memory"
