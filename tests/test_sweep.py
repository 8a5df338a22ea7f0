"""Sweeps: what a file yields, the runs that come of it, their table."""

import csv
import json
import os
import re
import shutil
import signal
import stat
import threading
import time
import types

import numpy as np
import pytest

from diffflow_jax import cli
from diffflow_jax.commands import children, sweep, sweep_file, sweep_runs
from diffflow_jax.plots import sweeps
from tests import commands, runs
from tests.test_commands import refusal

TOY = "configs/toy2d.py:smoke"
SMALL = ("--config.network.width=8", "--config.sampler.num_samples=8")


def written(folder, body, name="sweep.py"):
  """A sweep's file with these lines in sweep()."""
  path = folder / name
  lines = "".join(f"  {line}\n" for line in body)
  path.write_text(f"def sweep():\n{lines}")
  return path


def flags(path, out, *more):
  return [f"--config={TOY}", *SMALL, f"--sweep={path}", f"--out={out}", *more]


def test_names_are_the_overrides_and_depend_on_nothing_else():
  name = lambda **o: sweep_file.name_of(dict(sweep_file._flat(o)))
  assert name(seed=1) == "seed=1" and name() == "base"
  assert name(optimizer={"b2": 0.99, "name": "adam"}) == (
    "optimizer.b2=0.99,optimizer.name=adam"
  )
  assert name(x=np.float32(0.5), y=[1, 2]) == "x=0.5,y=(1,2)"
  assert name(x=np.int64(3)) == "x=3" and name(x=1) != name(x=1.0)
  one, two = name(path="a/b c"), name(path="a-b-c")
  assert one.startswith("path=a-bc-") and two == "path=a-b-c" and one != two
  assert len(name(x="y" * 500)) < 200
  assert name(x="y" * 500 + "1") != name(x="y" * 500 + "2")


@pytest.mark.parametrize(
  "body, words",
  [
    (["return None"], "must yield dicts of overrides, .* returns nothing"),
    (["return {'seed': 1}"], "must yield dicts of overrides, .* a dict$"),
    (["yield ('seed', 1)"], r"must yield dicts .*, not \('seed', 1\)"),
    (["yield from ()"], "yields nothing$"),
    (["yield {'seed': 1}", "yield {'seed': 1}"], "yields seed=1 twice"),
    (["yield {'seed': 1}", "1 / 0"], "line 3: ZeroDivisionError"),
    (["yield {'nax.b': 1}"], "run nax.b=1: .*no section 'nax' with fields"),
    (["yield {'nax': 1}"], "run nax=1: config.nax is not a field of a config"),
    (["yield {'network.widht': 8}"], "run network.widht=8: .*widht"),
    (["yield {'seed': 1.5}"], "run seed=1.5: .*invalid literal"),
    (["yield {'network.x': '8'}"], "cannot be '8', which is read as 8"),
    (["yield {'network.width': 9}"], "--config.network.width is given, and"),
  ],
)
def test_a_file_that_cannot_work_is_refused_in_a_sentence(
  tmp_path, body, words
):
  path = written(tmp_path, body)
  said = refusal("sweep", *flags(path, tmp_path / "out"))
  assert re.search(words, said), said
  assert not list(tmp_path.glob("out/*/config.json"))


def test_what_is_no_sweeps_file_or_folder_is_refused(tmp_path, monkeypatch):
  out = tmp_path / "out"
  assert "has no sweep()" in refusal("sweep", *flags("configs/toy2d.py", out))
  assert "no file 'nix.py'" in refusal("sweep", *flags("nix.py", out))
  path = written(tmp_path, ["yield {'seed': 1}", "yield {'seed': 2}"])
  assert "--out is missing" in refusal("sweep", *flags(path, ""))
  said = refusal("sweep", *flags(path, out, "--index=2"))
  assert "--index must be in [0, 2), not 2" in said
  monkeypatch.setenv(sweep.INDEX, "5")
  said = refusal("sweep", *flags(path, out))
  assert f"${sweep.INDEX} must be in [0, 2), not 5" in said
  monkeypatch.delenv(sweep.INDEX)
  out.mkdir()
  (out / "config.json").write_text("{}")
  assert "is the folder of one run" in refusal("sweep", *flags(path, out))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
  """A sweep whose first run fails, and the sentence that it ended with."""
  folder = tmp_path_factory.mktemp("sweep")
  path = written(
    folder, ["for p in (1e30, 2e-3): yield {'learning_rate.peak_value': p}"]
  )
  with pytest.raises(cli.Failure) as ended:
    sweep.main(["sweep", *flags(path, folder / "out")])
  return path, folder / "out", str(ended.value)


