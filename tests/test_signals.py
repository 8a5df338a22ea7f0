"""Being asked to stop: once is enough, and twice is once."""

import os
import signal
import subprocess
import time

import pytest

from diffflow_jax.training import preemption
from tests import commands, runs

FLAGS = (
  "--config=configs/toy2d.py:smoke",
  "--config.num_steps=100000",
  "--config.checkpoint_every=50000",
  "--config.sample_every=100000",
  "--config.log_every=1000",
)
NUMBERS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.fixture
def handlers():
  """Puts back what a StopRequest leaves: it is made for a process's end."""
  before = {n: signal.getsignal(n) for n in NUMBERS}
  yield
  for number, handler in before.items():
    signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_noted_and_the_same_again_is_the_same(number, handlers):
  with preemption.StopRequest() as stop:
    assert stop.at(0) is None
    for _ in range(3):
      os.kill(os.getpid(), number)
      time.sleep(0.01)
    assert stop.at(1) == signal.Signals(number).name
  if number != signal.SIGINT:  # and until the process has ended
    os.kill(os.getpid(), number)


def test_only_a_second_ctrl_c_hurries_and_says_what_it_gives_up(
  handlers, monkeypatch, capfd
):
  monkeypatch.setattr(preemption, "ONE_REQUEST", 0.05)
  with pytest.raises(KeyboardInterrupt):
    with preemption.StopRequest() as stop:
      os.kill(os.getpid(), signal.SIGTERM)
      os.kill(os.getpid(), signal.SIGINT)
      assert stop.at(0) == "SIGTERM"
      time.sleep(0.1)
      os.kill(os.getpid(), signal.SIGTERM)
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(0.1)
  err = capfd.readouterr().err
  assert "SIGINT: saving; Ctrl-C again ends at once, without this save" in err
  assert "the save that was under way is given up" in err


def test_an_ignored_signal_stays_ignored(handlers):
  signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup starts a job
  with preemption.StopRequest() as stop:
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.01)
    assert stop.at(0) is None


def test_without_a_request_the_handlers_are_as_before(handlers):
  before = [signal.getsignal(n) for n in NUMBERS]
  with preemption.StopRequest():
    assert [signal.getsignal(n) for n in NUMBERS] != before
  assert [signal.getsignal(n) for n in NUMBERS] == before


def _start(workdir, *launcher):
  """A training process that is in its loop, in a process group of its own."""
  process = subprocess.Popen(
    [*launcher, *commands.command("train", *FLAGS, f"--workdir={workdir}")],
    cwd=commands.ROOT,
    env=commands.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    start_new_session=True,
  )
  for line in process.stdout:
    if "steps/s" in line:
      return process
  raise AssertionError(f"ended with {process.wait()}")


def _one(number):
  return lambda process: process.send_signal(number)


def _twice(number, seconds):
  def send(process):
    process.send_signal(number)
    time.sleep(seconds)
    process.send_signal(number)

  return send


def _group_and_leader(process):
  os.killpg(process.pid, signal.SIGTERM)
  process.send_signal(signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize(
  "send,name,launcher",
  [
    (_one(signal.SIGHUP), "SIGHUP", ()),
    (_one(signal.SIGINT), "SIGINT", ()),
    (_twice(signal.SIGTERM, 0.005), "SIGTERM", ()),
    (_twice(signal.SIGTERM, 0.3), "SIGTERM", ()),
    (_twice(signal.SIGHUP, 0.05), "SIGHUP", ()),
    (_twice(signal.SIGINT, 0.01), "SIGINT", ()),
    (_group_and_leader, "SIGTERM", ()),
    (_one(signal.SIGTERM), "SIGTERM", ("timeout", "600")),
  ],
  ids=[
    "hup", "int", "term_5ms", "term_300ms", "hup_twice", "int_twice_at_once",
    "group_and_leader", "timeout_passes_it_on",
  ],
)  # fmt: skip
def test_a_request_saves_however_often_it_comes(send, name, launcher, tmp_path):
  process = _start(tmp_path, *launcher)
  send(process)
  out, _ = process.communicate(timeout=120)
  assert f"{name}: saved at step " in out and "Traceback" not in out, out
  # timeout(1) says 124 for its own limit alone; it passes on the status
  assert process.returncode == 0, out
  step = int(out.split("saved at step ")[1].split(";")[0])
  assert runs.steps(tmp_path) == [step]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["train", "sample"])
def test_ctrl_c_while_it_imports_is_quiet(name, seconds, tmp_path):
  """From our first line on; before it there is only Python itself."""
  flags = FLAGS if name == "train" else ("--out=x.png",)
  python, *rest = commands.command(name, *flags, f"--workdir={tmp_path}")
  process = subprocess.Popen(
    [python, "-X", "importtime", *rest],
    cwd=commands.ROOT,
    env=commands.environment(),
    stderr=subprocess.PIPE,
    text=True,
  )
  for line in process.stderr:
    if line.rstrip().endswith("absl"):  # what `cli` imports first
      break
  time.sleep(seconds)
  process.send_signal(signal.SIGINT)
  _, err = process.communicate(timeout=60)
  if "holds no run" in err:
    return  # sample had said so by then
  assert "Traceback" not in err, err
  assert process.returncode == 130
