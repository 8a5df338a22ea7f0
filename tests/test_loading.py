"""A trained run in Python: dfj.load."""

import json
import shutil
import sys

import jax
import numpy as np
from PIL import Image
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli
from tests import commands, runs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A run with three classes, and one without any."""
  folder = tmp_path_factory.mktemp("runs")
  return (
    runs.untrained(folder / "classes"),
    runs.untrained(folder / "plain", num_classes=0),
  )


@pytest.fixture(scope="module")
def run(made):
  return dfj.load(made[0])


def by_hand(run, labels, strength, num_steps=4, seed=2):
  """Guided DDIM of a run, from the library's own parts."""
  objective = run.objective
  levels = dfj.grids.uniform_t(objective.schedule, objective.scale, num_steps)
  predict = dfj.predictor(objective, run.network.apply, run.params)
  predict = dfj.Guided(predict, 3, strength)
  key, shape = jax.random.key(seed), (len(labels), 2)
  table = dfj.solvers.ddim(levels)
  return dfj.sample(predict, table, key, shape, cond=labels)


def test_samples_are_the_command_s_to_the_bit(made, run, tmp_path):
  from diffflow_jax.commands import sample

  flags = "--num_samples=5 --num_steps=4 --guidance=2 --labels=2,0 --seed=2"
  out = tmp_path / "out.npz"
  sample.main(["", f"--workdir={made[0]}", f"--out={out}", *flags.split()])
  labels = [2, 0, 2, 0, 2]
  how = dict(num_steps=4, guidance=2.0, labels=[2, 0], seed=2)
  samples = run.sample(5, **how)
  assert samples.dtype == np.float32 and samples.shape == (5, 2)
  np.testing.assert_array_equal(samples, np.load(out)["samples"])
  np.testing.assert_array_equal(np.load(out)["labels"], labels)
  np.testing.assert_array_equal(run.labels(5, [2, 0]), labels)
  want = by_hand(run, np.array(labels), 2.0)
  np.testing.assert_allclose(samples, want, atol=1e-6)
  drawn, got, evaluations = run.draw(5, batch_size=2, **how)
  np.testing.assert_allclose(drawn, samples, atol=1e-6)
  assert list(got) == labels and evaluations == 4


def test_what_is_left_out_is_the_config_s(run):
  np.testing.assert_array_equal(
    run.sample(),
    run.sample(
      6, solver="ddim", grid="uniform_t", num_steps=3, labels=[0, 1, 2]
    ),
  )
  assert np.abs(run.sample(seed=1) - run.sample()).max() > 0.1
  assert np.abs(run.sample(labels=1) - run.sample()).max() > 1e-3


@pytest.mark.parametrize("num", [2, 9])
def test_several_labels_are_as_many_samples(run, num):
  """Fewer than the config's 6, or more; one label is all samples'."""
  labels = np.arange(num) % 3
  drawn, got, _ = run.draw(labels=labels)
  assert len(drawn) == num and list(got) == list(labels)
  for one in (1, [1]):
    assert list(run.draw(labels=one)[1]) == 6 * [1]


def test_its_parts_are_there(made, run):
  assert run.step == 6 and run.config.batch_size == 4
  assert run.card.num_classes == 3
  assert "flow_matching, step 6" in repr(run)
  z, lv = (
    np.ones((2, 2), np.float32),
    dfj.levels.at_logsnr(run.objective.scale, 0.5),
  )
  label = np.array([1, 2])
  x, eps = run.predict(z, lv, label)
  np.testing.assert_allclose(lv.alpha * x + lv.sigma * eps, z, rtol=1e-5)
  none, _ = run.predict(z, lv, None)
  guided, _ = run.guided(3.0)(z, lv, label)
  np.testing.assert_allclose(guided, none + 3.0 * (x - none), rtol=1e-4)
  away, _ = run.guided(3.0, negative_label=0)(z, lv, label)
  other, _ = run.predict(z, lv, np.array([0, 0]))
  np.testing.assert_allclose(away, other + 3.0 * (x - other), rtol=1e-4)
  clipped, _ = run.guided(1.0, clip="static:limit=0.1")(z, lv, label)
  np.testing.assert_allclose(clipped, np.clip(x, -0.1, 0.1), rtol=1e-5)
  # CFG++ keeps the reference's noise
  plus = run.guided(0.5, cfg_plus_plus=True)(z, lv, label)[1]
  np.testing.assert_allclose(plus, run.predict(z, lv, None)[1], rtol=1e-5)
  earlier = dfj.load(made[0], step=3)
  assert earlier.step == 3
  assert np.abs(earlier.sample() - run.sample()).max() > 1e-3
  # another run as the reference, by path and by itself
  weak = run.sample(guidance=2.0, weak=earlier)
  where = dict(guidance=2.0, weak=made[1])
  assert np.abs(weak - run.sample(**where)).max() > 1e-4


