"""A run as a folder to share, and a sampler as one file."""

import json
import shutil
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

import diffflow_jax as dfj
from diffflow_jax import cli
from diffflow_jax.commands import export
from diffflow_jax.runs import params_file
from diffflow_jax.store import paths
from tests import buckets, commands, runs

HOW = dict(solver="sde_dpmpp_2m", num_steps=4, guidance=2.0)


def exported(workdir, out, *flags):
  export.main(["", f"--workdir={workdir}", f"--out={out}", *flags])
  return out


@pytest.fixture(scope="module")
def both(tmp_path_factory):
  """(workdir, export of it): 67,000 parameters, and a sampler of 6."""
  folder = tmp_path_factory.mktemp("runs")
  workdir = runs.untrained(folder / "run", width=256)
  lines = [
    {"step": 2, "loss": 9.0},
    {"step": 6, "loss": 0.5, "held_out/a": 0.25},
  ]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (workdir / "metrics.jsonl").write_text(text)
  flags = [f"--{k.replace('solver', 'sampler')}={v}" for k, v in HOW.items()]
  return workdir, exported(workdir, folder / "out", "--batch=6", *flags)


def test_samples_of_the_folder_are_the_run_s_to_the_bit(both, tmp_path):
  from diffflow_jax.commands import sample

  run, shared = map(dfj.load, both)
  want = run.sample(**HOW)
  np.testing.assert_array_equal(shared.sample(**HOW), want)
  assert shared.step == run.step == 6 and shared.card == run.card
  assert shared.metrics == {}
  out = tmp_path / "out.npz"
  flags = [f"--{name}={value}" for name, value in HOW.items()]
  sample.main(["", f"--workdir={both[1]}", f"--out={out}", *flags])
  np.testing.assert_array_equal(np.load(out)["samples"], want)
  assert not (both[1] / "compile_cache").exists()
  # and what is loaded from it is exported again to the same arrays
  again = exported(both[1], tmp_path / "again")
  ours, theirs = (p / "params.safetensors" for p in (both[1], again))
  assert ours.read_bytes() == theirs.read_bytes()


def test_its_size_is_four_bytes_a_parameter(both):
  run, file = dfj.load(both[0]), both[1] / "params.safetensors"
  count = dfj.networks.count(run.params)
  assert 4 * count < file.stat().st_size < 1.02 * 4 * count
  # a library that knows nothing of ours reads the arrays
  arrays = safetensors.load_file(file)
  kernel = arrays["params.Dense_0.kernel"]
  np.testing.assert_array_equal(
    kernel, run.params["params"]["Dense_0"]["kernel"]
  )


def test_the_model_card_says_what_it_is(both):
  text = (both[1] / "README.md").read_text()
  assert text.startswith("---\nlicense: #")
  for part in (
    "Conditional flow matching on straight lines",
    "| objective | flow_matching |",
    "log-SNR -2.20 to 2.20",  # quartiles of uniform flow time: 2 log 3
    "mlp(depth=1, width=256)",
    "examples of shape (2,)",
    "| classes | 3 |",
    "6 of 4 examples",
    "exponential(decay=0.9), at step 6",
    "ddim on uniform_t, 3 steps, guidance 1",
    "| loss | 0.5 (step 6) |",
    "| held_out/a | 0.25 (step 6) |",
    'dfj.load("out")',
    "--workdir=out",
    "sde_dpmpp_2m on uniform_t, 4 steps, guidance 2",
  ):
    assert part in text, part
  assert (both[1] / "samples.png").read_bytes()[:4] == b"\x89PNG"


