"""The commands, as a user types them."""

import json
import shutil
import sys

import ml_collections
import numpy as np
from PIL import Image
import pytest

from diffflow_jax import cli
from diffflow_jax.runs import card, workdir as workdir_lib
from diffflow_jax.store import lock
from tests import commands

TRAIN = ("--config=configs/toy2d.py:smoke",)


def refusal(name, *flags):
  """What a command says when it refuses, without starting a process."""
  import importlib

  main = importlib.import_module(f"diffflow_jax.commands.{name}").main
  with pytest.raises(cli.Refusal) as caught:
    main([name, *map(str, flags)])
  text = str(caught.value)
  assert "\n" not in text and 10 < len(text) < 400
  return text


def test_training_leaves_everything_that_the_readme_promises(digits_run):
  workdir, stdout = digits_run
  assert "starts: " in stdout and " parameters" in stdout
  assert "step 6/6  loss " in stdout and " steps/s " in stdout
  assert "\r" not in stdout  # a log file gets lines
  assert "1,438 examples (8, 8, 1) of uint8, all looked at; the netw" in stdout
  batch = np.asarray(Image.open(workdir / "data.png").convert("L"))
  assert batch.shape == (715, 1100) and batch.std() > 50
  config = json.loads((workdir / "config.json").read_text())
  assert config["objective"]["name"] == "flow_matching"
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
  assert [line["step"] for line in lines] == [2, 4, 6]
  for line in lines:
    assert np.isfinite(line["loss"]) and line["learning_rate"] > 0
    assert sum(key.startswith("eps_mse/logsnr_") for key in line) >= 5
  assert {"3", "6"} <= {p.name for p in (workdir / "checkpoints").iterdir()}
  picture = np.asarray(Image.open(workdir / "samples" / "step_00000006.png"))
  height, width = picture.shape[:2]  # ten digits in a row, names above them
  assert width >= 400 and width // 10 < height < width // 4
  events = list((workdir / "tensorboard").iterdir())
  assert events and events[0].stat().st_size > 1000


def test_tensorboard_can_read_the_event_files(digits_run):
  accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  events = accumulators.EventAccumulator(str(digits_run[0] / "tensorboard"))
  events.Reload()
  assert [e.step for e in events.Scalars("loss")] == [2, 4, 6]
  assert events.Images("samples")[0].step == 6


def test_the_same_command_again_has_nothing_to_do(digits_run):
  workdir, _ = digits_run
  before = (workdir / "metrics.jsonl").read_bytes()
  done = commands.run(
    "train", "--config=configs/digits.py:smoke", f"--workdir={workdir}"
  )
  assert done.returncode == 0 and "resumes at step 6" in done.stdout
  assert (workdir / "metrics.jsonl").read_bytes() == before


def test_sampling_twice_gives_identical_files(digits_run, tmp_path):
  for name in ("a", "b"):
    done = commands.run(
      "sample",
      f"--workdir={digits_run[0]}",
      "--num_samples=7",
      "--solver=ddim",
      "--num_steps=3",
      "--guidance=2.0",
      "--labels=0,1,2",
      "--seed=5",
      f"--out={tmp_path / name}.npz",
    )
    assert done.returncode == 0, done.stderr
    assert "7 samples of step 6" in done.stdout
  a, b = ((tmp_path / f"{n}.npz").read_bytes() for n in "ab")
  assert a == b
  arrays = np.load(tmp_path / "a.npz")
  assert arrays["samples"].shape == (7, 8, 8, 1)
  assert list(arrays["labels"]) == [0, 1, 2, 0, 1, 2, 0]


