"""What only a GPU can show: fused attention, equal bits, the CPU's numbers.

Skipped where JAX finds no CUDA; `python -m pytest tests/test_gpu.py` there.
"""

import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax.networks import layers
from diffflow_jax.process import forward_mode
from tests import commands, runs

pytestmark = pytest.mark.skipif(
  "cuda" not in jax.devices()[0].client.platform_version,
  reason="needs a GPU with CUDA",
)
KEY = jax.random.key(0)
GPU = dict(JAX_PLATFORMS="cuda", XLA_PYTHON_CLIENT_PREALLOCATE="false")


def _near(one, two, tolerance):
  one, two = (np.asarray(a, np.float64) for a in (one, two))
  assert np.linalg.norm(one - two) < tolerance * np.linalg.norm(two)


@pytest.mark.parametrize("tokens,head_dim", [(64, 64), (49, 32), (256, 128)])
def test_attention_in_bf16_is_the_formula(tokens, head_dim):
  """Value and gradients, against float32; rounding of bf16 is 2^-9."""
  keys = jax.random.split(KEY, 4)
  exact = [jax.random.normal(k, (2, tokens, 3, head_dim)) for k in keys]
  exact = [a.astype(jnp.bfloat16).astype(jnp.float32) for a in exact]
  q, k, v, w = (a.astype(jnp.bfloat16) for a in exact)

  def loss(q, k, v, w):
    out = layers.attend(q, k, v)
    return (out.astype(jnp.float32) * w.astype(jnp.float32)).sum(), out

  program = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
  compiled = program.lower(q, k, v, w).compile().as_text()
  assert ("fmha" in compiled) == (tokens % 2 == 0)
  slopes, out = program(q, k, v, w)
  with jax.default_matmul_precision("highest"):
    want_slopes, want = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*exact)
  _near(out, want, 1e-2)
  for slope, one in zip(slopes, want_slopes, strict=True):
    _near(slope, one, 2e-2)


def test_forward_mode_leaves_the_fused_kernel_out(caplog):
  layers._say_that_it_is_left_out.cache_clear()
  q, dq = jax.random.normal(KEY, (2, 2, 64, 3, 64)).astype(jnp.bfloat16)
  attend = lambda q: layers.attend(q, q, q)
  value, slope = jax.jit(lambda q, dq: forward_mode.jvp(attend, (q,), (dq,)))(
    q, dq
  )
  wide = [a.astype(jnp.float32) for a in (q, dq)]
  with jax.default_matmul_precision("highest"):
    want, want_slope = jax.jvp(attend, wide[:1], wide[1:])
  _near(value, want, 1e-2)
  _near(slope, want_slope, 2e-2)
  said = [r.message for r in caplog.records if "forward-mode" in r.message]
  assert len(said) == 1


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "heun", "unipc", "ddpm"])
def test_samplers_are_the_cpus(name):
  """On a Gaussian's exact denoiser, from the same noise."""
  grid = dfj.grids.uniform_t(
    dfj.schedules.Flow(), dfj.levels.linear, 10, 0.99, 0.01
  )
  table = getattr(dfj.solvers, name)(grid)
  z = jax.random.normal(KEY, (64, 8))

  def draw(z, key):
    predict = dfj.closed_form.gaussian(jnp.full(8, 0.5), 0.3)
    return dfj.sample(predict, table, key, z=z)

  found = {
    platform: np.asarray(
      jax.jit(draw)(*jax.device_put((z, KEY), jax.devices(platform)[0]))
    )
    for platform in ("gpu", "cpu")
  }
  np.testing.assert_allclose(found["gpu"], found["cpu"], rtol=2e-5, atol=2e-5)


CONFIGS = {
  "a transformer": (
    "configs/imagenet256_latent.py:smoke",
    "--config.network.remat=False",
  ),
  "a UNet": (
    "configs/cifar10.py:smoke",
    "--config.network.dtype=bfloat16",
  ),
  "MeanFlow": ("configs/few_step.py:meanflow,smoke",),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_kill_changes_no_bit(kind, tmp_path):
  """Killed after its 20th step and gone on with, beside one left alone."""
  config, *rest = CONFIGS[kind]
  flags = [f"--config={config}", *rest]
  flags += ["--config.num_steps=60", "--config.log_every=10"]
  flags += ["--config.checkpoint_every=10", "--config.sample_every=60"]
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  done = commands.run("train", *flags, f"--workdir={whole}", **GPU)
  assert done.returncode == 0, done.stderr
  process = commands.start("train", *flags, f"--workdir={killed}", **GPU)
  end = time.monotonic() + 120
  while not set(runs.steps(killed)) & {20, 30, 40, 50}:
    assert process.poll() is None and time.monotonic() < end
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  assert 60 not in runs.steps(killed)
  done = commands.run("train", *flags, f"--workdir={killed}", **GPU)
  assert done.returncode == 0 and "resumes" in done.stdout, done.stderr
  one, two = (runs.final_arrays(folder, 60) for folder in (whole, killed))
  assert one.keys() == two.keys()
  for name in one:
    assert np.array_equal(one[name], two[name]), name
