"""What the commands say of bad input: one sentence, and nothing is written."""

import importlib
import pathlib
import re

import ml_collections
import numpy as np
import pytest

from diffflow_jax import cli, config_files
from diffflow_jax.runs import lookup, memory, progress, recipe
from diffflow_jax.sampling import ode
from diffflow_jax.training import loop
from diffflow_jax.training.resolve import resolve

TOY = "--config=configs/toy2d.py:smoke"


def refusal(name, *flags):
  """What a command says when it refuses, without starting a process."""
  main = importlib.import_module(f"diffflow_jax.commands.{name}").main
  with pytest.raises(cli.Refusal) as caught:
    main([name, *map(str, flags)])
  text = str(caught.value)
  assert "\n" not in text and 10 < len(text) < 500
  return text


@pytest.mark.parametrize(
  "flags,message",
  [
    ("objective.schedule.name=shift", "config.objective.schedule=NAME:setting"),
    ("objective.schedule=shift:factr=3", "'factr': its arguments are base, fa"),
    ("objective.schedule=shift:factor=nan", "factor must be a finite number"),
    ("objective.schedule=shift:factor=0", "factor must be > 0, not 0"),
    ("objective.schedule=shift:base=3", "base must be a schedule or the name"),
    ("objective.schedule=shift:base=flo", "unknown schedule 'flo': known are"),
    ("objective.scale=unit:sigma_data=-1", "sigma_data must be > 0, not -1"),
    ("objective.target=F:sigma_data=0", "sigma_data must be > 0, not 0"),
    (
      "objective.wieghting=x",
      "known: density, scale, schedule, sigma_min, target, weighting; did you "
      "mean weighting[?]",
    ),
    ("learning_rate=-1", "config.learning_rate.value must be >= 0, not -1.0"),
    ("learning_rate=nan", "learning_rate.value must be .*>= 0, not .nan"),
    ("learning_rate.warmup_steps=-5", "warmup_steps must be an integer >= 0"),
    (
      "learning_rate.warmup_steps=20",
      "config.learning_rate.warmup_steps must be < decay_steps = 20, not 20",
    ),
    ("learning_rate.decay_steps=0", "decay_steps must be an integer >= 1"),
    ("batch_size=1000000000000", "config.batch_size must be < 2147483648"),
    (
      "batch_size=2000000000",
      "config.batch_size = 2000000000 would take .* GiB",
    ),
    ("num_steps=99999999999999999999", "config.num_steps must be < 2147483648"),
    ("ema.name=power --config.ema.sigma_rel=()", "sigma_rel must be one width"),
    ("ema.name=power --config.ema.sigma_rel=(nan,)", "config.ema: sigma_rel"),
    ("ema.decay=nan", "config.ema: decay must be in"),
    ("dataset.noise=nan", "config.dataset: noise must be a number, >= 0"),
    (
      "dataset.noise=x",
      "config.dataset: noise must be a number, >= 0, not 'x'",
    ),
    ("dataset.noise=-1", "config.dataset: noise must be >= 0, not -1"),
    ("optimizer.name=__doc__", "optimizer.name is '__doc__'; known: adafactor"),
    ("optimizer.b1=nan", "config.optimizer.b1 must be .*in .0, 1"),
    (
      "optimizer.name=adamw --config.optimizer.weight_decay=nan",
      "config.optimizer.weight_decay must be .*>= 0",
    ),
    ("dataset.name=os:getcwd", "config.dataset: what os:getcwd returns"),
    ("dataset.name=math:pi", "is 'math:pi', which cannot be called"),
    ("dataset.name=builtins:int", "is 'builtins:int', which cannot be called"),
    (
      "network.name=os:getcwd",
      "is 'os:getcwd', which must take an argument num_classes",
    ),
    ("network.width=1000000000", "the parameters, their .* would take .* GiB"),
    ("network.depth=1000000000", "config.network.depth must be at most 1000"),
    ("held_out.num=1000000000000", "config.held_out.num must be < 2147483648"),
    ("held_out.num=2000000000", "config.held_out.num = 2000000000 would take"),
    ("held_out.num=nan", "--config.held_out.num=nan"),
    (
      "sampler.num_steps=1000000000",
      "config.sampler.num_steps must be <= 10000",
    ),
    (
      "sampler.num_samples=2000000000",
      "config.sampler.num_samples = 2000000000 would take .* GiB",
    ),
    ("sampler.solver=auto", "config.sampler.grid must be 'auto' where the"),
    ("sampler.guidance=inf", "config.sampler.guidance must be a finite number"),
    ("seed=4294967296", "config.seed must be < 4294967296"),
    ("objective=edm", "--config.objective=edm: that is a section .*name=edm"),
    ("keep=3", "that is a section with fields, as --config.keep.FIELD=VALUE"),
    ("network=mlp:width=3", "with fields, as --config.network.name=mlp$"),
    ("sed=1", "config.sed is not a field of a config; known: .*you mean seed"),
    ("clip_norm=nan", "config.clip_norm must be in .0, inf], not nan"),
  ],
)
def test_training_that_cannot_work_is_refused(flags, message, tmp_path):
  flags = f"--config.{flags}".split()
  text = refusal("train", TOY, *flags, f"--workdir={tmp_path / 'new'}")
  assert re.search(message, text), text
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
  "flag,message",
  [
    ("--profile=1000:2000", "--profile: the run ends at step 20, before 1000"),
    ("--wandb=", "--wandb must name a project"),
    ("--flagfile=/nowhere", "Unable to open flagfile"),
    ("--workdir=", "--workdir is missing"),
  ],
)
def test_flags_of_training_are_refused(flag, message, tmp_path):
  workdir = f"--workdir={tmp_path / 'new'}"
  assert message in refusal("train", TOY, workdir, flag)
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
  "workdir,why",
  [
    ("/dev/null", "File exists|Not a directory"),
    ("/dev/null/x", "Not a directory"),
    ("a" * 300, "File name too long"),
    ("\0", "null byte|null character"),
  ],
)
def test_a_workdir_that_no_disk_can_hold_is_refused(workdir, why):
  text = refusal("train", TOY, f"--workdir={workdir}")
  assert re.search(f"--workdir .*({why})", text), text


