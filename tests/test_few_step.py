"""Few-step training: methods, teachers, pairs, stages, through the commands."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli, data, networks
from diffflow_jax.commands import distill, train
from diffflow_jax.objective import densities, losses, objectives
from diffflow_jax.process import levels
from diffflow_jax.runs import card, changes, loading
from diffflow_jax.sampling import noise
from diffflow_jax.training import ema, state as state_lib
from diffflow_jax.training.few_step import kind, method, stages, teacher
from diffflow_jax.training.few_step.distill import inherited
from diffflow_jax.training.few_step.methods import METHODS
from diffflow_jax.training.resolve import resolve
from tests import commands, runs
from tests.test_distributed import EIGHT

TINY = (
  "--config.network.width=16",
  "--config.network.depth=1",
  "--config.batch_size=32",
  "--config.held_out.num=64",
  "--config.sampler.num_samples=32",
)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
  """A run to learn from: moons by a small MLP."""
  workdir = tmp_path_factory.mktemp("teacher") / "run"
  flags = (
    "--config=configs/toy2d.py:smoke", "--config.sampler.num_steps=2",
    "--config.num_steps=4", "--config.log_every=4", "--config.sample_every=4",
    "--config.checkpoint_every=4", "--config.learning_rate.warmup_steps=1",
  )  # fmt: skip
  train.main(["train", *flags, *TINY, f"--workdir={workdir}"])
  return workdir


def _distilled(taught, workdir, name, *flags):
  distill.main(
    [
      "distill",
      f"--from={taught}",
      f"--config=configs/distill.py:{name},smoke",
      f"--workdir={workdir}",
      *flags,
    ]
  )
  return workdir


def _assert_same(one, two, step=6):
  a, b = runs.final_arrays(one, step), runs.final_arrays(two, step)
  assert a.keys() == b.keys() and len(a) > 20
  for name in a:
    assert np.array_equal(a[name], b[name]), name
  assert runs.curve(one) == runs.curve(two)


def _cut(whole, cut, *steps):
  """A copy of a run that was killed before it saved these steps."""
  shutil.copytree(whole, cut)
  for step in steps:
    shutil.rmtree(cut / "checkpoints" / str(step))
  return cut


PROGRESSIVE = ("--config.checkpoint_every=1",)


@pytest.fixture(scope="module")
def progressive(taught, tmp_path_factory):
  """Stages of 4, 2 and 1 steps, two steps of training each."""
  workdir = tmp_path_factory.mktemp("progressive") / "run"
  flags = (*PROGRESSIVE, "--config.keep.latest=9")
  return _distilled(taught, workdir, "progressive", *flags)


def test_a_student_is_a_run_like_any_other(progressive, taught, tmp_path):
  run = loading.load(progressive)
  config = run.config
  assert config.network.destination and config.network.width == 16
  assert config.dataset.name == "moons" and config.teacher.run == str(taught)
  assert config.teacher.guidance == 1.0
  one = run.sample(8, num_steps=1)
  assert one.shape == (8, 2) and np.isfinite(one).all()
  run.export(tmp_path / "shared")
  again = loading.load(tmp_path / "shared").sample(8, num_steps=1)
  assert np.array_equal(one, again)
  # in one step, the config's own, and in no other number of steps
  pictures = [p.name for p in (progressive / "samples").iterdir()]
  assert pictures == ["step_00000006.png"]
  lines = runs.curve(progressive)
  assert lines[-1]["held_out/loss"] > 0
  # the rate begins anew with each stage: its second step, after the warm-up
  np.testing.assert_allclose(lines[-1]["learning_rate"], 2e-3, rtol=1e-5)


def test_a_student_starts_as_its_teacher(progressive, taught):
  """Parameters that fit are the average, and what is new says nothing."""
  theirs = runs.final_arrays(taught, 4)
  first = runs.final_arrays(progressive, 1)
  told = "['teacher']['params']"
  names = [name for name in first if name.startswith(told)]
  for name in names:
    other = "['ema'][0]['params']" + name.removeprefix(told)
    if other in theirs:
      assert np.array_equal(first[name], theirs[other]), name
    else:
      assert "destination" in name
  new = [first[n] for n in names if "destination" in n]
  assert [leaf.any() for leaf in new].count(False) == 1, "the last of them"


def test_a_student_is_sampled_in_the_steps_of_its_stage(progressive):
  for step, taught in ((1, 4), (2, 4), (3, 2), (4, 2), (5, 1), (6, 1)):
    run = loading.load(progressive, step=step)
    assert np.isfinite(run.sample(2, num_steps=taught)).all()
    words = f"taught the {taught} steps of the grid uniform_cosine alone"
    with pytest.raises(cli.Refusal, match=words):
      run.sample(2, num_steps=8)
  with pytest.raises(cli.Refusal, match="taught the 1 steps of"):
    run.sample(2, num_steps=4)
  run, words = loading.load(progressive, step=2), "taught the 4 steps of"
  with pytest.raises(cli.Refusal, match=words):
    run.sample(2, num_steps=4, grid="uniform_flow")


def test_each_stage_is_taught_by_the_average_of_the_one_before(progressive):
  kept = {step: runs.final_arrays(progressive, step) for step in range(1, 7)}
  leaf = "['params']['Dense_0']['kernel']"
  of = lambda step, part: kept[step][f"['{part}']{leaf}"]
  assert np.array_equal(of(2, "teacher"), of(1, "teacher"))
  for last in (2, 4):
    average = kept[last][f"['ema'][0]{leaf}"]
    assert not np.array_equal(average, of(last, "params"))
    assert np.array_equal(of(last + 1, "teacher"), average)
    assert np.array_equal(of(last + 2, "teacher"), average)


def test_a_stage_is_resumed_in_its_middle(progressive, taught, tmp_path):
  cut = _cut(progressive, tmp_path / "cut", 4, 5, 6)
  flags = (*PROGRESSIVE, "--config.keep.latest=9")
  _distilled(taught, cut, "progressive", *flags)
  _assert_same(progressive, cut)


def test_another_teacher_is_refused(progressive, taught):
  """One that has moved is the same; another step, or arrays, is another."""
  before, now = {"teacher.run": "here"}, {"teacher.run": "there"}
  assert changes.between("workdir", before, now)
  spec = ml_collections.ConfigDict(dict(run=str(taught), guidance=1.0))
  found = teacher.read(spec, kind.ASKED, progressive)
  teacher.settle(found, progressive)
  moved = jax.tree.map(lambda x: x + 1e-6, found.run.params)
  run = types.SimpleNamespace(
    path="there", step=found.run.step, params=moved, config=found.run.config
  )
  with pytest.raises(cli.Refusal, match="was taught by .* at step 4, whose"):
    teacher.settle(dataclasses.replace(found, run=run), progressive)


PAIRS = (
  "--config.method.pairs=300",
  "--config.teacher.solver=ddim",
  "--config.teacher.grid=uniform_flow",
)


@pytest.fixture(scope="module")
def reflowed(taught, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("reflow") / "run"
  return _distilled(taught, workdir, "reflow", *PAIRS)


def test_pairs_are_what_the_teacher_makes_of_their_noise(reflowed, taught):
  run = loading.load(taught)
  files = sorted((reflowed / "pairs").iterdir())
  assert [f.name for f in files] == ["00000.npz", "00001.npz"]
  x = np.concatenate([np.load(file)["x"] for file in files])
  z = np.asarray(method.noise_of(0, np.arange(512), (2,)))
  assert abs(z.std() - 1.0) < 0.1 and x.shape == z.shape
  for t, t_next in ((1.0, 0.5), (0.5, 0.0)):  # Euler's steps in flow time
    x_hat, eps_hat = run.predict(z, levels.from_pair(1.0 - t, t), None)
    z = z + (t_next - t) * np.asarray(eps_hat - x_hat)
  np.testing.assert_allclose(x, z, atol=1e-5)


def test_no_sample_starts_from_the_noise_of_a_pair():
  drawn = noise.start(jax.random.key(0), 0, np.float32(1.0), (9, 2),
                      dtype=jnp.float32)  # fmt: skip
  paired = method.noise_of(0, np.arange(9), (2,))
  assert np.abs(np.asarray(drawn) - np.asarray(paired)).max(1).min() > 1e-3


def test_pairs_are_made_to_the_same_bytes(reflowed, taught, tmp_path):
  """Killed while it made them: what is missing, cut off or half is made."""
  cut = _cut(reflowed, tmp_path / "cut", 3, 6)
  shutil.rmtree(cut / "checkpoints")
  (cut / "metrics.jsonl").unlink()
  pairs = [(cut / "pairs" / name) for name in ("00000.npz", "00001.npz")]
  want = [path.read_bytes() for path in pairs]
  pairs[0].write_bytes(want[0][:1000])
  pairs[1].rename(f"{pairs[1]}.partial")
  _distilled(taught, cut, "reflow", *PAIRS)
  assert [path.read_bytes() for path in pairs] == want
  _assert_same(reflowed, cut)


@pytest.mark.slow
def test_kill_9_of_a_run_with_a_jvp_changes_no_bit(tmp_path):
  flags = (
    "--config=configs/few_step.py:meanflow,toy,smoke",
    "--config.network.depth=1", "--config.accumulation=2",
    "--config.num_steps=120", "--config.checkpoint_every=10",
    "--config.log_every=10", "--config.sample_every=120",
  )  # fmt: skip
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  train.main(["train", *flags, f"--workdir={whole}"])
  _kill(cut, lambda: any(step > 20 for step in runs.steps(cut)), *flags)
  train.main(["train", *flags, f"--workdir={cut}"])
  _assert_same(whole, cut, 120)
  assert runs.curve(whole)[-1]["held_out/loss"] > 0


def _kill(workdir, seen, *flags, command="train"):
  """kill -9 of a run as soon as something is seen of it."""
  process = commands.start(command, *flags, f"--workdir={workdir}")
  while not seen() and process.poll() is None:
    time.sleep(0.01)
  assert process.poll() is None, process.communicate()
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()


@dataclasses.dataclass(frozen=True)
class _Ordinary(kind.Kind):
  """The ordinary loss by way of a method."""

  def levels(self, objective, key, num, step):
    return densities.draw(objective.density, key, num)

  def terms(self, given, objective, apply, params, *rest):
    return losses.terms_at(objective, apply, params, *rest)


def _step(**settings):
  dataset, network = data.ring(), networks.MLP(width=8, depth=1)
  objective, tx = objectives.flow_matching(), optax.adam(1e-3)
  averages = ema.exponential(0.5)
  step = state_lib.make_train_step(
    objective,
    network.apply,
    tx,
    dataset,
    averages,
    seed=0,
    label_dropout=0.0,
    accumulation=2,
    **settings,
  )
  create = lambda: state_lib.create(
    objective, network, tx, dataset, averages, 0
  )
  like = jax.eval_shape(create)
  return jax.jit(step).lower(like, dataset.batch(0, 0, 8)).as_text()


def test_the_seam_adds_nothing_to_the_step():
  """The ordinary loss as a method is the very program without a method."""
  assert _step() == _step(method=method.Method(_Ordinary()))


@pytest.mark.parametrize("name", ["consistency_distillation", "lagrangian"])
def test_a_guided_teacher_is_asked_at_one_level(name):
  """Losses tell it where the map goes, which is not for it."""
  network = networks.MLP(width=8, depth=1, num_classes=3, destination=True)
  objective = objectives.flow_matching()
  x, cond = jnp.ones((8, 2)), jnp.arange(8) % 3
  params = network.init(jax.random.key(0), x, jnp.zeros(8), cond)
  guided = dfj.Guided(dfj.predictor(objective, network.apply, params), 3, 2.0)
  way = method.Method(METHODS[name]())
  levels = way.levels(objective, jax.random.key(1), 8, 0)
  state = types.SimpleNamespace(step=0, ema=(), params=params, teacher=())
  run = lambda guided, levels: way.loss(state, guided)(
    objective, network.apply, params, x, levels, 0.5 * x, cond
  )
  assert np.isfinite(jax.jit(run)(guided, levels).loss).all()


def test_stages_by_step():
  three = stages.Stages(5, 3)
  found = [(int(three.of(n)), int(three.age(n))) for n in range(20)]
  want = [(min(n // 5, 2), n - 5 * min(n // 5, 2)) for n in range(20)]
  assert found == want


def test_levels_of_each_stage_are_every_other_one_of_the_stage_before():
  grid = jnp.arange(9.0)
  of = METHODS["progressive_distillation"](steps_per_stage=10)
  of = dataclasses.replace(of, grid=grid, stages=stages.Stages(10, 3))
  for step, each in ((0, 1), (9, 1), (10, 2), (20, 4), (99, 4)):
    s, m, t = map(np.asarray, of.levels(None, jax.random.key(0), 500, step))
    assert set(s) == set(np.arange(0.0, 8.0, 2 * each))
    assert np.array_equal(m, s + each) and np.array_equal(t, m + each)


def _config(taught, name="reflow", **changes):
  config = cli.load_config(f"configs/distill.py:{name},smoke")
  for path, value in changes.items():
    section, _, field = path.rpartition("__")
    (config[section] if section else config)[field] = value
  return inherited(config, taught)


REFUSED = {
  "odd": ("progressive", dict(teacher__num_steps=6), "a power of 2"),
  "more": (
    "reflow",
    dict(sampler__num_steps=3),
    "is more than the 2 steps of its teacher",
  ),
  "few": ("progressive", dict(teacher__num_steps=1), "less than the 1 steps"),
  "grid": (
    "progressive",
    dict(teacher__grid="uniform_logsnr"),
    "is not every other level",
  ),
  "other steps": (
    "progressive",
    dict(sampler__num_steps=2),
    "was taught the 1 steps",
  ),
  "guided": ("reflow", dict(teacher__guidance=2.0), "trained without classes"),
  "sampled guided": ("reflow", dict(sampler__guidance=2.0), "must be 1 with"),
  "noisy": ("reflow", dict(teacher__solver="ddim:eta=1"), "draws no noise"),
  "solver": (
    "consistency",
    dict(teacher=dict(solver="ddim")),
    "config.teacher.solver has no effect with",
  ),
  "field": ("reflow", dict(teacher__ema=0.1), "is not a field of a teacher"),
  "method": ("reflow", dict(method__name="reflo"), "did you mean reflow"),
  "setting": ("reflow", dict(method__pears=3), "config.method.pears"),
  "pairs": ("reflow", dict(method__pairs=-1), "config.method.*pairs must be"),
  "best": ("progressive", dict(keep__best=1, sample_every=6), "keep.best"),
  "density": (
    "luhman",
    dict(objective=dict(name="flow_matching", density="uniform")),
    "config.objective.density has no effect",
  ),
  "learned": (
    "lagrangian",
    dict(objective=dict(name="vdm", schedule="learned")),
    "cannot be learned",
  ),
  "from scratch": (
    "reflow",
    dict(method=dict(name="mean_flow")),
    "without a teacher: python -m diffflow_jax.train",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_sentence(case, taught):
  name, changes, words = REFUSED[case]
  with pytest.raises(cli.Refusal, match=words) as caught:
    resolve(_config(taught, name, **changes))
  assert "\n" not in str(caught.value)


def test_a_teacher_of_other_data_is_refused(taught):
  spec = ml_collections.ConfigDict(dict(run=str(taught), guidance=1.0))
  found = teacher.read(spec, kind.ASKED)
  words = r"of shape \(2,\), and config.dataset is of shape \(3,\)"
  with pytest.raises(cli.Refusal, match=words):
    teacher.check_data(found, card.Card((3,)))
  words = "conditions none, and .* conditions label .label of 5."
  with pytest.raises(cli.Refusal, match=words):
    teacher.check_data(found, card.Card((2,), 5))


def test_a_student_is_told_the_strength_of_guidance(tmp_path):
  """Its field is the guided one of its own strength, after no training yet."""
  dataset = dict(name="tests.runs:labelled")
  path = runs.untrained(
    tmp_path / "run",
    steps=(3,),
    dataset=dataset,
    mesh=dict(data=-1, fsdp=1),
    accumulation=1,
    clip_norm=1.0,
    held_out=dict(num=0),
  )
  config = cli.load_config("configs/distill.py:guidance,smoke")
  config.method.strengths = (1.0, 4.0)
  config.sampler.update(solver="ddim", num_steps=2, guidance=3.0)
  config.update(num_steps=2, log_every=2, sample_every=2, checkpoint_every=2)
  config.learning_rate.peak_value = 1e-2
  dfj.distill(config, str(path), tmp_path / "student")
  run = loading.load(tmp_path / "student")
  assert list(run.config.method.strengths) == [1.0, 4.0]
  one, other = (run.sample(8, guidance=w) for w in (1.0, 4.0))
  assert np.abs(one - other).max() > 1e-6  # it has learned to listen
  with pytest.raises(cli.Refusal, match="guidance must be in .1, 4."):
    run.sample(8, guidance=5.0)
  with pytest.raises(ValueError, match="second of strengths must be > low"):
    METHODS["guidance_distillation"](strengths=(4.0, 1.0))


@pytest.mark.parametrize("name", ["lagrangian", "progressive", "reflow"])
def test_a_teacher_that_cannot_say_it_is_refused(name, tmp_path):
  """A consistency model says where the data is, and is no denoiser."""
  workdir = runs.untrained(
    tmp_path / "run",
    network=dict(name="mlp", width=8, depth=1, destination=True),
    method=dict(name="improved_consistency", num_steps=4),
  )
  used = {
    "lagrangian": kind.ASKED,
    "progressive": ("guidance", "grid", "num_steps"),
    "reflow": kind.SOLVED,
  }
  spec = ml_collections.ConfigDict(
    dict(run=str(workdir), guidance=1.0, solver="midpoint", grid="uniform_t",
         num_steps=2)
  )  # fmt: skip
  match = "solver=midpoint: " if name == "reflow" else "go to the data only"
  with pytest.raises(cli.Refusal, match=match):
    teacher.read(spec, used[name])


def test_a_teacher_that_is_missing_or_not_used_is_refused(taught):
  config = cli.load_config("configs/toy2d.py:smoke")
  config.teacher = dict(run=str(taught))
  with pytest.raises(cli.Refusal, match="no effect without config.method"):
    resolve(config)
  config.method = dict(name="mean_flow")
  with pytest.raises(cli.Refusal, match="config.teacher has no effect with"):
    resolve(config)
  config.method = dict(name="reflow")
  with pytest.raises(cli.Refusal, match="config.teacher.grid is missing"):
    resolve(config)
  del config.teacher
  with pytest.raises(cli.Refusal, match="needs a teacher: python -m diff"):
    resolve(config)
  del config.method
  config.network.destination = True
  with pytest.raises(cli.Refusal, match="needs a config.method that trains"):
    resolve(config)


def test_guidance_that_was_never_trained_is_refused(tmp_path):
  """A teacher with classes that its training always told."""
  path = runs.untrained(tmp_path / "run", label_dropout=0.0, steps=(3,))
  spec = ml_collections.ConfigDict(dict(run=str(path), guidance=2.0))
  with pytest.raises(cli.Refusal, match="config.teacher.guidance 2 needs"):
    teacher.read(spec, kind.ASKED)


def test_guided_mean_flow_needs_what_is_dropped():
  config = cli.load_config("configs/few_step.py:meanflow,smoke")
  config.method.guidance = 2.0
  with pytest.raises(cli.Refusal, match="set config.label_dropout = 0.1"):
    resolve(config)
  config.label_dropout = 0.1
  assert resolve(config).method.kind.null == 10


@pytest.mark.parametrize("size", ["imf", "shortcut", "split", "consistency",
                                  "easy", "scm"])  # fmt: skip
def test_configs_from_scratch_resolve(size):
  run = resolve(cli.load_config(f"configs/few_step.py:{size},toy,smoke"))
  assert run.network.destination and run.teacher is None


@pytest.mark.parametrize(
  "name",
  ["luhman", "consistency", "scm", "lagrangian", "eulerian", "composition",
   "guidance"],
)  # fmt: skip
def test_configs_of_students_resolve(name, taught):
  run = resolve(_config(taught, name))
  assert run.network.destination == (name != "guidance")
  assert (run.method.table is not None) == (name == "luhman")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["progressive", "reflow"])
def test_kill_9_changes_no_bit(name, taught, tmp_path):
  num_steps = 40 if name == "reflow" else 100
  flags = (
    f"--from={taught}", f"--config=configs/distill.py:{name},smoke",
    f"--config.num_steps={num_steps}", "--config.checkpoint_every=5",
    "--config.log_every=10", f"--config.sample_every={num_steps}",
  )  # fmt: skip
  if name == "reflow":
    flags += ("--config.method.pairs=2000",)
  else:
    flags += ("--config.method.steps_per_stage=30",)
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  assert commands.run("distill", *flags, f"--workdir={whole}").returncode == 0
  seen = (
    (lambda: len(list((cut / "pairs").glob("*.npz"))) >= 2)
    if name == "reflow"
    else lambda: any(30 < step < 55 for step in runs.steps(cut))
  )
  _kill(cut, seen, *flags, command="distill")
  done = commands.run("distill", *flags, f"--workdir={cut}")
  assert done.returncode == 0, done.stderr
  if name == "progressive":
    assert "resumes at step" in done.stdout
  _assert_same(whole, cut, num_steps)


def test_every_mesh_takes_the_same_steps():
  """Data parallel, FSDP and both on 8 devices, over the end of a stage."""
  done = subprocess.run(
    [sys.executable, "-m", "tests.few_step_topologies"],
    cwd=commands.ROOT,
    env=commands.environment(XLA_FLAGS=EIGHT),
    capture_output=True,
    text=True,
    timeout=1200,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  result = json.loads(done.stdout.splitlines()[-1])
  assert len(result) == 6
  for name, r in result.items():
    assert r["losses"] < 5e-6 * max(r["loss"], 1.0), name
    assert r["params"] < 5e-6 and r.get("teacher", 0.0) < 5e-6, name
  for part in ("bytes", "taught"):  # the state, and the teacher beside it
    of = lambda mesh, part=part: result[f"progressive_distillation {mesh}"][
      part
    ]
    assert of("fsdp8") < 0.5 * of("data8")
    assert of("mixed") < 0.8 * of("data8")
