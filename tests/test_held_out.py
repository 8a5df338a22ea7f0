"""The loss on held-out data, against closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.evaluation import eps_mse_by_logsnr
from diffflow_jax.evaluation.held_out import EDGES
from diffflow_jax.process import closed_form
from tests import commands


def test_the_exact_prediction_of_a_gaussian_leaves_its_posterior_variance():
  """E (eps - ε̂)² = alpha² s²/V, averaged over each bin by quadrature."""
  std, num = 0.7, 40_000
  x = std * jax.random.normal(jax.random.key(1), (num, 2))
  got = eps_mse_by_logsnr(closed_form.gaussian(jnp.zeros(2), std), x)
  assert list(got) == list(zip(EDGES[:-1], EDGES[1:], strict=True))
  for (lower, upper), mse in got.items():
    snr = np.exp(lower + (upper - lower) * (np.arange(1000) + 0.5) / 1000)
    want = np.mean(snr * std**2 / (snr * std**2 + 1.0))
    assert abs(mse / want - 1.0) < 6.0 / np.sqrt(2 * num), (lower, mse, want)


def test_labels_reach_the_prediction_and_the_seed_the_noise():
  x = jax.random.normal(jax.random.key(1), (64, 3))
  seen = jax.tree_util.Partial(
    lambda z, lv, cond: (z, cond[:, None] * jnp.ones_like(z))
  )
  zeros = eps_mse_by_logsnr(seen, x, jnp.zeros(64))
  ones = eps_mse_by_logsnr(seen, x, jnp.ones(64))
  assert all(abs(zeros[b] - 1.0) < 0.3 < abs(ones[b] - 1.0) for b in zeros)
  assert zeros == eps_mse_by_logsnr(seen, x, jnp.zeros(64), seed=0)
  assert zeros != eps_mse_by_logsnr(seen, x, jnp.zeros(64), seed=1)


@pytest.mark.slow
def test_a_trained_mixture_is_near_its_floor(tmp_path):
  """Gap to the exact loss below 0.01 in every bin: 100 times at the start."""
  done = commands.run(
    "train",
    "--config=configs/toy2d.py",
    "--config.dataset.name=ring",
    "--config.num_steps=1500",
    "--config.sample_every=100",
    f"--workdir={tmp_path}",
  )
  assert done.returncode == 0, done.stderr
  lines = [json.loads(l) for l in open(tmp_path / "metrics.jsonl")]
  lines = [
    {k: v for k, v in line.items() if k.startswith("held_out/gap")}
    for line in lines
  ]
  lines = [line for line in lines if line]
  assert len(lines) == 15 and all(len(line) == 6 for line in lines)
  assert max(lines[0].values()) > 0.05 and max(lines[-1].values()) < 0.01
  assert min(lines[-1].values()) > -1e-3  # nothing is below the floor
