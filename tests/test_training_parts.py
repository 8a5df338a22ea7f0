"""Prefetch, meter, mesh rule, progress line: the small parts of the loop."""

import io
import logging
import threading
import time
import types

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import ml_collections
import numpy as np
import pytest

from diffflow_jax import cli, networks
from diffflow_jax.runs import sharding
from diffflow_jax.runs.progress import Progress, duration
from diffflow_jax.training import meter, optimizers, prefetch
from tests import commands


def test_prefetch_gives_batches_in_order_and_ahead():
  made = []
  with prefetch.Prefetch(lambda s: made.append(s) or 10 * s, 3, 9, 2) as p:
    time.sleep(0.2)
    assert made == [3, 5, 7]  # two wait, one is held; no more
    assert [p.get(s) for s in (3, 5, 7)] == [30, 50, 70]
    with pytest.raises(RuntimeError, match="asked for batch 11"):
      with prefetch.Prefetch(lambda s: s, 9, 10) as q:
        q.get(11)


def test_prefetch_hands_errors_over_and_ends():
  def make(step):
    raise OSError(f"no file for {step}")

  with prefetch.Prefetch(make, 0, 5) as p:
    with pytest.raises(cli.Failure, match="batch of step 0 .* no file for 0"):
      p.get(0)
  assert not p._thread.is_alive()


def test_a_stalled_input_is_reported_with_its_step(monkeypatch, caplog):
  monkeypatch.setattr(prefetch, "STALL_SECONDS", 0.05)
  monkeypatch.setattr(prefetch, "POLL_SECONDS", 0.02)

  def slow(step):
    time.sleep(0.2)
    return step

  with caplog.at_level(logging.WARNING), prefetch.Prefetch(slow, 4, 5) as p:
    assert p.get(4) == 4
  assert "no input for step 4" in caplog.text and p.waited > 0.1


@pytest.mark.parametrize(
  "shape,spec",
  [
    ((), P()),
    ((7,), P()),
    ((64,), P()),  # small
    ((3, 3, 64, 128), P(None, None, None, "fsdp")),
    ((3, 3, 128, 64), P(None, None, "fsdp")),
    ((512, 512), P(None, "fsdp")),
    ((1025, 1027), P()),  # 4 divides neither
    ((4096, 6), P("fsdp")),
  ],
)
def test_the_sharding_rule(shape, spec):
  assert sharding.state_spec(shape, 4) == spec
  assert sharding.state_spec(shape, 1) == P()


def test_mesh_shapes():
  assert sharding.mesh_shape(-1, 1, 8) == (8, 1)
  assert sharding.mesh_shape(1, -1, 8) == (1, 8)
  assert sharding.mesh_shape(4, 2, 8) == (4, 2)


@pytest.mark.parametrize(
  "data,fsdp,message",
  [
    (16, 1, "does not fit 8 device"),
    (4, 1, "uses 4 of 8 device"),
    (3, -1, "3 does not divide 8"),
    (-1, -1, "only one of"),
    (0, 8, "mesh.data must be at least 1, or -1, not 0"),
  ],
)
def test_bad_meshes_are_refused(data, fsdp, message):
  with pytest.raises(ValueError, match=message):
    sharding.mesh_shape(data, fsdp, 8)


def test_the_meter_knows_peaks_by_the_start_of_a_name():
  assert meter.peak_flops("NVIDIA H100 80GB HBM3") == 989e12
  assert meter.peak_flops("NVIDIA H100 PCIe") == 756e12
  assert meter.peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
  assert meter.peak_of("NVIDIA L40S") == ("NVIDIA L40S", 362e12)
  for other in (
    "cpu",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 3090 Ti",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
    "NVIDIA L400",
  ):
    assert meter.peak_of(other) is None and meter.peak_flops(other) is None
  m = meter.Meter(32, 1e9)
  line = m.line(2.0, 10, waited=0.5)  # 0.5 s of 5 s
  assert line["examples_per_second"] == 64.0 and line["input_wait"] == 0.1
  assert m.line(2.0, 10, waited=0.75)["input_wait"] == 0.05
  assert line["flops_per_second"] == 2e9 and "fraction_of_peak" not in line


def _a_dit():
  """One block: XLA counts the body of a loop once."""
  return networks.DiT(width=256, depth=1, num_heads=4, patch=2)


def _a_unet():
  return networks.UNet(channels=(64, 64), num_blocks=1, attention=(8,))


@pytest.mark.parametrize("remat", [False, True])
def test_flops_are_those_of_the_network_by_hand(remat):
  """2 for each multiply-add of a DiT; recomputation does not count."""
  width, tokens = 32, 16

  def count(depth):
    net = networks.DiT(
      width=width, depth=depth, num_heads=2, patch=2, num_classes=0, remat=remat
    )
    inputs = (jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))
    params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    shape = types.SimpleNamespace(shape=(8, 8, 1), num_classes=0)
    return meter.model_flops(net.apply, params, shape, batch_size=5)

  block = 3 * 5 * (count(3) - count(2)) / 15
  dense = 2 * tokens * 12 * width**2  # q k v, out, and a perceptron of 4 width
  attention = 2 * 2 * tokens**2 * width
  modulation = 2 * 6 * width**2
  assert block == 15 * (dense + attention + modulation)