def test_the_way_and_pictures(made, run, tmp_path):
  frames, names = run.trajectory(4, labels=[1])
  assert len(frames.z) == len(frames.x_hat) == len(names) == 4
  for way in (frames.z, frames.x_hat):
    np.testing.assert_allclose(way[-1], run.sample(4, labels=1), atol=1e-6)
  np.testing.assert_array_equal(frames.labels, [1, 1, 1, 1])
  run.save_picture(tmp_path / "x.png", run.sample(), run.labels(6))
  assert np.asarray(Image.open(tmp_path / "x.png")).std() > 1
  assert dfj.load(made[1]).labels(6) is None


def test_a_picture_of_something_else_is_refused(made, run, tmp_path):
  path, ours = tmp_path / "x.png", np.zeros((4, 2))
  for samples, labels, message in (
    (ours[:, :1], None, r"samples must have shape \(num, 2\), not \(4, 1\)"),
    (ours[0], None, r"not \(2,\)"),
    (ours[:0], None, r"not \(0, 2\)"),
    (ours, [0, 1], r"labels of 4 samples must have shape \(4,\), not \(2,\)"),
    (ours, 1, r"not \(\)"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      run.save_picture(path, samples, labels)
  assert not path.exists()
  with pytest.raises(cli.Refusal, match="num_samples must be an integer"):
    run.labels("6")


def test_metrics_are_columns(tmp_path):
  workdir = runs.untrained(tmp_path / "run")
  assert dfj.load(workdir).metrics == {}
  rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "held_out/a": 3.0}]
  lines = "".join(json.dumps(row) + "\n" for row in rows)
  (workdir / "metrics.jsonl").write_text(lines + '{"step": 3, "lo')
  metrics = dfj.load(workdir).metrics
  assert list(metrics) == ["step", "loss", "held_out/a"]
  assert metrics["step"].dtype == int and list(metrics["step"]) == [1, 2]
  np.testing.assert_array_equal(metrics["loss"], [2.0, 1.0])
  np.testing.assert_array_equal(metrics["held_out/a"], [np.nan, 3.0])


def test_a_transformer_s_run_is_loaded_in_x64(tmp_path):
  network = dict(name="dit", width=16, depth=1, num_heads=2, patch=1)
  workdir = runs.untrained(tmp_path / "run", shape=(4, 1), network=network)
  z, labels = np.ones((3, 4, 1), np.float32), np.array([0, 1, 2], np.int32)

  def predicted(run):
    lv = dfj.levels.at_logsnr(dfj.levels.linear, np.full(3, 0.5, np.float32))
    return run.predict(z, lv, labels)[0]

  want = predicted(dfj.load(workdir))
  with jax.enable_x64(True):
    run = dfj.load(workdir)
    np.testing.assert_allclose(predicted(run), want, rtol=1e-4, atol=1e-5)
    assert np.isfinite(run.sample(3)).all()


