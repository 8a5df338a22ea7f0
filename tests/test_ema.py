"""Averages of parameters: EDM2's power function and its reconstruction."""

import importlib.util
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import cli
from diffflow_jax.runs import averages, restore
from diffflow_jax.training import ema, loop, resolve
from tests import commands


def run(decays, xs):
  """All averages of a sequence of numbers, each step."""
  averages = [jnp.float32(123.0)] * len(decays)
  history = []
  for step, x in enumerate(xs):
    averages = [
      ema.update(a, jnp.float32(x), d(step))
      for a, d in zip(averages, decays, strict=True)
    ]
    history.append([float(a) for a in averages])
  return np.array(history)


@pytest.mark.parametrize("sigma_rel", [0.05, 0.10, 0.2])
def test_gamma_has_the_wanted_relative_width(sigma_rel):
  """Mean and variance of the profile τ^γ on [0, 1], by quadrature."""
  gamma = ema.gamma_of(sigma_rel)
  tau = (np.arange(2_000_000) + 0.5) / 2_000_000
  p = (gamma + 1) * tau**gamma
  mean = np.mean(p * tau)
  np.testing.assert_allclose(
    np.sqrt(np.mean(p * tau**2) - mean**2), sigma_rel, rtol=1e-5
  )


def test_papers_gammas():
  """arXiv:2312.02696 §3.1: sigma_rel 0.05, 0.10 are gamma 16.97, 6.94."""
  np.testing.assert_allclose(ema.gamma_of(0.05), 16.97, atol=0.005)
  np.testing.assert_allclose(ema.gamma_of(0.10), 6.94, atol=0.005)


def test_power_average_is_its_profile_and_forgets_the_start():
  gamma, n = ema.gamma_of(0.1), 400
  xs = np.sin(np.arange(n) / 30.0)
  got = run(ema.power((0.1,)), xs)[-1, 0]
  edges = (np.arange(n + 1) / n) ** (gamma + 1)
  np.testing.assert_allclose(got, np.diff(edges) @ xs, atol=1e-3)
  assert run(ema.power((0.1,)), [7.0])[0, 0] == 7.0


def test_exponential_average_starts_without_bias():
  xs = np.full(50, 3.0)
  got = run(ema.exponential(0.999), xs)[:, 0]
  assert abs(got[-1] - 3.0) < 1e-3  # a plain 0.999 would still be at 117
  long = run(ema.exponential(0.9), np.arange(300.0))[-1, 0]
  np.testing.assert_allclose(long, 299 - 0.9 / 0.1, rtol=1e-4)


def test_post_hoc_rebuilds_an_average_that_was_never_kept():
  """From snapshots of widths 0.05 and 0.1, the average of width 0.075."""
  n, every = 2000, 100
  rng = np.random.default_rng(0)
  xs = np.cumsum(rng.standard_normal(n)) / 10.0
  kept = run(ema.power((0.05, 0.1)), xs)
  want = run(ema.power((0.075,)), xs)[-1, 0]
  steps = np.arange(every, n + 1, every)
  gammas = [ema.gamma_of(0.05), ema.gamma_of(0.1)]
  weights = averages.post_hoc_weights(
    np.repeat(steps, 2), np.tile(gammas, len(steps)), n, ema.gamma_of(0.075)
  )
  got = weights @ kept[steps - 1].ravel()
  assert abs(weights.sum() - 1.0) < 1e-9
  gap = np.abs(kept[-1] - want).min()
  assert abs(got - want) < 0.03 * gap, (got, want, gap)


def test_post_hoc_gives_a_snapshot_back():
  gamma = ema.gamma_of(0.1)
  weights = averages.post_hoc_weights([100, 200], [gamma, gamma], 200, gamma)
  np.testing.assert_allclose(weights, [0.0, 1.0], atol=1e-9)


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda: ema.exponential(1.0), r"decay must be in \[0, 1\), not 1.0"),
    (lambda: ema.power((0.5,)), r"sigma_rel must be in \(0, 0.289\], not 0.5"),
  ],
)
def test_bad_numbers_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


@pytest.mark.slow
def test_sample_rebuilds_an_average_from_a_run_s_snapshots(tmp_path):
  """A width that was not kept, against a run of the same steps that kept it."""
  for name, widths in (("two", (0.05, 0.1)), ("one", (0.075,))):
    config = toy_config(sigma_rel=widths)
    loop.train(config, str(tmp_path / name))
  alone = resolve.resolve(toy_config(sigma_rel=(0.075,)))
  _, want = restore.load_ema(tmp_path / "one", alone)
  run = resolve.resolve(toy_config(sigma_rel=(0.05, 0.1)))
  gaps = {}
  for width in (0.05, 0.075, 0.1):
    step, got = restore.load_ema(tmp_path / "two", run, sigma_rel=width)
    assert step == 200
    flat = [
      np.ravel(a - b)
      for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True)
    ]
    gaps[width] = np.linalg.norm(np.concatenate(flat))
  nearest = min(gaps[0.05], gaps[0.1])
  assert gaps[0.075] < 0.1 * nearest, gaps
  _, first = restore.load_ema(tmp_path / "two", run)
  _, again = restore.load_ema(tmp_path / "two", run, sigma_rel=0.05)
  for a, b in zip(*map(jax.tree.leaves, (first, again)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  with pytest.raises(cli.Refusal, match="has no snapshots"):
    restore.load_ema(tmp_path / "one", alone, sigma_rel=0.05)


def toy_config(sigma_rel):
  spec = importlib.util.spec_from_file_location(
    "toy2d", commands.ROOT / "configs/toy2d.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("smoke")
  config.num_steps = 200
  config.log_every = config.sample_every = config.checkpoint_every = 200
  config.ema = dict(name="power", sigma_rel=sigma_rel)
  config.snapshot_every = 20 * (len(sigma_rel) == 2)
  return config


def test_snapshots_of_other_averages_are_refused():
  config = toy_config((0.05, 0.1))
  config.ema = dict(name="exponential")
  with pytest.raises(cli.Refusal, match="snapshot_every needs .* 'power'"):
    resolve.resolve(config)


@pytest.mark.slow
def test_a_snapshot_that_a_kill_left_out_is_made_up_for(tmp_path):
  """Killed between a checkpoint and the snapshot of the same step."""
  config = toy_config((0.05, 0.1))
  config.num_steps = config.log_every = config.sample_every = 20
  config.checkpoint_every = config.snapshot_every = 5
  loop.train(config, str(tmp_path))
  shutil.rmtree(tmp_path / "checkpoints/20")
  for step in (15, 20):
    shutil.rmtree(tmp_path / "snapshots" / str(step))
  loop.train(config, str(tmp_path))
  names = {path.name for path in (tmp_path / "snapshots").iterdir()}
  assert {"5", "10", "15", "20"} <= names
