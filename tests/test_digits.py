"""The first thing a stranger does: train on digits, and look at samples."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import data, evaluation
from diffflow_jax.process import gaussians
from diffflow_jax.training import metrics
from tests import commands


def _judge():
  path = commands.ROOT / "benchmarks" / "digits_quality.py"
  spec = importlib.util.spec_from_file_location("digits_quality", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.judge


def _assert_better_than_any_linear_prediction(line):
  """Held-out loss against the Gaussian with the training data's moments.

  Its prediction is the best linear one, in closed form; the network leaves less
  than three quarters of its loss in every bin.
  """
  train, test = data.digits("train"), data.digits("test")
  x = np.asarray(train.to_float(train.x)).reshape(len(train.x), -1)
  linear = gaussians.gaussian(jnp.asarray(x.mean(0)), jnp.asarray(np.cov(x.T)))
  x = test.to_float(test.batch(2**32, 0, 320)["x"]).reshape(320, -1)
  for (lower, upper), mse in evaluation.eps_mse_by_logsnr(linear, x).items():
    ours = line[f"held_out/eps_mse_logsnr_{lower:g}_{upper:g}"]
    assert ours < 0.75 * mse, (lower, ours, mse)


@pytest.mark.slow
def test_guided_samples_are_readable_new_and_spread_like_the_data(tmp_path):
  run, out = tmp_path / "run", tmp_path / "digits.npz"
  flags = ("--config=configs/digits.py", f"--workdir={run}")
  done = commands.run("train", *flags, timeout=2400, XLA_FLAGS="")
  assert done.returncode == 0, done.stderr
  _assert_better_than_any_linear_prediction(metrics.read(run)[-1])
  done = commands.run(
    "sample",
    f"--workdir={run}",
    "--num_samples=1000",
    f"--out={out}",
    XLA_FLAGS="",
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