def test_sample_i_is_the_same_for_any_number_and_batch_size(
  digits_run, tmp_path
):
  from diffflow_jax.commands import sample

  def draw(num_samples, batch_size):
    out = tmp_path / f"{num_samples}_{batch_size}.npz"
    sample.main(
      [
        "sample",
        f"--workdir={digits_run[0]}",
        f"--num_samples={num_samples}",
        f"--batch_size={batch_size}",
        f"--out={out}",
      ]
    )
    return np.load(out)["samples"]

  whole = draw(12, 256)
  np.testing.assert_allclose(draw(12, 5), whole, atol=2e-5)
  np.testing.assert_allclose(draw(3, 2), whole[:3], atol=2e-5)
  assert np.abs(whole[0] - whole[10]).max() > 0.01
  out = tmp_path / "eight.npz"
  done = commands.run(
    "sample",
    f"--workdir={digits_run[0]}",
    "--num_samples=12",
    f"--out={out}",
    XLA_FLAGS="--xla_force_host_platform_device_count=8",
  )
  assert "12 samples" in done.stdout, done.stderr
  np.testing.assert_allclose(np.load(out)["samples"], whole, atol=2e-5)


def test_every_kind_of_guidance_and_a_trajectory_by_flag(digits_run, tmp_path):
  from diffflow_jax.commands import sample

  flags = [
    f"--workdir={digits_run[0]}",
    "--num_samples=10",
    "--solver=sde_dpmpp_2m:eta=0.5",
    "--grid=uniform_flow:shift=3",
    "--num_steps=4",
    "--guidance=2",
  ]
  drawn = []
  for i, more in enumerate(
    (
      [],
      ["--guidance_interval=-3,4"],
      ["--guidance_rescale=0.7", "--clip=dynamic"],
      [f"--weak_workdir={digits_run[0]}", "--clip=static"],
    )
  ):
    out, way = tmp_path / f"{i}.npz", tmp_path / f"{i}.gif"
    more = [*more, f"--trajectory={way}"] if i == 0 else more
    sample.main(["sample", *flags, *more, f"--out={out}"])
    drawn.append(np.load(out)["samples"])
    assert np.isfinite(drawn[-1]).all()
  assert Image.open(tmp_path / "0.gif").n_frames == 5
  for other in drawn[1:]:
    assert np.abs(other - drawn[0]).max() > 1e-6


def test_every_kind_of_sampler_by_flag(digits_run, toy_run, tmp_path, capsys):
  """Adaptive, restarted, on a table's rows, a file's levels; CFG++."""
  from diffflow_jax.commands import sample

  levels = tmp_path / "levels.npy"
  np.save(levels, np.array([-6.0, -2.0, 2.0, np.inf]))
  drawn = []
  for i, (run, more, count) in enumerate(
    (
      (toy_run, ["--solver=adaptive:rtol=1e-2,atol=1e-2"], None),
      (toy_run, ["--solver=heun", "--restart=1,3,2"], 8 + 2 * 4),
      (toy_run, ["--solver=ddim", "--grid=table_rows"], 4),
      (toy_run, ["--solver=ddim", f"--grid=file:path={levels}"], 3),
      (digits_run[0], ["--solver=ddim", "--cfg_plus_plus", "--guidance=0"], 3),
      (digits_run[0], ["--negative_label=3", "--nobatched_guidance"], 6),
    )
  ):
    out = tmp_path / f"{i}.npz"
    flags = [f"--workdir={run}", "--num_samples=10", f"--out={out}"]
    sample.main(["sample", *flags, *more])
    said = capsys.readouterr().out
    assert count is None or f" {count} evaluations each" in said, said
    drawn.append(np.load(out)["samples"])
    assert np.isfinite(drawn[-1]).all()
  assert len({x.tobytes() for x in drawn}) == len(drawn)


def test_sampling_writes_pictures(digits_run, toy_run, tmp_path):
  from diffflow_jax.commands import sample

  for run in (digits_run[0], toy_run):
    out = tmp_path / f"{run.name}.png"
    sample.main(["sample", f"--workdir={run}", f"--out={out}"])
    assert np.asarray(Image.open(out)).std() > 5