GOOD, BAD = "learning_rate.peak_value=0.002", "learning_rate.peak_value=1e+30"


def test_a_run_that_fails_is_said_and_the_others_go_on(swept):
  _, out, ended = swept
  assert ended == "1 of 2 runs are not finished; the same command goes on"
  with (out / "sweep.csv").open() as file:
    bad, good = csv.DictReader(file)
  assert (bad["run"], good["run"]) == (BAD, GOOD)
  assert bad["state"] == "failed: exit status 1 of train"
  assert good["state"] == "finished" and good["step"] == "20"
  assert float(good["learning_rate.peak_value"]) == 2e-3
  lines = [json.loads(line) for line in (out / GOOD / "metrics.jsonl").open()]
  assert float(good["held_out/eps_mse"]) == lines[-1]["held_out/eps_mse"]
  of_bins = [v for k, v in lines[-1].items() if "/eps_mse_logsnr" in k]
  np.testing.assert_allclose(lines[-1]["held_out/eps_mse"], np.mean(of_bins))
  assert (out / "sweep.png").stat().st_size > 5000


@pytest.fixture
def asked(monkeypatch):
  """What is run, and whether that trains here; no process is started."""
  calls = []

  def run(self, name, *flags):
    calls.append((name, flags))
    return 1

  monkeypatch.setattr(children.Children, "run", run)
  return calls


def test_the_same_command_again_leaves_what_is_finished(swept, asked):
  path, out, _ = swept
  with pytest.raises(cli.Failure):
    sweep.main(["sweep", *flags(path, out)])
  ((name, given),) = asked
  assert name == "train" and given[-1] == f"--workdir={out / BAD}"
  assert "--config.learning_rate.peak_value=1e+30" in given


def test_a_task_of_an_array_makes_its_own_run_alone(
  swept, asked, monkeypatch, tmp_path, capsys
):
  path, _, _ = swept
  monkeypatch.setenv(sweep.INDEX, "1")
  with pytest.raises(cli.Failure, match="1 of 1 runs"):
    sweep.main(["sweep", *flags(path, tmp_path / "out")])
  ((_, given),) = asked
  assert given[-1] == f"--workdir={tmp_path / 'out' / GOOD}"
  assert not list(tmp_path.glob("out/sweep.*"))  # many tasks would write them
  sweep.main(["sweep", *flags(path, tmp_path / "out", "--list")])
  assert f"  1  {GOOD}\n" in capsys.readouterr().out and len(asked) == 1


def test_a_killed_run_goes_on_and_more_runs_may_be_added(
  swept, monkeypatch, tmp_path, capsys
):
  """Trained in this process: what `train` prints tells where it goes on."""
  from diffflow_jax.commands import train

  path, out, _ = swept
  cut = tmp_path / "out"
  shutil.copytree(out, cut)
  shutil.rmtree(cut / GOOD / "checkpoints" / "20")
  text = path.read_text() + "  yield {}\n"
  more = tmp_path / "more.py"
  more.write_text(text.replace("1e30, 2e-3", "2e-3,"))
  said = refusal("sweep", *flags(more, cut))
  assert f"the run {BAD}, which --sweep does not yield" in said
  more.write_text(text)
  asked = []

  def run(self, name, *flags):
    asked.append(flags[-1].rpartition("/")[-1])
    return train.main([name, *flags]) and 0 if GOOD in flags[-1] else 1

  monkeypatch.setattr(children.Children, "run", run)
  capsys.readouterr()
  with pytest.raises(cli.Failure, match="2 of 3 runs"):
    sweep.main(["sweep", *flags(more, cut)])
  assert asked == [BAD, GOOD, "base"]
  assert f"{cut / GOOD} resumes at step 10" in capsys.readouterr().out
  assert runs.curve(cut / GOOD) == runs.curve(out / GOOD)
  said = refusal("sweep", *flags(more, cut, "--config.batch_size=32"))
  assert "with batch_size = 64, not 32" in said
  said = refusal("sweep", *flags(more, cut, "--metric=los"))
  assert "no run has 'los'" in said and "did you mean loss?" in said


