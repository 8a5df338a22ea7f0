"""Two processes that train together: the same job as one, and as safe."""

import random
import shutil
import signal
import socket
import time

import numpy as np
import pytest

from tests import commands, runs
from tests.runs import curve, final_arrays

FLAGS = (
  "--config=configs/toy2d.py:smoke",
  "--config.num_steps=30",
  "--config.batch_size=64",
  "--config.log_every=7",
  "--config.checkpoint_every=5",
  "--config.sample_every=20",
)
DEVICES = "--xla_force_host_platform_device_count={}"


def start_pair(workdir, *flags, devices=4):
  """Two processes with a few devices each, and a port of their own."""
  with socket.socket() as s:
    s.bind(("localhost", 0))
    port = s.getsockname()[1]
  return [
    commands.start(
      "train",
      *FLAGS,
      *flags,
      f"--workdir={workdir}",
      f"--coordinator=localhost:{port}",
      "--num_processes=2",
      f"--process_id={i}",
      XLA_FLAGS=DEVICES.format(devices),
    )
    for i in range(2)
  ]


def finish(pair, timeout=300):
  """(exit statuses, outputs) of both; none is left behind."""
  try:
    outputs = [p.communicate(timeout=timeout)[0] for p in pair]
  finally:
    kill(pair)
  return [p.returncode for p in pair], outputs


def kill(pair):
  for p in pair:
    p.kill()
  for p in pair:
    p.wait()


def start_and_wait(workdir, *flags):
  """A pair whose first process has begun its loop."""
  pair = start_pair(workdir, *flags)
  for line in pair[0].stdout:
    if " parameters" in line:
      return pair, line
  kill(pair)
  raise AssertionError("ended before its loop")


def wait_for_steps(pair, workdir, done):
  """Until the steps on disk satisfy `done`; an end before that fails."""
  while not done(runs.steps(workdir)):
    ended = [p for p in pair if p.poll() is not None]
    if ended and not done(runs.steps(workdir)):
      kill(pair)
      raise AssertionError([(p.returncode, p.stdout.read()) for p in pair])
    time.sleep(0.05)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """An uninterrupted run of two processes, sharded over all eight devices."""
  workdir = tmp_path_factory.mktemp("pair")
  status, outputs = finish(start_pair(workdir, *MIXED))
  assert status == [0, 0], outputs
  return workdir


MIXED = ("--config.mesh.data=2", "--config.mesh.fsdp=4")
PICTURE = "samples/step_00000030.png"


@pytest.mark.slow
def test_kills_of_both_change_no_bit_and_another_topology_only_rounds(
  whole, tmp_path
):
  rng = random.Random(0)
  for kills in range(2):
    pair, line = start_and_wait(tmp_path, *MIXED)
    wait_for_steps(pair, tmp_path, bool)
    time.sleep(rng.uniform(0.0, 2.0))
    kill(pair)
    assert ("resumes" in line) == (kills > 0)
  status, outputs = finish(start_pair(tmp_path, *MIXED))
  assert status == [0, 0] and "resumes" in outputs[0], outputs
  assert "damaged" not in outputs[0] + outputs[1]
  one, two = final_arrays(whole, 30), final_arrays(tmp_path, 30)
  assert one.keys() == two.keys() and len(one) > 50
  for name in one:
    assert np.array_equal(one[name], two[name]), name
  assert curve(whole) == curve(tmp_path) and len(curve(whole)) == 6
  assert (whole / PICTURE).read_bytes() == (tmp_path / PICTURE).read_bytes()


