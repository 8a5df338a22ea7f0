"""What a run tells while it runs: profiler, Weights & Biases, a full disk."""

import importlib.machinery
import json
import os
import subprocess
import sys
import types

import pytest

from diffflow_jax import cli
from diffflow_jax.commands import train
from diffflow_jax.store import checkpoints
from diffflow_jax.training import metrics, profiler
from tests import commands, runs

TOY = "--config=configs/toy2d.py:smoke"


def test_the_window_of_a_profile_is_read_or_refused():
  assert profiler.parse(None, 20) is None
  assert profiler.parse("10:15", 20) == (10, 15)
  for text in ("10", "a:b", "15:10", "3:3", "20:25"):
    with pytest.raises(cli.Refusal, match="--profile"):
      profiler.parse(text, 20)


def test_a_trace_of_the_asked_steps_is_left(tmp_path):
  train.main(["train", TOY, f"--workdir={tmp_path}", "--profile=6:8"])
  traces = list((tmp_path / "profile").rglob("*.xplane.pb"))
  assert len(traces) == 1 and traces[0].stat().st_size > 1000


class FakeWandb(types.ModuleType):
  """Notes what is logged; the real one writes to a server."""

  def __init__(self):
    super().__init__("wandb")
    self.__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    self.inits, self.logs, self.finished = [], [], 0

  def init(self, **settings):
    self.inits.append(settings)
    return self

  def log(self, values, step):
    self.logs.append((step, values))

  def Image(self, image):
    return ("image", image.shape)

  def finish(self):
    self.finished += 1


def test_weights_and_biases_gets_every_number_and_one_run(
  tmp_path, monkeypatch
):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  flags = (f"--workdir={tmp_path}", "--wandb=project")
  train.main(["train", TOY, *flags])
  (first, look), *logs = fake.logs  # a batch of the data, before all numbers
  assert first == 0 and look["data"][0] == "image"
  pictures = [(step, values) for step, values in logs if "samples" in values]
  assert [step for step, _ in pictures] == [20]
  assert pictures[0][1]["samples"][0] == "image"
  logged = [{"step": step, **v} for step, v in logs if "samples" not in v]
  assert logged == metrics.read(tmp_path) and len(logged) == 4
  train.main(["train", TOY, *flags])  # again: the same run there
  first, second = fake.inits
  assert first == second and first["project"] == "project"
  assert first["id"] and first["resume"] == "allow" and fake.finished == 2
  assert first["config"]["batch_size"] == 64


def test_weights_and_biases_missing_is_said(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(cli.Refusal, match="pip install wandb"):
    train.main(["train", TOY, f"--workdir={tmp_path}", "--wandb=project"])


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 1.5 MB, and a function that makes it larger."""
  mount = lambda *how: subprocess.run(
    ["mount", *how, "tmpfs", str(tmp_path)], capture_output=True
  )
  if mount("-t", "tmpfs", "-o", "size=1500k").returncode:
    pytest.skip("no right to mount a small file system")
  yield tmp_path, lambda: mount("-o", "remount,size=64m")
  subprocess.run(["umount", "-l", str(tmp_path)], check=True)


FULL = (
  TOY,
  "--config.num_steps=60",
  "--config.checkpoint_every=5",
  "--config.keep.latest=20",
  "--config.sample_every=20",
)


@pytest.mark.slow
def test_training_goes_on_over_a_full_disk_and_saves_when_there_is_room(
  small_disk,
):
  disk, enlarge = small_disk
  workdir = disk / "run"
  process = commands.start("train", *FULL, f"--workdir={workdir}")
  output = []
  for line in process.stdout:
    output.append(line)
    if "could not be saved, training goes on: No space left" in line:
      enlarge()
  text = "".join(output)
  assert process.wait() == 0 and "could not be saved" in text, text
  assert "Traceback" not in text and len(output) < 20, text
  steps = runs.steps(workdir)
  assert steps[-1] == 60 and len(steps) < 12
  assert not list((workdir / "checkpoints").glob("*tmp*"))
  assert [l["step"] for l in runs.curve(workdir)] == list(range(5, 61, 5))
  with checkpoints.Checkpoints(workdir / "checkpoints", read_only=True) as c:
    assert c.restore({}) == (60, {})


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_with_a_sentence(small_disk):
  disk, _ = small_disk
  done = commands.run("train", *FULL, f"--workdir={disk / 'run'}")
  last = done.stderr.splitlines()[-1]
  good = runs.steps(disk / "run")[-1]
  assert done.returncode == 1
  assert last == (
    "error: step 60 cannot be saved: No space left on device; checkpoint "
    f"{good} is good"
  ), done.stderr
  assert "Traceback" not in done.stderr


def test_a_line_cut_by_a_full_disk_is_taken_back(tmp_path, monkeypatch):
  with metrics.Writer(tmp_path, 0) as writer:
    writer.write(1, {"loss": 1.0})
    file, real = writer._file, writer._file.write

    class Full:
      name = file.name
      truncate = staticmethod(file.truncate)

      @staticmethod
      def write(data):
        return real(data[:5])

    writer._file = Full
    writer.write(2, {"loss": 2.0})
    writer._file = file
    assert os.path.getsize(file.name) == len(b'{"step": 1, "loss": 1.0}\n')
    writer.write(3, {"loss": 3.0})
  lines = [json.loads(l) for l in open(tmp_path / "metrics.jsonl")]
  assert [l["step"] for l in lines] == [1, 2, 3]
