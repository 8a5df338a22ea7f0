"""What compiles quickly does, and nobody takes compilation for training."""

import io
import time

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax.runs.progress import Progress
from diffflow_jax.store import compilation


class Clock:
  """Stands where it is put."""

  def __init__(self):
    self.now = 1000.0

  def monotonic(self):
    return self.now

  def compiles(self, stage, seconds, inside=()):
    """Goes on by `seconds`, of which JAX reports all."""
    for part in inside:
      self.compiles(stage, part)
    self.now += seconds - sum(inside)
    event = f"/jax/core/compile/{stage}_duration"
    jax.monitoring.record_event_duration_secs(event, seconds, fun_name="f")


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(time, "monotonic", clock.monotonic)
  # nothing that was compiled by the true clock
  compilation.seconds()
  compilation._spans().clear()
  yield clock
  compilation._spans().clear()


def test_what_is_compiled_within_something_counts_once(clock):
  clock.compiles("jaxpr_trace", 5.0, inside=(1.0, 2.0))
  clock.now += 10.0
  clock.compiles("jaxpr_to_mlir_module", 0.5)
  clock.compiles("backend_compile", 20.0)
  jax.monitoring.record_event_duration_secs("/jax/something/else", 3.0)
  assert compilation.seconds() == 25.5


def test_the_time_left_is_first_shown_without_compilation(clock):
  log = io.StringIO()
  progress = Progress(100, 0, stream=log, log_seconds=0.0)
  clock.compiles("jaxpr_trace", 2.0)
  clock.compiles("backend_compile", 58.0)
  clock.now += 10.0  # ten steps, at one a second
  assert progress.update(10, 1.0) == pytest.approx(1.0)
  line = log.getvalue()
  assert "1 steps/s  1:30 left" in line, line
  clock.now += 5.0
  progress.pause()
  clock.now += 7.0  # a picture, and the compilation of its sampler
  clock.compiles("backend_compile", 20.0)
  progress.resume()
  clock.now += 5.0
  assert progress.update(20, 1.0) == pytest.approx(1.0)
  assert "1 steps/s  1:20 left" in log.getvalue()


def test_what_comes_before_the_first_step_is_not_its_time(
  clock, monkeypatch, tmp_path
):
  from diffflow_jax.commands import train
  from diffflow_jax.training import first_look

  def slow(*args):
    clock.now += 1000.0

  monkeypatch.setattr(first_look, "write", slow)
  toy = ["--config=configs/toy2d.py:smoke", f"--workdir={tmp_path}"]
  train.main(["train", *toy])
  first = dfj.load(tmp_path).metrics["steps_per_second"][0]
  assert first > 5 / 1000.0 * 2, first  # five steps


def test_the_rate_follows_the_machine(clock):
  log = io.StringIO()
  progress = Progress(100, 0, stream=log, log_seconds=0.0)
  for step, seconds in ((10, 10.0), (20, 20.0)):
    clock.now += seconds
    progress.update(step, 1.0)
  # 0.7 of 1 a second and 0.3 of 0.5: 80 steps at 0.85 a second
  assert log.getvalue().endswith("0.85 steps/s  1:34 left\n")


def test_jax_says_when_it_compiles():
  before, start = compilation.seconds(), time.monotonic()
  inner = jax.jit(lambda x: jnp.sin(x) + 1.0)
  jax.jit(lambda x: inner(x) * inner(x + 1.0))(np.ones(7)).block_until_ready()
  spent = compilation.seconds() - before
  assert 0.0 < spent <= time.monotonic() - start


def test_a_quick_program_is_the_same_and_compiles_faster():
  def draws(key):
    keys = jax.random.split(key, 4)
    return [jax.random.truncated_normal(k, -2.0, 2.0, (n + 9, 5))
            for n, k in enumerate(keys)]  # fmt: skip

  key = jax.random.key(0)
  took, got = [], []
  for jit in (jax.jit, compilation.quick):
    lowered = jit(draws).lower(key)
    start = time.process_time()
    compiled = lowered.compile()
    took.append(time.process_time() - start)
    got.append(compiled(key))
  for a, b in zip(*got, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  if not jax.config.jax_compilation_cache_dir:
    assert took[1] < 0.7 * took[0], took