def test_wandb_is_missed_before_anything_is_written(tmp_path, monkeypatch):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda n: None if n == "wandb" else find(n)
  )
  workdir = tmp_path / "new"
  text = refusal("train", TOY, "--wandb=x", f"--workdir={workdir}")
  assert "pip install wandb" in text and not workdir.exists()


BROKEN = {
  "def get_config(:\n": "FILE, line 1: invalid syntax",
  "x = 1\ndef get_config(): pass\n": "get_config() of FILE returns nothing",
  "def get_config(): return [1]\n": "returns a list, not a ConfigDict",
  "import nowhere\n": "FILE, line 1: No module named 'nowhere'",
  "def get_config():\n  return 1 / 0\n": "FILE, line 2: ZeroDivisionError: di",
  "def get_config():\n  raise KeyError('a')\n": "FILE, line 2: KeyError: 'a'",
  "import sys\nsys.exit(3)\n": "FILE, line 2 calls sys.exit(3)",
  "def get_config():\n  exit()\n": "FILE, line 2 calls sys.exit(",
  "x = '\0'\n": "FILE: source code string cannot contain null",
  "x = 1\n": "FILE has no get_config()",
  "def get_config(a, b): pass\n": "get_config() of FILE cannot do without",
  "def get_config():\n  return get_config()\n": "FILE, line 2: RecursionError",
}