def test_an_export_is_not_trained_on_in_place(both, tmp_path):
  from diffflow_jax.commands import train

  folder = shutil.copytree(both[1], tmp_path / "out")
  before = {path: path.read_bytes() for path in folder.iterdir()}
  flags = ["--config=configs/toy2d.py:smoke", f"--workdir={folder}"]
  for halfway in (False, True):
    if halfway:
      (folder / "config.json").unlink()
      del before[folder / "config.json"]
    with pytest.raises(cli.Refusal) as caught:
      train.main(["train", *flags])
    assert str(caught.value) == (
      f"--workdir {folder} is an export, which nothing goes on from in place: "
      f"take another --workdir, with --init_from={folder} to start from its "
      "parameters"
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_sampler_draws_the_run_s_samples(both):
  draw = dfj.load_exported(both[1] / "sampler.jaxexport")
  labels = np.array([2, 0, 1, 1, 0, 2])
  for seed in (0, 7):
    want = dfj.load(both[0]).sample(labels=labels, seed=seed, **HOW)
    got = draw(jax.random.key(seed), labels)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(draw(jax.random.PRNGKey(7), labels), got)
  for key, given, message in (
    (0, labels, "key must be a threefry2x32 key, .* not 0"),
    (jax.random.key(0, impl="rbg"), labels, "key must be a threefry2x32 key"),
    (jax.random.key(0), None, r"labels must have shape \(6,\), not None"),
    (jax.random.key(0), labels[:5], r"shape \(6,\), not shape \(5,\)"),
    (jax.random.key(0), labels / 2, "labels must be integers, not float64"),
    (jax.random.key(0), labels + 1, r"labels\[0\] is no class: 3"),
    (jax.random.key(0), labels - 1, r"labels\[1\] is no class: -1"),
  ):
    with pytest.raises(ValueError, match=message):
      draw(key, given)


def test_the_sampler_runs_where_this_library_is_not(both, tmp_path):
  """The model card's own lines, with jax alone."""
  text = (both[1] / "README.md").read_text()
  lines = text.split("```python\n")[-1].split("```")[0]
  assert len(lines.splitlines()) <= 5
  code = (
    "import sys\n"
    "class Block:\n"
    "  def find_spec(self, name, path=None, target=None):\n"
    "    if name.split('.')[0] in ('diffflow_jax', 'flax', 'optax', 'chex',\n"
    "        'orbax', 'etils', 'ml_collections', 'safetensors', 'absl'):\n"
    "      raise ModuleNotFoundError(name)\n"
    "sys.meta_path.insert(0, Block())\n"
    f"{lines}"
    f"np.save({str(tmp_path / 'x.npy')!r}, samples)\n"
    "try: import diffflow_jax\n"
    "except ModuleNotFoundError: print('not there')\n"
  )
  done = commands.subprocess.run(
    [sys.executable, "-c", code],
    cwd=both[1],
    env=commands.environment(PYTHONPATH=""),
    capture_output=True,
    text=True,
  )
  assert done.stdout == "not there\n", done.stderr
  want = dfj.load(both[0]).sample(**HOW)
  np.testing.assert_allclose(
    np.load(tmp_path / "x.npy"), want, rtol=1e-5, atol=1e-5
  )


def test_a_run_without_classes_needs_a_key_alone(tmp_path):
  workdir = runs.untrained(tmp_path / "run", num_classes=0)
  out = exported(workdir, tmp_path / "out", "--batch=6")
  draw = dfj.load_exported(out / "sampler.jaxexport")
  want = dfj.load(out).sample(seed=3)
  np.testing.assert_allclose(
    draw(jax.random.key(3)), want, rtol=1e-5, atol=1e-5
  )
  assert (
    "sampler.call(jax.random.PRNGKey(0))" in (out / "README.md").read_text()
  )
  with pytest.raises(ValueError, match="labels: .* a run without"):
    draw(jax.random.key(3), np.zeros(6, int))


def damage(data, what):
  """The bytes of a safetensors file with one thing wrong."""
  size = struct.unpack("<Q", data[:8])[0]
  if what == "cut off":
    return data[:-100]
  if what == "cut in its head":
    return data[: 8 + size // 2]
  if what == "empty":
    return b""
  if what == "a bit":
    at = 8 + size + 1001
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
  if what == "its step":
    return data.replace(rb"\"step\": 6", rb"\"step\": 7")
  if what == "another's":
    return safetensors.save({"a": np.zeros(3, np.float32)})
  if what == "newer":
    return data.replace(rb"\"format\": 1", rb"\"format\": 2")


@pytest.mark.parametrize(
  "what,message",
  [
    ("cut off", "is damaged or cut off: "),
    ("cut in its head", "is damaged or cut off: "),
    ("empty", "is damaged or cut off: "),
    ("a bit", "was altered: its arrays do not match their checksum"),
    ("its step", "was altered: its arrays do not match their checksum"),
    ("another's", "has the format None of diffflow_jax, and this version"),
    ("newer", "has the format 2 of diffflow_jax, and this"),
  ],
)
def test_damaged_parameters_are_refused(what, message, both, tmp_path):
  copy = shutil.copytree(both[1], tmp_path / "copy")
  file = copy / "params.safetensors"
  changed = damage(file.read_bytes(), what)
  assert changed != file.read_bytes()
  file.write_bytes(changed)
  with pytest.raises(cli.Refusal, match=message) as caught:
    dfj.load(copy)
  assert "\n" not in str(caught.value)


def test_other_networks_steps_and_averages_are_refused(both, tmp_path):
  copy = shutil.copytree(both[1], tmp_path / "copy")
  with pytest.raises(cli.Refusal, match="export of step 6 alone, not of 3"):
    dfj.load(copy, step=3)
  assert dfj.load(copy, step=6).step == 6
  with pytest.raises(cli.Refusal, match="ema: .* is an export, of one average"):
    dfj.load(copy, ema=0.1)
  config = json.loads((copy / "config.json").read_text())
  for network, message in (
    (dict(width=128, depth=1), r"has shape .* and \(128,\) in the config's"),
    (dict(width=256, depth=2), "lacks the array params.*Dense_.*"),
  ):
    config["network"] = dict(name="mlp", **network)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(cli.Refusal, match=message):
      dfj.load(copy)


def test_what_stands_in_the_way_is_left_alone(both, tmp_path):
  workdir = both[0]
  flags = [f"--workdir={workdir}"]
  (tmp_path / "file").write_text("mine")
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "thesis.tex").write_text("mine")
  for out, message in (
    (workdir, "--out: .*run holds a run or an export already"),
    (both[1], "--out: .*out holds a run or an export already"),
    (tmp_path / "full", "--out: .*full holds other files, as thesis.tex"),
    (tmp_path / "file", "--out: .*file is a file, and an export is a folder"),
    (tmp_path / "file" / "x", "--out: .*: Not a directory"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      export.main(["", *flags, f"--out={out}"])
  assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["thesis.tex"]
  out = tmp_path / "new"
  for more, message in (
    (["--sampler=ddim"], "--sampler needs --batch, the number of samples"),
    (["--batch=0"], "--batch must be at least 1, not 0"),
    (["--batch=2", "--sampler=dmp"], "--sampler is 'dmp'; known: "),
    (["--batch=2", "--sampler=adaptive"], "--sampler must be a table"),
    (["--batch=2", "--num_steps=0"], "--num_steps must be at least 1"),
    (["--step=4"], "no checkpoint of step 4"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      export.main(["", *flags, f"--out={out}", *more])
  assert not out.exists()
  with pytest.raises(cli.Refusal, match="^batch must be at least 1"):
    dfj.load(workdir).export(out, batch=0)


def test_half_an_export_is_no_run_and_is_finished_later(
  both, tmp_path, monkeypatch
):
  out = tmp_path / "out"
  written, write = [], paths.write

  def fail(path, data):
    if len(written) == 4:  # the notice that it is not finished, three files
      raise OSError(28, "No space left on device")
    written.append(path)
    write(path, data)

  monkeypatch.setattr(paths, "write", fail)
  with pytest.raises(cli.Failure, match="out cannot be written: No space left"):
    exported(both[0], out)
  assert len(list(out.iterdir())) == 3
  with pytest.raises(cli.Refusal, match="holds no run"):
    dfj.load(out)
  monkeypatch.undo()
  assert dfj.load(exported(both[0], out)).step == 6


def test_bfloat16_parameters_keep_their_size_and_bits(tmp_path, monkeypatch):
  params = {"a": jnp.arange(300, dtype=jnp.bfloat16) / 7, "b": jnp.float32(3.0)}
  data = params_file.pack(params, 5)
  (tmp_path / params_file.NAME).write_bytes(data)

  class Recipe:
    objective = network = card = None

  monkeypatch.setattr(params_file.recipe_lib, "init", lambda *_: params)
  step, back = params_file.read(tmp_path, Recipe)
  assert step == 5 and back["b"].shape == ()
  assert back["a"].dtype == jnp.bfloat16
  np.testing.assert_array_equal(back["a"], params["a"])
  head = struct.unpack("<Q", data[:8])[0]
  assert len(data) == 8 + head + 2 * 300 + 4
  assert params_file.about(data)["step"] == 5


def test_files_that_are_no_sampler_are_refused(both, tmp_path):
  data = (both[1] / "sampler.jaxexport").read_bytes()
  for name, content in (
    ("text", b"hello"),
    ("none", b""),
    ("cut", data[: len(data) // 2]),
    ("end", data[:-1000]),
  ):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(cli.Refusal, match=f"{name} is no exported sampler"):
      dfj.load_exported(tmp_path / name)
  with pytest.raises(cli.Refusal, match="missing cannot be read: No such file"):
    dfj.load_exported(tmp_path / "missing")


@pytest.mark.slow
@pytest.mark.parametrize("server", [buckets.gcs, buckets.s3])
def test_a_folder_in_a_bucket_is_as_on_a_disk(server, both, monkeypatch):
  with server() as (bucket, extra, _):
    for name, value in extra.items():
      monkeypatch.setenv(name, value)
    out = f"{bucket}/models/digits"
    with pytest.raises(cli.Refusal, match="there is no folder .*models/digits"):
      dfj.load(out)
    dfj.load(both[1]).export(out, batch=6, **HOW)
    with pytest.raises(cli.Refusal, match="digits holds a run or an export al"):
      dfj.load(both[1]).export(out)
    want = dfj.load(both[1]).sample(**HOW)
    np.testing.assert_array_equal(dfj.load(out).sample(**HOW), want)
    draw = dfj.load_exported(f"{out}/sampler.jaxexport")
    got = draw(jax.random.key(0), np.arange(6) % 3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    with pytest.raises(cli.Refusal, match="in it digits is one"):
      dfj.load(f"{bucket}/models")