@pytest.mark.parametrize(
  "override,message",
  [
    ("dataset.name=digitz", "config.dataset.name is 'digitz'; known: .*digits"),
    ("objective.name=ddmp", "config.objective.name is 'ddmp'; known: .*ddpm"),
    ("network.name=resnet", "config.network.name .* known: dit, .*mlp, unet"),
    ("optimizer.name=adma", "config.optimizer.name .* known: .*adamw"),
    ("learning_rate.name=cos", "config.learning_rate.name .* known: "),
    ("sampler.solver=dpm", "config.sampler.solver is 'dpm'; known: ddpm"),
    ("num_steps=0", "config.num_steps must be an integer >= 1, not 0"),
    ("num_steps=-5", "config.num_steps must be an integer >= 1, not -5"),
    ("sampler.num_steps=0", "config.sampler.num_steps must be .*, not 0"),
    ("batch_size=0", "config.batch_size must be an integer >= 1, not 0"),
    ("ema.decay=1.0", "config.ema: decay must be in"),
    ("objective.schedule=foo", "config.objective.schedule is 'foo'; known: "),
    ("objective.target=y", "config.objective.target is 'y'; known: F, eps"),
    (
      "objective.density=flat",
      "config.objective.density is 'flat'; known",
    ),
    ("objective.weighting=uncertainty:num=3", "config.objective.weighting: "),
    ("network.name=nowhere:Net", "config.network.name is .*No module named"),
    (
      "held_out.num=0 --config.keep.best=1",
      "config.keep.best goes by held-out data",
    ),
    ("snapshot_every=5", "config.snapshot_every needs config.ema.name"),
    ("held_out.name=digits", "config.held_out: its shape is"),
    ("sample_every=7 --config.keep.best=1", "must be a multiple of"),
    ("held_out.num=-1", "config.held_out.num must be an integer >= 0, not -1"),
    ("objective.scale=vq", "config.objective.scale is 'vq'; known: "),
    ("objective.name=edm --config.objective.sigma_data=-1", "sigma_data must"),
    ("network.width=0", "config.network.width must be at least 1, not 0"),
    ("network.depth=-1", "config.network.depth must be at least 1, not -1"),
    (
      "dataset.name=digits --config.held_out.num=9",
      "config.network does not fit data of shape",
    ),
    ("optimizer.b2=2.0", "config.optimizer.b2 must be in"),
    ("learning_rate.peak_value=-1.0", "learning_rate.peak_value must be >= 0"),
    ("mesh.data=3", "config.mesh .* does not fit 1 device"),
    ("steps_per_dispatch=3", "must be a multiple of config.steps_per_dis"),
    ("label_dropout=1.5", "config.label_dropout must be in"),
    ("clip_norm=0.0", "config.clip_norm must be in .0, inf"),
    ("seed=-1", "config.seed must be an integer >= 0"),
    ("batch_sise=4", "config.batch_sise is not a field of a config"),
    ("num_steps=ten", "--config.num_steps=ten"),
    (
      "network.depht=4",
      "config.network.depht is not a setting of mlp; .*depth",
    ),
  ],
)
def test_configs_that_cannot_work_are_refused(override, message, tmp_path):
  workdir = tmp_path / "new"
  flags = f"--config.{override}".split()
  text = refusal("train", *TRAIN, *flags, f"--workdir={workdir}")
  assert __import__("re").search(message, text), text
  assert not workdir.exists()


def test_other_bad_command_lines_are_refused(tmp_path):
  workdir = f"--workdir={tmp_path / 'new'}"
  assert "--workdir is missing" in refusal("train", *TRAIN)
  assert "--config is missing" in refusal("train", workdir)
  assert "nofile.py" in refusal("train", "--config=nofile.py", workdir)
  assert "digits.py has the size smoke, not 'tiny'" in refusal(
    "train", "--config=configs/digits.py:tiny", workdir
  )
  assert "Unknown command line flag 'worcdir'" in refusal(
    "train", *TRAIN, "--worcdir=x"
  )
  assert "unexpected argument 'configs/toy2d.py'" in refusal(
    "train", "configs/toy2d.py", *TRAIN, workdir
  )
  assert not (tmp_path / "new").exists()


