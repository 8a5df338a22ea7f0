"""The first thing a stranger does: train on digits, and look at samples."""

import importlib.util

import numpy as np
import pytest

from tests import commands


def _judge():
  path = commands.ROOT / "benchmarks" / "digits_quality.py"
  spec = importlib.util.spec_from_file_location("digits_quality", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.judge


@pytest.mark.slow
def test_guided_samples_are_readable_new_and_spread_like_the_data(tmp_path):
  run, out = tmp_path / "run", tmp_path / "digits.npz"
  flags = ("--config=configs/digits.py", f"--workdir={run}")
  done = commands.run("train", *flags, timeout=2400)
  assert done.returncode == 0, done.stderr
  done = commands.run(
    "sample", f"--workdir={run}", "--num_samples=1000", f"--out={out}"
  )
  assert done.returncode == 0, done.stderr
  arrays = np.load(out)
  accuracy, agreement, novelty, frechet = _judge()(
    arrays["samples"], arrays["labels"]
  ).values()
  print(accuracy, agreement, novelty, frechet)
  assert accuracy >= 0.98
  assert agreement >= 0.96
  assert novelty >= 0.8
  assert frechet <= 1.2
