"""Any file of a run, damaged in any way: said in a sentence, or done without.

No traceback, and nothing that is silently wrong: what is read is what was
written, of that step.
"""

import dataclasses
import errno
import json
import logging
import os
import pathlib
import shutil
import zlib

import jax
import numpy as np
import pytest

from diffflow_jax import cli
from diffflow_jax.commands import train
from diffflow_jax.runs import card, restore, snapshots, workdir as workdir_lib
from diffflow_jax.store import checkpoints, history, storage
from diffflow_jax.training import metrics, programs
from diffflow_jax.training.resolve import resolve
from tests import commands, runs

FLAGS = (
  "--config=configs/toy2d.py:smoke",
  "--config.network.width=8",
  "--config.ema.name=power",
  "--config.ema.sigma_rel=(0.05,0.1)",
  "--config.checkpoint_every=10",
  "--config.snapshot_every=10",
)


def _garbage(path):
  path.write_bytes(np.random.default_rng(0).bytes(max(1, path.stat().st_size)))


def _bit(path):
  data = bytearray(path.read_bytes())
  if data:
    where = zlib.crc32(path.name.encode()) % (8 * len(data))
    data[where // 8] ^= 1 << where % 8
  path.write_bytes(bytes(data))


def _directory(path):
  path.unlink()
  path.mkdir()


DAMAGES = {
  "halved": lambda path: path.write_bytes(
    path.read_bytes()[: path.stat().st_size // 2]
  ),
  "one bit": _bit,
  "emptied": lambda path: path.write_bytes(b""),
  "deleted": lambda path: path.unlink(),
  "garbage": _garbage,
  "a directory": _directory,
}


class Run:
  """A finished run, and what it holds."""

  def __init__(self, workdir):
    self.workdir = workdir
    self.config = workdir_lib.load_config(workdir)
    self.run = resolve(self.config)
    self.like = programs.build(self.run).like.items()
    self.card = restore.load_recipe(workdir).card
    self.data = (workdir / card.DATA).read_bytes()
    self.lines = (workdir / history.METRICS).read_bytes().splitlines()
    with checkpoints.Checkpoints(
      workdir / "checkpoints", read_only=True
    ) as saved:
      self.states = {s: saved.load(s, self.like) for s in (10, 20)}
    known = restore.load_recipe(workdir)
    self.averages = [
      self.rebuilt(snapshots_of) for snapshots_of in self._fewer(known)
    ]

  def _fewer(self, known):
    """The run with both snapshots, and with each of them alone."""
    yield self.workdir
    for step in ("10", "20"):
      copy = self.workdir.parent / f"without_{step}"
      shutil.copytree(self.workdir, copy)
      shutil.rmtree(copy / "snapshots" / step)
      yield copy

  def rebuilt(self, workdir):
    """What snapshots give: (step, an average of another width)."""
    known = restore.load_recipe(workdir)
    return restore.load_ema(workdir, known, sigma_rel=0.08)

  def read(self, workdir):
    """What sampling reads of the checkpoints; the step."""
    with checkpoints.Checkpoints(
      workdir / "checkpoints", read_only=True
    ) as saved:
      step, items = saved.restore({"ema": self.like["ema"]})
    assert _same(items["ema"], self.states[step]["ema"])
    return step

  def go_on(self, workdir):
    """What a start of training does before it compiles; the step."""
    keep = self.config.keep
    with (
      workdir_lib.claimed(str(workdir), self.config, self.run.card),
      checkpoints.Checkpoints(workdir / "checkpoints", **keep) as saved,
      snapshots.open_in(workdir),
    ):
      restored = saved.restore(self.like)
      step, items = restored or (0, None)
      every = self.config.log_every
      with metrics.Writer(workdir, step, every=every):
        pass
    if step:
      assert _same(items, self.states[step])
    for line in (workdir / history.METRICS).read_bytes().splitlines():
      assert json.loads(line)["step"] <= step
    return step

  def sample(self, workdir):
    """What sampling reads; the step."""
    known = restore.load_recipe(workdir)
    assert known.config.to_dict() == self.config.to_dict()
    want, path = self.card, workdir / card.DATA
    if not path.is_file() or path.read_bytes() != self.data:
      want = dataclasses.replace(want, found={})  # the data set was asked
    assert known.card == want
    step, ema = restore.load_ema(workdir, known)
    assert _same(ema, self.states[step]["ema"][0])
    return step


def _same(one, two):
  one, two = jax.tree.leaves(one), jax.tree.leaves(two)
  return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.fixture(scope="module", autouse=True)
def remembered():
  """Orbax reads the same bytes once: all this is of hundreds of copies."""
  with pytest.MonkeyPatch.context() as patch:
    for name in ("shapes", "load"):
      patch.setattr(storage, name, _remembered(getattr(storage, name)))
    yield


def _remembered(read):
  known = {}

  def reading(path, *like):
    files = sorted(p for p in pathlib.Path(path).rglob("*") if p.is_file())
    # its place is a part of what Orbax tells of it
    key = [str(path).rpartition("/run/")[2], str(like)]
    key += [(str(p.relative_to(path)), p.read_bytes()) for p in files]
    key = repr(key)
    if key not in known:
      known[key] = read(path, *like)
    return known[key]

  return reading


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole") / "run"
  train.main(["train", *FLAGS, f"--workdir={workdir}"])
  return Run(workdir)


def _copy(run, target):
  """The run once more; what is never written in place is linked."""

  def copy(source, target):
    linked = "/checkpoints/" in source or "/snapshots/" in source
    (os.link if linked else shutil.copy2)(source, target)

  shutil.copytree(run.workdir, target, copy_function=copy)
  return target


def _files(run):
  return [
    str(path.relative_to(run.workdir))
    for path in sorted(run.workdir.rglob("*"))
    if path.is_file()
  ]


def _damaged(run, tmp_path, name, damage):
  """A copy with one file damaged."""
  workdir = _copy(run, tmp_path / "run")
  victim = workdir / name
  data = victim.read_bytes()
  victim.unlink()  # it may be a link to the whole one
  victim.write_bytes(data)
  DAMAGES[damage](victim)
  return workdir


def _outcome(caplog, work):
  """What work() gives, or its one sentence; and its warnings."""
  caplog.clear()
  try:
    result = work()
  except (cli.Refusal, cli.Failure) as error:
    result = str(error)
    assert result and "\n" not in result, result
  warned = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
  return result, warned


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_run_may_be_damaged(run, tmp_path, caplog, damage):
  names = _files(run)
  assert len(names) > 120
  turn = list(DAMAGES).index(damage)
  for i, name in enumerate(names):
    within = name.startswith(("checkpoints", "snapshots"))
    if within and (i + turn) % 3:
      continue  # many are of one kind: each has two of the six
    workdir = _damaged(run, tmp_path, name, damage)
    sample = run.read if within else run.sample
    step, warned = _outcome(caplog, lambda: sample(workdir))  # noqa: B023
    assert len(warned) <= 1, (name, warned)
    if name == "config.json":
      assert isinstance(step, str)
    elif step != 20:
      assert (step, len(warned)) == (10, 1), (name, step, warned)
    if name.startswith("snapshots"):
      (newest, average), warned = _outcome(caplog, lambda: run.rebuilt(workdir))  # noqa: B023
      assert len(warned) <= 1
      want = run.averages if warned else run.averages[:1]
      assert any(newest == s and _same(average, a) for s, a in want), name
    step, warned = _outcome(caplog, lambda: run.go_on(workdir))  # noqa: B023
    # of metrics.jsonl also the steps that it lacks
    assert len(warned) <= 1 + (name == "metrics.jsonl"), (name, warned)
    if name == "config.json":
      assert isinstance(step, str)
    elif step != 20:
      assert (step, len(warned)) == (10, 1), (name, step, warned)
      assert list((workdir / "damaged").glob("20_*")), name
    shutil.rmtree(workdir)


@pytest.mark.slow
def test_a_damaged_run_goes_on_by_the_command_to_the_same_bits(run, tmp_path):
  """What the state does not need is done without; each has its warning."""
  workdir = tmp_path / "run"
  shutil.copytree(run.workdir, workdir)
  newest = workdir / "checkpoints" / "20" / "params"
  DAMAGES["one bit"](max(newest.glob("d/*"), key=lambda p: p.stat().st_size))
  DAMAGES["emptied"](workdir / "data.json")
  DAMAGES["garbage"](workdir / "metrics.jsonl")
  DAMAGES["a directory"](workdir / "lock")
  for name in ("tensorboard", "samples"):
    shutil.rmtree(workdir / name)
    (workdir / name).write_text("")
  done = commands.run("train", *FLAGS, f"--workdir={workdir}")
  assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
  assert "resumes at step 10" in done.stdout
  said = done.stderr.splitlines()
  assert len(said) == 6 and all("WARNING" in line for line in said), said
  one, two = runs.final_arrays(run.workdir, 20), runs.final_arrays(workdir, 20)
  assert all(np.array_equal(one[name], two[name]) for name in one)
  picture = "samples/step_00000020.png"
  assert (workdir / picture).read_bytes() == (
    run.workdir / picture
  ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["garbage", "one bit", "a directory"])
def test_a_damaged_config_is_a_sentence_of_the_commands(run, tmp_path, damage):
  workdir = _damaged(run, tmp_path, "config.json", damage)
  out = tmp_path / "samples.npz"
  for done in (
    commands.run("train", *FLAGS, f"--workdir={workdir}"),
    commands.run("sample", f"--workdir={workdir}", f"--out={out}"),
  ):
    assert done.returncode == 2 and not out.exists()
    assert done.stderr.startswith("error: ") and "config.json" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_lines_that_cannot_be_read_cost_themselves_alone(tmp_path, caplog):
  lines = [json.dumps({"step": step, "loss": 0.5}) for step in (5, 10, 15)]
  strange = [
    "5",
    "null",
    "{}",
    '{"stp": 5}',
    '{"step": "5"}',
    "\x00",
    "[" * 9999,
  ]
  path = tmp_path / "metrics.jsonl"
  text = "\n".join([lines[0], *strange, *lines[1:], '{"step": 20, "l'])
  path.write_text(text)
  with metrics.Writer(tmp_path, 10, every=5):
    pass
  assert path.read_text().splitlines() == lines[:2]
  (message,) = [r.message for r in caplog.records]
  assert "7 lines cannot be read" in message
  (aside,) = (tmp_path / "damaged").iterdir()
  assert aside.read_text() == text
  assert [line["step"] for line in metrics.read(tmp_path)] == [5, 10]


@pytest.mark.parametrize("kept, lacks", [(3, False), (2, True), (0, True)])
def test_lines_that_are_missing_are_told(tmp_path, caplog, kept, lacks):
  lines = [json.dumps({"step": step}) + "\n" for step in (7, 14, 21)]
  (tmp_path / "metrics.jsonl").write_text("".join(lines[:kept]))
  with metrics.Writer(tmp_path, 25, every=7):
    pass
  assert ("lacks the steps" in caplog.text) == lacks


def test_lines_wait_for_room_from_the_start(tmp_path, caplog, monkeypatch):
  """A disk that is full when a run goes on: nothing can be created."""
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 5}\n{"step": 10}\n')

  def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  with monkeypatch.context() as patch:
    patch.setattr(metrics, "open", full, raising=False)
    patch.setattr(metrics.shutil, "disk_usage", full)
    patch.setattr(metrics.paths, "write", full)
    with metrics.Writer(tmp_path, 5) as writer:
      assert path.read_text() == '{"step": 5}\n'  # cut in place
      writer.write(10, {"loss": 1.0})
      patch.undo()
      writer.write(15, {"loss": 2.0})
  assert [line["step"] for line in metrics.read(tmp_path)] == [5, 10, 15]
  assert "metrics.jsonl cannot be written: No space left" in caplog.text