@pytest.mark.slow
def test_one_process_goes_on_from_two_and_two_from_one(whole, tmp_path):
  """On one process's 8 devices, then the pair's again: equal to rounding."""
  shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
  for step in runs.steps(whole)[-2:]:
    shutil.rmtree(tmp_path / "checkpoints" / str(step))
  alone = commands.start(
    "train",
    *FLAGS,
    *MIXED,
    f"--workdir={tmp_path}",
    XLA_FLAGS=DEVICES.format(8),
  )
  for line in alone.stdout:
    if " parameters" in line:
      assert "resumes at step 20: " in line and "8 cpu" in line
      break
  wait_for_steps([alone], tmp_path, lambda steps: 25 in steps)
  kill([alone])
  if 30 in runs.steps(tmp_path):
    shutil.rmtree(tmp_path / "checkpoints/30")
  status, outputs = finish(start_pair(tmp_path, *MIXED))
  assert status == [0, 0] and "resumes at step 25" in outputs[0], outputs
  one, two = final_arrays(whole, 30), final_arrays(tmp_path, 30)
  for name in one:
    np.testing.assert_allclose(
      one[name], two[name], rtol=1e-4, atol=2e-6, err_msg=name
    )
  ours, theirs = curve(whole), curve(tmp_path)
  assert [l["step"] for l in ours] == [l["step"] for l in theirs]
  for a, b in zip(ours, theirs, strict=True):
    for name in a:
      close = 1e-5 * a[name] if name == "loss" else 1e-4 * (1.0 + abs(a[name]))
      assert abs(a[name] - b[name]) < close, name


@pytest.mark.slow
def test_sigterm_to_one_saves_all(whole, tmp_path):
  pair, _ = start_and_wait(tmp_path, *MIXED)
  wait_for_steps(pair, tmp_path, bool)
  pair[1].send_signal(signal.SIGTERM)
  status, outputs = finish(pair)
  assert status == [0, 0], outputs
  stopped = int(outputs[0].split("SIGTERM: saved at step ")[1].split(";")[0])
  assert 5 <= stopped < 30 and runs.steps(tmp_path)[-1] == stopped
  status, outputs = finish(start_pair(tmp_path, *MIXED))
  assert status == [0, 0] and f"resumes at step {stopped}" in outputs[0]
  one, two = final_arrays(whole, 30), final_arrays(tmp_path, 30)
  for name in one:
    assert np.array_equal(one[name], two[name]), name


@pytest.mark.slow
def test_a_process_that_is_not_like_the_others_ends_all(tmp_path):
  """Another config on one of them is refused at once, and nobody hangs."""
  pair = start_pair(tmp_path, "--config.seed=1")
  pair[1].kill()
  port = [a for a in pair[0].args if "coordinator" in a][0]
  pair[1] = commands.start(
    *(["train", *FLAGS, "--config.seed=2", f"--workdir={tmp_path}"]),
    *(port, "--num_processes=2", "--process_id=1"),
    XLA_FLAGS=DEVICES.format(4),
  )
  status, outputs = finish(pair, timeout=120)
  assert 0 not in status
  assert "error: the processes were given different configs" in "".join(outputs)
  assert "Traceback" not in "".join(outputs)


@pytest.mark.parametrize(
  "text,status,said",
  [
    ("INTERNAL: Gloo context initialization failed", 1, "was not heard of"),
    ("RESOURCE_EXHAUSTED: Out of memory", 1, "JaxRuntimeError: RESOURCE_EX"),
  ],
)
def test_a_process_that_lost_another_says_so(
  text, status, said, monkeypatch, capsys
):
  """Gloo, for CPUs, waits 30 s: one that compiles longer is lost."""
  import os

  import jax

  from diffflow_jax.store import processes

  ended = []
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(os, "_exit", ended.append)
  with pytest.raises(jax.errors.JaxRuntimeError):  # for want of an _exit
    with processes.fail_at_once():
      raise jax.errors.JaxRuntimeError(text)
  err = capsys.readouterr().err
  assert ended == [status] and said in err
  assert ("Traceback" in err) == ("Gloo" not in text)


def test_places_are_given_whole_or_found():
  from diffflow_jax import cli
  from diffflow_jax.store import processes

  with pytest.raises(cli.Refusal, match="go together"):
    processes.initialize("localhost:1", 2, None)
  with pytest.raises(cli.Refusal, match=r"must be in \[0, 2\), not 2"):
    processes.initialize("localhost:1", 2, 2)
  with pytest.raises(cli.Refusal, match="HOST:PORT, not 'localhost'"):
    processes.initialize("localhost", 2, 0)
  assert not processes.on_a_cluster({})
  assert not processes.on_a_cluster(
    {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4"}
  )
  assert processes.on_a_cluster({"SLURM_STEP_NUM_TASKS": "4"})
  assert processes.on_a_cluster({"TPU_WORKER_HOSTNAMES": "a,b"})
