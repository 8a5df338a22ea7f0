"""The first state: drawn as its initialisers say, the same on every mesh."""

import itertools
import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from diffflow_jax import data, networks
from diffflow_jax.objective import objectives
from diffflow_jax.training import programs
from diffflow_jax.training.resolve import TrainingRun
from tests import commands, first_states, topologies

NUM_CLASSES = 10


class Users(nn.Module):
  """A network that draws its arrays in many ways."""

  num_classes: int = NUM_CLASSES

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    i = nn.initializers
    for name, init in {
      "normal": i.normal(0.3),
      "uniform": i.uniform(2.0),
      "truncated": i.truncated_normal(0.5),
      "lecun": i.lecun_normal(),
      "he": i.he_uniform(),
      "orthogonal": i.orthogonal(),
    }.items():
      w = self.param(name, init, (120, 80))
      z = z + w.sum() * 0.0
    z = nn.Conv(z.shape[-1], (3, 3), name="conv")(z)
    bits = lambda key, shape: jax.random.randint(key, shape, 0, 6)
    self.param("dice", bits, (6000,))
    return z + nn.Embed(NUM_CLASSES + 1, 64, name="embed")(cond).sum() * 0.0


def params_of(network, seed=0):
  """As a run has them: by the program that makes its first state."""
  run = topologies.make_run((1, 1), 1, False)
  config = run.config.copy_and_resolve_references()
  config.seed = seed
  run = TrainingRun(
    config,
    run.card,
    objectives.flow_matching(),
    network,
    data.digits(),
    optax.adam(1e-3),
    None,
    (),
  )
  return jax.tree.map(np.asarray, programs.build(run).init({}).params["params"])


@pytest.fixture(scope="module")
def drawn():
  return {seed: params_of(Users(), seed) for seed in (0, 1)}


def truncated(std, limit=2.0):
  """flax's: standard normals within ±2, to the standard deviation std."""
  unit = stats.truncnorm(-limit, limit)
  return stats.truncnorm(-limit, limit, scale=std / unit.std())


LAWS = {
  "normal": stats.norm(scale=0.3),
  "uniform": stats.uniform(0.0, 2.0),
  "truncated": stats.truncnorm(-2, 2, scale=0.5),  # before truncation
  "lecun": truncated(np.sqrt(1 / 120)),
  "he": stats.uniform(-np.sqrt(6 / 120), 2 * np.sqrt(6 / 120)),
  "embed": stats.norm(scale=np.sqrt(1 / 64)),
}


@pytest.mark.parametrize("name", LAWS)
def test_numbers_have_the_law_of_their_initialiser(name, drawn):
  for seed, params in drawn.items():
    array = params[name]
    x = (array["embedding"] if name == "embed" else array).ravel()
    law, n = LAWS[name], x.size
    var = law.var()
    fourth = law.expect(lambda v, m=law.mean(): (v - m) ** 4)
    assert abs(x.mean() - law.mean()) < 4.5 * np.sqrt(var / n), seed
    assert abs(x.var() - var) < 4.5 * np.sqrt((fourth - var**2) / n), seed
    assert stats.kstest(x, law.cdf).pvalue > 1e-4, seed
    # neighbours in a row, in a column, and far apart
    z = (x - law.mean()) / np.sqrt(var)
    for lag in (1, 2, 64, 80, n // 2):
      assert abs((z[lag:] * z[:-lag]).mean()) < 4.5 / np.sqrt(n - lag), lag


def test_an_orthogonal_matrix_is_one_and_dice_are_fair(drawn):
  w = drawn[0]["orthogonal"]
  np.testing.assert_allclose(w.T @ w, np.eye(80), atol=1e-5)
  count = np.bincount(drawn[0]["dice"], minlength=6)
  assert count.size == 6 and stats.chisquare(count).pvalue > 1e-4
  assert not np.any(drawn[0]["conv"]["bias"])


def test_arrays_and_seeds_are_independent(drawn):
  """Of equal shape and different law: any two, of any two seeds."""
  names = ["normal", "uniform", "truncated", "lecun", "he"]
  ranks = {
    (name, seed): stats.rankdata(params[name])
    for (seed, params), name in itertools.product(drawn.items(), names)
  }
  bound = 4.5 / np.sqrt(120 * 80)
  for a, b in itertools.combinations(ranks.values(), 2):
    assert abs(np.corrcoef(a, b)[0, 1]) < bound


def test_stacked_blocks_are_drawn_apart():
  net = networks.DiT(
    width=32, depth=3, num_heads=2, patch=2, num_classes=NUM_CLASSES
  )
  random = 0
  for leaf in jax.tree.leaves(params_of(net)["blocks"]):
    if np.any(leaf):
      random += 1
      for a, b in itertools.combinations(leaf.reshape(3, -1), 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / np.sqrt(a.size)
  assert random == 4  # qkv, out and the two of the perceptron


def test_every_mesh_has_the_bits_of_one_device():
  eight = "--xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-m", "tests.first_states"],
    cwd=commands.ROOT,
    env=commands.environment(XLA_FLAGS=eight),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  state = first_states.first_state((1, 1))
  want, whole = first_states.digest(state), topologies.bytes_on_device_0(state)
  assert {name: seen for name, (seen, _) in result.items()} == dict.fromkeys(
    topologies.MESHES, want
  )
  assert result["fsdp8"][1] < whole / 4  # what is large is split in eight
  assert result["data8"][1] == whole


def test_the_parameters_are_those_of_the_networks_own_init():
  """init(key(seed)) by hand, to rounding: it is compiled otherwise."""
  net = networks.DiT(width=16, depth=1, num_heads=1, num_classes=NUM_CLASSES)
  inputs = (jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
  want = jax.jit(net.init)(jax.random.key(0), *inputs)["params"]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    params_of(net),
    want,
  )