@pytest.mark.parametrize("text,message", BROKEN.items())
def test_a_broken_config_file_is_named_with_its_line(text, message, tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(text)
  message = message.replace("FILE", str(path))
  said = refusal("train", f"--config={path}", "--workdir=never")
  assert said.startswith("--config: ") and message in said, said
  said = refusal("compare", f"--configs=edm,{path}")
  assert said.startswith("--configs: ") and message in said, said


def test_what_is_no_config_file_at_all(tmp_path):
  (tmp_path / "bytes.py").write_bytes(bytes(range(128, 256)))
  lines = pathlib.Path("configs/toy2d.py").read_text().splitlines()
  raised = next(i for i, l in enumerate(lines, 1) if "raise ValueError" in l)
  for path, message in (
    (tmp_path / "no.py", "there is no file"),
    (tmp_path, "is a directory, not a file"),
    (tmp_path / "bytes.py", "line 1: (unicode error)"),
    (
      "configs/toy2d.py:huge",
      f"line {raised}: toy2d.py has the sizes vdm and smoke, not 'huge'",
    ),
  ):
    said = refusal("train", f"--config={path}", "--workdir=never")
    assert said.startswith("--config: ") and message in said, said


def test_a_number_is_a_constant_rate_in_files_and_flags(tmp_path):
  """config.json always holds the schedule, so a resumed run compares equal."""
  path = tmp_path / "mine.py"
  path.write_text(
    "import ml_collections\ndef get_config():\n"
    "  return ml_collections.ConfigDict({'learning_rate': 2e-3})\n"
  )
  want = {"name": "constant_schedule", "value": 2e-3}
  assert config_files.load(str(path)).learning_rate.to_dict() == want
  values = cli.new_flags()
  argv = ["x", TOY, "--config.learning_rate=0.002"]
  cli.define_config(values, argv)
  cli.parse(values, argv, "")
  config = cli.chosen_config(values)
  assert config.learning_rate.to_dict() == want
  assert float(resolve(config).learning_rate(7)) == pytest.approx(2e-3)
  with config.unlocked(), config.ignore_type():
    config.learning_rate = 3e-3  # as a caller of dfj.train may have it
  assert float(resolve(config).learning_rate(7)) == pytest.approx(3e-3)


def test_another_decay_does_not_change_the_length_of_the_run():
  values = cli.new_flags()
  argv = ["x", TOY, "--config.learning_rate.decay_steps=7"]
  cli.define_config(values, argv)
  cli.parse(values, argv, "")
  config = cli.chosen_config(values)
  assert (config.num_steps, config.learning_rate.decay_steps) == (20, 7)
  argv[-1] = "--config.num_steps=30"
  values = cli.new_flags()
  cli.define_config(values, argv)
  cli.parse(values, argv, "")
  config = cli.chosen_config(values)
  assert (config.num_steps, config.learning_rate.decay_steps) == (30, 30)


def test_an_adaptive_solver_that_gives_up_says_so(
  toy_run, tmp_path, monkeypatch
):
  monkeypatch.setattr(ode, "MAX_STEPS", 5)
  out = tmp_path / "x.npz"
  flags = ("--solver=adaptive:rtol=1e-6", "--num_samples=3", f"--out={out}")
  with pytest.raises(cli.Failure, match="after 5 steps: rtol=1e-06 and atol"):
    importlib.import_module("diffflow_jax.commands.sample").main(
      ["sample", f"--workdir={toy_run}", *flags]
    )
  assert not out.exists()


@pytest.mark.parametrize(
  "schedule,logsnr",
  [
    # -2 log tan(π/8) - 2 log 3, at t = 1/4
    ("shift:base=cosine,factor=3", -2 * np.log(np.tan(np.pi / 8) * 3)),
    ({"name": "shift", "base": "cosine", "factor": 3}, None),
    ("flow:sigma_min=0.1", 2 * np.log(0.75 / (0.1 * 0.75 + 0.25))),
  ],
)
def test_schedules_take_settings_as_weightings_do(schedule, logsnr):
  made = recipe.objective({"name": "v_diffusion", "schedule": schedule})
  if logsnr is None:
    logsnr = -2 * np.log(np.tan(np.pi / 8) * 3)
  np.testing.assert_allclose(made.schedule.logsnr(0.25), logsnr, rtol=1e-5)
  np.testing.assert_allclose(made.density.logsnr(0.25), logsnr, rtol=1e-5)


def test_a_zero_terminal_table_by_name():
  text = "zero_terminal:base=scaled_linear_table"
  made = recipe.objective({"name": "v_diffusion", "schedule": text})
  assert made.schedule.logsnr(1.0) == -np.inf


@pytest.mark.parametrize(
  "flags,message",
  [
    (
      ["--num_samples=1000000000000000"],
      "--num_samples=1000000000000000 would",
    ),
    (
      ["--num_samples=2147483647"],
      "would take 32 GiB of memory: .* only 4 GiB",
    ),
    (["--batch_size=2147483647", "--num_samples=2147483647"], "32 GiB of mem"),
    (
      ["--num_steps=1000000000"],
      "--num_steps must be at most 10000, not 1000000000",
    ),
    (["--clip=static:limit=nan"], "--clip: .*limit must be > 0, not nan"),
    (["--clip=static:limit=inf"], "limit must be > 0 and finite, not inf"),
    (["--solver=ddim:eta=0,eta=1"], "'ddim:eta=0,eta=1' sets eta twice"),
    (["--solver=ddim:=1"], "'=1' in 'ddim:=1' is not setting=value"),
    (["--solver=ddmi"], "--solver is 'ddmi'; known: .*did you mean ddpm"),
    (["--solver=langevin:num_corrections=100000"], "must be at most 10000"),
    (["--restart=1,2,1000000"], "--restart adds 1000000 steps to 4: a sampl"),
    (["--ema=nan"], "--ema must be a number > 0, not nan"),
    (["--step=-1"], "--step must be at least 0, not -1"),
    (["--guidance=inf"], "--guidance must be finite, not inf"),
  ],
)
def test_sampling_that_cannot_work_is_refused(
  flags, message, toy_run, tmp_path, monkeypatch
):
  monkeypatch.setattr(memory, "host", lambda: 2**32)
  out = tmp_path / "x.npz"
  text = refusal("sample", f"--workdir={toy_run}", f"--out={out}", *flags)
  assert re.search(message, text), text
  assert not out.exists()


def test_a_directory_is_no_file_to_write(toy_run, tmp_path):
  for name in ("out.png", "way.gif"):
    (tmp_path / name).mkdir()
  run = f"--workdir={toy_run}"
  text = refusal("sample", run, f"--out={tmp_path / 'out.png'}")
  assert "out.png is a directory" in text
  way = f"--trajectory={tmp_path / 'way.gif'}"
  text = refusal("sample", run, f"--out={tmp_path / 'a.png'}", way)
  assert "way.gif is a directory" in text


@pytest.mark.parametrize(
  "bad,name,written",
  [(3, "x.npz", False), (1, "x.npz", True), (1, "x.png", False)],
)
def test_samples_that_are_not_finite_are_a_failure(
  bad, name, written, toy_run, tmp_path, monkeypatch
):
  """Arrays are written where some of them are good, pictures never."""
  from diffflow_jax.commands import sample
  from diffflow_jax.runs import generate

  x = np.zeros((3, 2), np.float32)
  x[:bad, 1] = np.nan
  monkeypatch.setattr(generate, "evaluated", lambda *a, **k: (x, None, 1.0))
  out = tmp_path / name
  message = f"{bad} of 3 samples are not finite .*{name} is"
  with pytest.raises(cli.Failure, match=message) as error:
    sample.main(["sample", f"--workdir={toy_run}", f"--out={out}"])
  assert out.exists() == written == ("written with" in str(error.value))


def test_a_weaker_run_of_other_data_is_refused(digits_run, toy_run, tmp_path):
  text = refusal(
    "sample",
    f"--workdir={digits_run[0]}",
    f"--weak_workdir={toy_run}",
    "--guidance=2",
    f"--out={tmp_path / 'x.npz'}",
  )
  assert "was trained on data of shape (2,)" in text and "(8, 8, 1)" in text


def test_comparing_names_the_recipes():
  from diffflow_jax.objective import objectives
  from diffflow_jax.objective.comparison import compare

  a, b = objectives.edm(sigma_data=0.7), objectives.flow_matching()
  assert str(compare(a, b)).startswith("edm against flow_matching\n")
  assert compare(b, b).names == ("a", "b")
  double = lambda lv: tuple(2.0 * c for c in a.target(lv))
  assert compare(a.replace(target=double), b).names == ("a", "flow_matching")
  for name, make in objectives.OBJECTIVES.items():
    alias = {"ve": "ncsn", "rectified_flow": "flow_matching"}
    assert objectives.name_of(make()) == alias.get(name, name)


def test_whatever_a_users_module_raises_is_a_sentence(tmp_path, monkeypatch):
  (tmp_path / "theirs.py").write_text(
    "def data(): raise RuntimeError('no\\ndisk')\ndef odd(x): return x['a']\n"
  )
  (tmp_path / "worse.py").write_text("raise OSError('gone')\n")
  monkeypatch.syspath_prepend(tmp_path)
  for spec, message in (
    ({"name": "theirs:data"}, "config.dataset: RuntimeError: no"),
    ({"name": "theirs:odd", "x": 1}, "config.dataset: 'int' object is not"),
    ({"name": "theirs:nothing"}, "has no attribute 'nothing'"),
    ({"name": "worse:data"}, "config.dataset.name is 'worse:data': gone"),
    ({"name": ["a"]}, "config.dataset.name must be a name, not .'a'."),
    ({}, "config.dataset.name is missing; known: moons"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      lookup.choose("dataset", spec, {"moons": dict})


def test_memory_is_counted_from_shapes(monkeypatch):
  like = {"a": np.zeros((3, 5), np.float32), "b": np.zeros(7, np.int32)}
  assert memory.per_device(like) == 4 * (15 + 7)
  monkeypatch.setattr(memory, "available", lambda: 2**30)
  memory.need("it", 2**30)
  with pytest.raises(cli.Refusal, match="it would take 2 GiB .* only 1 GiB"):
    memory.need("it", 2**31)


def test_sampling_that_takes_long_says_how_far_it_is(monkeypatch):
  import io

  clock = iter([0.0, 3.0, 6.0, 8.0, 17.0, 20.0])
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
  stream = io.StringIO()
  counter = progress.Counter(100, "samples", stream)
  for done in (10, 25, 40, 80, 100):
    counter(done)
  # nothing at 3 s; at 6 s a quarter, 18 s left; then a line every 10 s
  lines = stream.getvalue().splitlines()
  assert lines == ["25/100 samples  0:18 left", "80/100 samples  0:04 left"]


def test_the_loop_looks_at_the_memory_before_it_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(memory, "available", lambda: 1000)
  config = config_files.load("configs/toy2d.py:smoke")
  assert isinstance(config, ml_collections.ConfigDict)
  with pytest.raises(cli.Refusal, match="would take .* GiB of memory"):
    loop.train(config, str(tmp_path / "new"))
  assert not (tmp_path / "new").exists()
