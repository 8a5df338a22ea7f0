"""Nothing is lost: kills, signals, damage and bad losses."""

import json
import random
import shutil
import signal
import time

import numpy as np
import pytest

from diffflow_jax.store import checkpoints
from diffflow_jax.training import metrics
from tests import commands, runs
from tests.runs import curve, final_arrays

FLAGS = (
  "--config=configs/toy2d.py:smoke",
  "--config.num_steps=200",
  "--config.log_every=7",
  "--config.checkpoint_every=5",
  "--config.sample_every=150",
)


def _assert_same_run(one, two):
  a, b = final_arrays(one, 200), final_arrays(two, 200)
  assert a.keys() == b.keys() and len(a) > 50
  for name in a:
    assert np.array_equal(a[name], b[name]), name
  assert curve(one) == curve(two) and len(curve(one)) == 30
  name = "samples/step_00000200.png"
  assert (one / name).read_bytes() == (two / name).read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  done = commands.run("train", *FLAGS, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  return workdir


def _start_and_wait(workdir):
  """A training process that has begun its loop."""
  process = commands.start("train", *FLAGS, f"--workdir={workdir}")
  for line in process.stdout:
    if " parameters" in line:
      return process, line
  raise AssertionError(f"ended with {process.wait()}")


def _writing(workdir):
  """Whether a checkpoint is half written, or was when the process died."""
  names = [path.name for path in (workdir / "checkpoints").iterdir()]
  return any("tmp" in name for name in names)


@pytest.mark.slow
def test_ten_kills_change_no_bit(uninterrupted, tmp_path):
  """kill -9 at random moments, every other one in the middle of a write."""
  rng, kills, halves = random.Random(0), 0, 0
  while kills < 10:
    process, line = _start_and_wait(tmp_path)
    while not kills and not list((tmp_path / "checkpoints").glob("[0-9]*5")):
      time.sleep(0.05)  # the first kill comes after the first checkpoint
    if kills % 2:
      while process.poll() is None and not _writing(tmp_path):
        time.sleep(0.001)
    else:
      time.sleep(rng.uniform(0.0, 3.0))
    if process.poll() is not None:
      break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kills += 1
    if "resumes" not in line:
      assert kills == 1
    halves += _writing(tmp_path)
  assert kills >= 5, "the run ended before it could be killed often enough"
  assert halves, "no kill came in the middle of a write"
  done = commands.run("train", *FLAGS, f"--workdir={tmp_path}")
  assert done.returncode == 0 and "damaged" not in done.stderr, done.stderr
  _assert_same_run(uninterrupted, tmp_path)


@pytest.mark.slow
def test_sigterm_saves_first_and_exits_cleanly(uninterrupted, tmp_path):
  process, _ = _start_and_wait(tmp_path)
  while not runs.steps(tmp_path):
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  out, _ = process.communicate(timeout=60)
  assert process.returncode == 0, out
  assert "SIGTERM: saved at step" in out
  step = int(out.split("saved at step ")[1].split(";")[0])
  steps = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
  assert max(steps) == step < 200
  done = commands.run("train", *FLAGS, f"--workdir={tmp_path}")
  assert f"resumes at step {step}" in done.stdout
  _assert_same_run(uninterrupted, tmp_path)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_costs_steps_but_no_bit(
  uninterrupted, tmp_path
):
  workdir = tmp_path / "run"
  shutil.copytree(uninterrupted, workdir)
  files = [p for p in (workdir / "checkpoints/200").rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[:100])
  done = commands.run("train", *FLAGS, f"--workdir={workdir}")
  assert done.returncode == 0
  assert "WARNING: checkpoint 200" in done.stderr
  assert "is damaged and is skipped" in done.stderr
  assert len(done.stderr.splitlines()) < 4, done.stderr
  assert "resumes at step 195" in done.stdout
  _assert_same_run(uninterrupted, workdir)


def test_a_loss_that_is_not_finite_stops_training(tmp_path):
  flags = (
    "--config=configs/toy2d.py:smoke",
    "--config.learning_rate.peak_value=1e38",
    "--config.clip_norm=inf",
    "--config.optimizer.name=sgd",
    "--config.checkpoint_every=1",
    f"--workdir={tmp_path}",
  )
  from diffflow_jax import cli
  from diffflow_jax.commands import train

  with pytest.raises(cli.Failure) as caught:
    train.main(["train", *flags])
  message = str(caught.value)
  assert "not finite at step" in message, message
  bad = int(message.split("not finite at step ")[1].split(";")[0])
  good = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert f"checkpoint {good} is good" in message and good <= bad
  with checkpoints.Checkpoints(tmp_path / "checkpoints", read_only=True) as c:
    assert c.steps()[0] == good


def test_a_loss_that_is_not_finite_is_said_before_a_picture_of_it(tmp_path):
  from diffflow_jax import cli
  from diffflow_jax.commands import train

  with pytest.raises(cli.Failure, match="not finite at step"):
    train.main(
      [
        "train",
        "--config=configs/toy2d.py:smoke",
        "--config.learning_rate.peak_value=1e38",
        "--config.clip_norm=inf",
        "--config.log_every=20",
        "--config.sample_every=6",
        "--config.checkpoint_every=20",
        f"--workdir={tmp_path}",
      ]
    )


def test_metrics_after_the_checkpoint_are_dropped_on_resume(tmp_path):
  with metrics.Writer(tmp_path, 0) as w:
    for step in (5, 10, 15):
      w.write(step, {"loss": 1.0 / step})
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write('{"step": 20, "lo')  # killed while it wrote
  with metrics.Writer(tmp_path, 10) as w:
    w.write(15, {"loss": 0.5})
  lines = [json.loads(l) for l in open(tmp_path / "metrics.jsonl")]
  assert [(l["step"], l["loss"]) for l in lines] == [
    (5, 0.2),
    (10, 0.1),
    (15, 0.5),
  ]


def test_what_the_objective_learned_is_resumed_to_the_same_bits(tmp_path):
  """An adaptive density and a learned weighting are part of the state."""
  from diffflow_jax.commands import train

  flags = (
    "--config=configs/toy2d.py:smoke",
    "--config.objective.density=adaptive:decay=0.9",
    "--config.objective.weighting=uncertainty:num_channels=16",
    "--config.checkpoint_every=5",
  )
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  train.main(["train", *flags, f"--workdir={whole}"])
  shutil.copytree(whole, cut)
  for step in (20, 15):
    shutil.rmtree(cut / "checkpoints" / str(step))
  train.main(["train", *flags, f"--workdir={cut}"])
  one, two = final_arrays(whole, 20), final_arrays(cut, 20)
  assert one.keys() == two.keys()
  for name in one:
    assert np.array_equal(one[name], two[name]), name
  learned = [n for n in one if "'density'" in n or "'objective'" in n]
  assert len(learned) >= 7 and all(np.any(one[n]) for n in learned), learned