def test_flops_do_not_depend_on_who_computes_the_attention(monkeypatch):
  """cuDNN's is one primitive, which is traced here and never run."""
  import jax._src.cudnn.fused_attention_stablehlo as fused

  monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
  shape = types.SimpleNamespace(shape=(4, 6), num_classes=0)

  def count(implementation):
    def apply(w, z, logsnr, cond):
      q = (z @ w).reshape(1, 4, 2, 8).astype(jnp.bfloat16)
      return jax.nn.dot_product_attention(
        q, q, q, implementation=implementation
      )

    return meter.model_flops(apply, jnp.zeros((6, 16)), shape, batch_size=1)

  want = 3 * 2 * (4 * 6 * 16 + 2 * 4 * 4 * 16)
  assert count("xla") == count("cudnn") == want


@pytest.mark.parametrize("make", [_a_dit, _a_unet])
def test_flops_are_near_what_xla_counts(make):
  """XLA counts elementwise work too, and no product with a padded zero: 9 % of
  the UNet's at 16 and 8 pixels a side."""
  net = make()
  inputs = (jnp.zeros((1, 16, 16, 4)), jnp.zeros(1))
  params = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  shape = types.SimpleNamespace(shape=(16, 16, 4), num_classes=0)
  ours = meter.model_flops(net.apply, params, shape, batch_size=1) / 3
  lowered = jax.jit(net.apply).lower(params, *inputs)
  theirs = lowered.cost_analysis()["flops"]
  np.testing.assert_allclose(ours, theirs, rtol=0.1)


def test_convolutions_count_their_kernels():
  conv = lambda w, z, logsnr, cond: jax.lax.conv_general_dilated(
    z, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  shape = types.SimpleNamespace(shape=(8, 8, 3), num_classes=0)
  got = meter.model_flops(conv, jnp.zeros((3, 3, 3, 7)), shape, batch_size=2)
  assert got == 3 * 2 * 2 * 8 * 8 * 7 * 3 * 3 * 3


def test_a_stalled_input_lets_the_loop_stop(monkeypatch):
  monkeypatch.setattr(prefetch, "POLL_SECONDS", 0.02)
  blocked = threading.Event()
  with prefetch.Prefetch(lambda step: blocked.wait(3.0), 0, 5) as p:
    assert p.get(0, stopped=lambda: True) is None
    blocked.set()


def test_progress_appends_lines_in_a_log_and_redraws_in_a_terminal():
  log = io.StringIO()
  p = Progress(100, 0, stream=log, log_seconds=0.0)
  p.update(10, 0.5)
  p.note("a note")
  p.close()
  assert log.getvalue().startswith("step 10/100  loss 0.5  ")
  assert "\r" not in log.getvalue() and log.getvalue().endswith("a note\n")

  class Terminal(io.StringIO):
    isatty = lambda self: True

  terminal = Terminal()
  p = Progress(100, 0, stream=terminal)
  p.update(10, 0.5)
  p.update(20, 0.25)
  p.note("done")
  text = terminal.getvalue()
  assert text.count("\r") == 2 and text.endswith("\ndone\n")
  assert "step 20/100" in text.split("\r")[2]


def test_durations():
  assert duration(5) == "0:05" and duration(65) == "1:05"
  assert duration(3723) == "1:02:03"


def test_weight_decay_acts_on_kernels_alone():
  """With a zero gradient AdamW moves what decays, and nothing else."""
  net = networks.DiT(width=32, depth=2, num_heads=2, patch=2, num_classes=10)
  inputs = (jnp.zeros((1, 8, 8, 1)), jnp.zeros(1), jnp.zeros(1, int))
  shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
  params = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
  config = ml_collections.ConfigDict(
    dict(
      optimizer=dict(name="adamw", weight_decay=0.1),
      learning_rate=dict(name="constant_schedule", value=0.1),
      num_steps=1,
      clip_norm=1.0,
    )
  )
  tx, _ = optimizers.make_optimizer(config)
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = jax.jit(tx.update)(zeros, jax.jit(tx.init)(params), params)
  moved = {"kernel": 0, "other": 0}
  for path, update in jax.tree_util.tree_leaves_with_path(updates):
    name = path[-1].key if path[-1].key == "kernel" else "other"
    moved[name] += float(jnp.abs(update).sum())
  assert moved["kernel"] > 1.0 and moved["other"] == 0.0


def test_a_section_renamed_starts_anew_and_one_that_keeps_its_name_does_not():
  def chosen(*flags):
    path = commands.ROOT / "configs/digits.py"
    argv = ["train", f"--config={path}:smoke", *flags]
    values = cli.new_flags()
    cli.define_config(values, argv)
    values(argv)
    return cli.chosen_config(values)

  same = chosen("--config.network.name=unet", "--config.optimizer.b1=0.8")
  assert same.network.channels == (8, 16) and same.optimizer.b2 == 0.99
  other = chosen(
    "--config.optimizer.name=sgd", "--config.optimizer.momentum=0.9"
  )
  assert dict(other.optimizer) == {"name": "sgd", "momentum": 0.9}