def test_a_workdir_of_another_config_is_refused(toy_run):
  before = {p: p.stat().st_mtime_ns for p in toy_run.rglob("*")}
  text = refusal(
    "train", *TRAIN, "--config.clip_norm=0.5", f"--workdir={toy_run}"
  )
  assert "holds a run with config.clip_norm = 1.0, not 0.5" in text
  assert before == {p: p.stat().st_mtime_ns for p in toy_run.rglob("*")}


def test_a_workdir_that_another_job_trains_in_is_refused(tmp_path, monkeypatch):
  config, known = ml_collections.ConfigDict({"seed": 0}), card.Card((2,))
  monkeypatch.setattr(lock, "PATIENCE", 0.3)
  workdir = str(tmp_path / "run")
  with workdir_lib.claimed(workdir, config, known):
    with pytest.raises(cli.Refusal, match="another process trains in .*run: "):
      with workdir_lib.claimed(workdir, config, known):
        pass
  with workdir_lib.claimed(workdir, config, known):
    pass


def test_the_layers_of_the_network_are_printed_on_request(tmp_path):
  text = commands.run("train", *TRAIN, "--tabulate").stdout
  assert "MLP Summary" in text and "Total Parameters" in text
  assert "\033" not in text


@pytest.mark.parametrize(
  "flags,message",
  [
    (["--solver=dpm"], "--solver is 'dpm'; known: ddpm, dpm_2, "),
    (["--solver=ddim:eta=-1"], "--solver: eta must be"),
    (["--solver=ddim:ete=1"], "ddim has no setting 'ete'; it has: eta"),
    (["--solver=ddim:eta"], "'eta' in 'ddim:eta' is not setting=value"),
    (["--solver=none.npz"], "none.npz is not a saved tableau"),
    (["--grid=log"], "--grid is 'log'; known: file, karras, quadratic"),
    (["--grid=uniform_flow:shift=0"], "--grid: shift must be > 0"),
    (["--guidance_interval=3,1"], "--guidance_interval must be LO,HI"),
    (["--guidance_rescale=2"], "--guidance_rescale must be in [0, 1]"),
    (["--clip=static:limt=1"], "static has no setting 'limt'; it has: limit"),
    (["--cfg_plus_plus", "--guidance=0.5"], "renoises with the reference's"),
    (
      ["--cfg_plus_plus", "--solver=ddim", "--guidance=2"],
      "--guidance must be in [0, 1] with --cfg_plus_plus, not 2.0",
    ),
    (["--solver=x.npz", "--grid=karras"], "--grid has no effect with --solver"),
    (["--solver=adaptive", "--num_steps=4"], "--num_steps has no effect with"),
    (["--grid=file:path=x", "--num_steps=4"], "no effect with --grid=file"),
    (["--restart=1,2"], "--restart must be HIGH,LOW,TIMES, not '1,2'"),
    (["--restart=3,1,1"], "--restart: restart needs 0 <= high < low"),
    (["--negative_label=10"], "--negative_label must be 0 to 9, not 10"),
    (
      ["--guidance=1", "--negative_label=1"],
      "--negative_label has no effect at a guidance strength of 1",
    ),
    (
      ["--guidance=1", "--guidance_rescale=0.5"],
      "--guidance_rescale has no effect at a guidance strength of 1",
    ),
    (["--clip=hard"], "--clip is 'hard'; known: dynamic, static"),
    (["--clip=static:limit=0"], "--clip: Clipped: limit must be > 0, not 0"),
    (["--clip=dynamic:percentile=150"], "percentile must be in"),
    (["--trajectory=x.mp4"], "--trajectory must end in .gif or .png"),
    (["--num_steps=0"], "--num_steps must be at least 1, not 0"),
    (["--num_samples=-1"], "--num_samples must be at least 1, not -1"),
    (["--batch_size=0"], "--batch_size must be at least 1"),
    (["--seed=-1"], "--seed must be in"),
    (["--labels=0,10"], "--labels must be 0 to 9, not 10"),
    (["--labels=a"], "--labels must be integers separated by commas"),
    (["--guidance=high"], "--guidance=high"),
    (["--out=x.jpg"], "--out must end in .png or .npz"),
    (["--out=/nowhere/x.png"], "--out: /nowhere/x.png: No such file"),
    (["--guidance=nan"], "--guidance must be finite"),
    (["--labels=1,2,3", "--num_samples=2"], "names 3 classes for 2 samples"),
  ],
)
def test_bad_sampling_is_refused(flags, message, digits_run, tmp_path):
  out = f"--out={tmp_path / 'x.npz'}"
  text = refusal("sample", f"--workdir={digits_run[0]}", out, *flags)
  assert message in text, text
  assert not (tmp_path / "x.npz").exists()