def test_loading_and_sampling_import_no_training(made, tmp_path):
  """Four lines to a picture; no optimiser, EMA rule, data set or trainer."""
  code = (
    "import diffflow_jax as dfj\n"
    f"run = dfj.load({str(made[0])!r})\n"
    "samples = run.sample(64, solver='dpmpp_2m', guidance=2.0)\n"
    f"run.save_picture({str(tmp_path / 'x.png')!r}, samples, run.labels(64))\n"
    "import sys\n"
    "names = {m.split('.')[0] for m in sys.modules}\n"
    "assert not {'optax', 'sklearn', 'tensorboardX', 'grain'} & names\n"
    "ours = [m.split('.') for m in sys.modules if m[:13] == 'diffflow_jax.']\n"
    "ours = {parts[1] for parts in ours}\n"
    "assert not ours & {'training', 'data', 'evaluation', 'commands'}, ours\n"
  )
  done = commands.subprocess.run(
    [sys.executable, "-c", code],
    cwd=commands.ROOT,
    env=commands.environment(),
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda c, p, t: dfj.load(t / "none"), "there is no folder .*none$"),
    (lambda c, p, t: dfj.load(c / "config.json"), "json is a file: a run is"),
    (lambda c, p, t: dfj.load(c / "checkpoints"), "part of a run: .*classes$"),
    (lambda c, p, t: dfj.load(c.parent), "in it classes, plain are runs"),
    (lambda c, p, t: dfj.load(t), "holds no run: it has no config.json"),
    (lambda c, p, t: dfj.load(None), "from a path or a URL, not None"),
    (lambda c, p, t: dfj.load(c, step=5), "no checkpoint of step 5; .*6, 3"),
    (
      lambda c, p, t: dfj.load(c, step="6"),
      "^step must be an integer, not '6'",
    ),
    (lambda c, p, t: dfj.load(c, ema=0.1), "no snapshots: config.ema is 'exp"),
    (
      lambda c, p, t: dfj.load(c, ema="x"),
      "^ema must be a number > 0, not 'x'",
    ),
  ],
)
def test_what_is_no_run_is_refused(call, message, made, tmp_path):
  with pytest.raises(cli.Refusal, match=message) as caught:
    call(*made, tmp_path)
  assert "\n" not in str(caught.value) and "--w" not in str(caught.value)[:60]