def test_each_run_is_judged_by_evaluate_once(swept, monkeypatch, tmp_path):
  """The command itself, in this process."""
  from diffflow_jax.commands import evaluate

  _, out, _ = swept
  one = written(tmp_path, ["yield {'learning_rate.peak_value': 2e-3}"])
  new = tmp_path / "out"
  shutil.copytree(out / GOOD, new / GOOD)
  asked = []

  def run(self, name, *flags):
    asked.append((name, flags[1:]))
    evaluate.main([name, *flags])

  monkeypatch.setattr(children.Children, "run", run)
  judge = "--evaluate=--metrics=fid --num_samples=40"
  sweep.main(["sweep", *flags(one, new, judge)])
  sweep.main(["sweep", *flags(one, new, judge)])
  assert asked == [("evaluate", ("--metrics=fid", "--num_samples=40"))]
  with (new / "sweep.csv").open() as file:
    (row,) = csv.DictReader(file)
  result = json.loads((new / GOOD / "eval" / "evaluation.json").read_text())
  wanted = result["samplers"][0]["numbers"]["fd_coordinates"]
  assert float(row["fd_coordinates"]) == wanted["value"] > 0.0
  assert float(row["fd_coordinates_error"]) == wanted["standard_error"] > 0.0
  sweep.main(["sweep", *flags(one, new, judge, "--metric=loss")])
  assert "loss" in (new / "sweep.csv").read_text() and len(asked) == 1
  for text in ("--metrics=fid fid", "--workdir=x", "--metrics='fid"):
    said = refusal("sweep", *flags(one, new, f"--evaluate={text}"))
    assert "--evaluate must be flags of `evaluate` but" in said


def test_a_signal_is_passed_on_and_ends_the_sweep(tmp_path, monkeypatch):
  script, ready = tmp_path / "child", tmp_path / "ready"
  script.write_text(
    "#!/bin/sh\n"
    "trap 'echo asked > $0.asked; exit 0' TERM\n"
    f"touch {ready}\n"
    "for i in 1 2 3 4 5 6 7 8 9; do sleep 1; done; exit 3\n"
  )
  script.chmod(script.stat().st_mode | stat.S_IXUSR)
  fake = types.SimpleNamespace(executable=str(script))
  monkeypatch.setattr(children, "sys", fake)

  def press():
    while not (ready.exists() and ours._child):
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  with children.Children() as ours:
    threading.Thread(target=press).start()
    assert ours.run("train", "--workdir=x") == 0
    assert ours.stopped == "SIGTERM" and (tmp_path / "child.asked").exists()
    assert ours.run("train", "--workdir=y") is None  # nothing more is begun


def test_the_picture_is_along_the_number_that_varies_most():
  rows = [
    ({"rate": rate, "width": width, "seed": seed}, rate * width + seed, None)
    for rate in (1e-3, 1e-2, 1e-1)
    for width in (8, 16)
    for seed in (0, 1)
  ]
  ax = sweeps.plot_sweep(rows, "fd")
  assert ax.get_xlabel() == "rate" and ax.get_ylabel() == "fd"
  assert ax.get_xscale() == "log"
  means = [line for line in ax.lines if line.get_linestyle() == "-"]
  for line, width in zip(means, (8, 16), strict=True):
    np.testing.assert_allclose(line.get_xdata(), [1e-3, 1e-2, 1e-1])
    np.testing.assert_allclose(
      line.get_ydata(), np.array([1e-3, 1e-2, 1e-1]) * width + 0.5
    )
  texts = [text.get_text() for text in ax.get_legend().get_texts()]
  assert texts == ["width = 8", "width = 16"]
  words = [({"name": name}, 1.0, 0.1) for name in ("adam", "sgd")]
  ax = sweeps.plot_sweep(words, "fd")
  assert [t.get_text() for t in ax.get_xticklabels()] == [
    "name = adam",
    "name = sgd",
  ]


def test_the_shipped_sweep_has_its_command():
  path = commands.ROOT / "configs" / "sweeps" / "learning_rate.py"
  assert "--sweep=configs/sweeps/learning_rate.py" in path.read_text()
  entries = sweep_file.read(f"{path}:one_seed", TOY, {})
  rates = [entry.config.learning_rate.peak_value for entry in entries]
  assert rates == [5e-4, 2e-3, 8e-3]
  sweep_runs.check(entries)