def test_sampling_needs_a_run_with_a_checkpoint(toy_run, tmp_path):
  out = f"--out={tmp_path / 'x.npz'}"
  text = refusal("sample", f"--workdir={tmp_path}", out)
  assert "holds no run: it has no config.json" in text
  shutil.copy(toy_run / "config.json", tmp_path)
  text = refusal("sample", f"--workdir={tmp_path}", out)
  assert "has no checkpoint yet" in text
  assert not (tmp_path / "checkpoints").exists()
  text = refusal("sample", f"--workdir={toy_run}", out, "--labels=0")
  assert "was trained without classes" in text


@pytest.mark.parametrize("kind", [cli.Refusal, cli.Failure])
def test_what_a_message_quotes_does_not_break_it(kind):
  config = ml_collections.ConfigDict(dict(a=1, b=dict(c=np.zeros((9, 9)))))
  text = str(kind(f"config.a must be a name, not {config!r}"))
  assert "\n" not in text and text.startswith("config.a must be a name, not a:")


def test_a_refusal_is_one_line_with_status_2(tmp_path):
  for name, flags in (
    ("train", (*TRAIN, "--config.num_steps=0", f"--workdir={tmp_path / 'n'}")),
    (
      "train",
      (*TRAIN, "--config.batch_size=12", f"--workdir={tmp_path / 'n'}"),
    ),
    ("sample", (f"--workdir={tmp_path}", "--out=x.png")),
  ):
    eight = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = commands.run(name, *flags, **eight)
    assert done.returncode == 2 and not done.stdout, done.stdout
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    if "--config.batch_size=12" in flags:
      assert "divisible by the 8 devices, not 12" in done.stderr


@pytest.mark.parametrize(
  "name",
  (
    "train sample compare export look fit explore distill train_features sweep "
    "evaluate"
  ).split(),
)
def test_help_is_fast_because_it_imports_no_jax(name):
  code = (
    f"import sys, diffflow_jax.commands.{name} as m\n"
    "from diffflow_jax import cli\n"
    "try: m.main(['x', '--help'])\n"
    "except SystemExit as e: assert e.code == 0\n"
    "slow = {'jax', 'flax', 'orbax', 'sklearn', 'matplotlib', 'numpy'}\n"
    "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
  )
  done = commands.subprocess.run(
    [sys.executable, "-c", code],
    cwd=commands.ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert f"python -m diffflow_jax.{name}" in done.stdout
  assert "Flags:\n  --" in done.stdout


def test_importing_the_package_is_lazy_and_complete():
  code = (
    "import sys, diffflow_jax as dfj\n"
    "assert 'jax' not in sys.modules\n"
    "for name in dir(dfj): getattr(dfj, name)\n"
    "import diffflow_jax.sample, diffflow_jax.compare, diffflow_jax.train\n"
    "import diffflow_jax.evaluate\n"
    "assert dfj.evaluate.__name__ == 'evaluate' and callable(dfj.evaluate)\n"
    "assert dfj.train.__name__ == 'train' and callable(dfj.train)\n"
    "assert dfj.sample.__name__ == 'sample' and callable(dfj.sample)\n"
    "assert dfj.compare.__name__ == 'compare' and callable(dfj.compare)\n"
    "try: dfj.nothing\n"
    "except AttributeError as e: print(e)\n"
  )
  done = commands.subprocess.run(
    [sys.executable, "-c", code],
    cwd=commands.ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert "has no attribute 'nothing'" in done.stdout