def test_damaged_and_foreign_runs_are_refused(made, tmp_path):
  def changed(name, **sections):
    copy = tmp_path / name
    shutil.copytree(made[0], copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | sections))
    return copy

  for workdir, message in (
    (changed("a", network={"name": "mlp", "gates": 2}), "gates is not a set"),
    (changed("b", network={"name": "mixer"}), "config.network.name is 'mixer'"),
    (changed("c", network={"name": "mlp", "width": 9, "depth": 1}), "shape"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      dfj.load(workdir)
  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "config.json").write_text('{"architectures": ["UNet2DModel"]}')
  with pytest.raises(cli.Refusal, match="its config.json names no objective"):
    dfj.load(foreign)
  shutil.rmtree(tmp_path / "a" / "checkpoints")
  shutil.copy(made[0] / "config.json", tmp_path / "a")
  with pytest.raises(cli.Refusal, match="has no checkpoint yet"):
    dfj.load(tmp_path / "a")


@pytest.mark.parametrize(
  "settings,message",
  [
    (dict(num_samples=0), "^num_samples must be at least 1, not 0"),
    (dict(num_samples=6.0), "^num_samples must be an integer, not 6.0"),
    (dict(solver="dpmp_2m"), "^solver is 'dpmp_2m'; known: .*dpmpp_2m"),
    (dict(solver=dfj.solvers.ddim), "^solver must be a name .*dfj.sample"),
    (dict(solver="ddim:ete=1"), "ddim has no setting 'ete'; it has: eta"),
    (dict(grid="log"), "^grid is 'log'; known: file, karras"),
    (dict(num_steps=0), "^num_steps must be at least 1, not 0"),
    (dict(nun_steps=3), "no setting 'nun_steps' here, only .*num_steps"),
    (dict(labels=[0, 3]), "^labels must be 0 to 2, not 3"),
    (dict(labels=-1), "^labels must be 0 to 2, not -1"),
    (dict(labels=["cat"]), r"^labels must be integers in one list, not \['cat"),
    (dict(labels=[0.5]), "^labels must be integers in one list"),
    (dict(labels=[[0], [1, 2]]), "^labels must be integers in one list"),
    (
      dict(num_samples=6, labels=[0, 1, 2, 0, 1, 2, 0]),
      "names 7 classes for 6 samples",
    ),
    (dict(seed=-1), r"^seed must be in \[0, 2\^32\), not -1"),
    (dict(seed=jax.random.key(0)), "^seed must be in"),
    (dict(batch_size=0), "^batch_size must be at least 1"),
    (dict(guidance="2"), "^guidance must be finite, not '2'"),
    (dict(guidance_rescale=0.5), "^guidance_rescale has no effect at"),
    (dict(guidance=2.0, guidance_interval=(3, 1)), "guidance_interval must be"),
    (dict(guidance=2.0, negative_label=3), "negative_label must be 0 to 2"),
    (dict(guidance=2.0, weak="none"), "there is no folder none"),
    (dict(solver="ddim", restart=(1, 2)), "^restart must be HIGH,LOW,TIMES"),
    (dict(solver="ddim", restart=(3, 1, 1)), "^restart: restart needs 0 <= hi"),
    (dict(clip="hard"), "^clip is 'hard'; known: dynamic, static"),
    (dict(solver="adaptive", num_steps=4), "num_steps has no effect with solv"),
    (dict(solver="auto", grid="karras"), "grid has no effect with solver=auto"),
    (dict(solver="auto", restart=(1, 2, 1)), "restart has no effect with solv"),
    (dict(grid="auto"), "grid is 'auto'; known: "),
  ],
)
def test_settings_that_cannot_work_are_refused(settings, message, run):
  with pytest.raises(cli.Refusal, match=message) as caught:
    run.sample(**settings)
  assert "\n" not in str(caught.value) and "--" not in str(caught.value)


def test_guidance_needs_its_reference(made, tmp_path):
  plain = dfj.load(made[1])
  for call, message in (
    (
      lambda: plain.guided(2.0),
      "guidance: .*plain was trained without classes",
    ),
    (lambda: plain.sample(guidance=2.0), "was trained without classes"),
    (lambda: plain.sample(labels=0), "labels: .* was trained without classes"),
    (lambda: plain.sample(guidance=2.0, negative_label=0), "without classes"),
    (lambda: plain.trajectory(solver="adaptive"), "trajectory has no effect"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      call()
  # the other run as a weaker one needs neither classes nor dropout
  assert plain.sample(guidance=2.0, weak=made[1]).shape == (6, 2)
  workdir = runs.untrained(tmp_path / "run", steps=(6,), label_dropout=0.0)
  always = dfj.load(workdir)
  with pytest.raises(cli.Refusal, match="config.label_dropout = 0: take guid"):
    always.guided(2.0)
  with pytest.raises(cli.Refusal, match="config.label_dropout = 0"):
    always.sample(guidance=2.0)
  assert always.sample(guidance=2.0, negative_label=1).shape == (6, 2)
  other = runs.untrained(tmp_path / "four", num_classes=4, steps=(1,))
  with pytest.raises(cli.Refusal, match="four has 4 classes, and .*run 3"):
    always.sample(guidance=2.0, weak=other)


@pytest.mark.slow
def test_a_run_needs_neither_its_data_nor_its_place(tmp_path):
  """Trained on a .npy file that is gone, in a folder that was moved."""
  rng = np.random.default_rng(0)
  np.save(tmp_path / "x.npy", rng.normal(size=(64, 2)).astype(np.float32))
  np.save(tmp_path / "y.npy", rng.integers(0, 2, 64))
  files = [f"path={tmp_path / 'x.npy'}", f"labels={tmp_path / 'y.npy'}"]
  override = "name=arrays", *files, "num_classes=2"
  place, moved = tmp_path / "run", tmp_path / "elsewhere" / "run"
  done = commands.run(
    "train",
    "--config=configs/toy2d.py:smoke",
    "--config.held_out.num=0",
    "--config.label_dropout=0.1",
    f"--workdir={place}",
    *(f"--config.dataset.{one}" for one in override),
  )
  assert done.returncode == 0, done.stderr
  before = dfj.load(place).sample(8, guidance=2.0)
  (tmp_path / "x.npy").unlink()
  (tmp_path / "y.npy").unlink()
  moved.parent.mkdir()
  place.rename(moved)
  np.testing.assert_array_equal(dfj.load(moved).sample(8, guidance=2.0), before)
  out = tmp_path / "out.npz"
  done = commands.run(
    "sample",
    f"--workdir={moved}",
    "--num_samples=8",
    "--guidance=2",
    f"--out={out}",
  )
  assert done.returncode == 0, done.stderr
  np.testing.assert_array_equal(np.load(out)["samples"], before)
