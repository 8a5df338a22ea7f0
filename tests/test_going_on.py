"""A run that is made longer, watched differently, or starts from another."""

import json
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli, networks
from diffflow_jax.commands import train
from diffflow_jax.objective import objectives
from diffflow_jax.process import schedules, targets
from diffflow_jax.runs import (
  card,
  card as card_lib,
  changes,
  meaning,
  recipe as recipe_lib,
  transfer,
  workdir as workdir_lib,
)
from tests import commands, runs
from tests.runs import curve, final_arrays

TOY = "--config=configs/toy2d.py:smoke"
CONSTANT = (
  TOY,
  "--config.learning_rate.name=constant_schedule",
  "--config.learning_rate.value=1e-3",
  "--config.network.width=16",
  "--config.network.depth=1",
  "--config.sampler.num_samples=20",
)


def go(workdir, *flags):
  train.main(["train", *flags, f"--workdir={workdir}"])


def refusal(workdir, *flags):
  with pytest.raises(cli.Refusal) as caught:
    go(workdir, *flags)
  return str(caught.value)


def assert_same_bits(one, two):
  assert one.keys() == two.keys() and len(one) > 20
  for name in one:
    assert np.array_equal(one[name], two[name]), name


@pytest.fixture(scope="module")
def short(tmp_path_factory):
  """20 steps at a constant rate; the last is no multiple of 6."""
  workdir = tmp_path_factory.mktemp("going") / "short"
  go(workdir, *CONSTANT, "--config.checkpoint_every=6")
  return workdir


def test_it_keeps_what_was_found_in_its_data(short, tmp_path):
  run = dfj.load(short)
  found = dfj.inspect(dfj.data.moons(), run.objective)
  # to JSON and back: lists for tuples
  assert run.card.found == json.loads(json.dumps(found.as_dict()))
  assert run.card.found["summary"] == found.summary()
  run.export(tmp_path / "out")
  card_text = (tmp_path / "out" / "README.md").read_text()
  assert f"| data, looked at | {found.summary()} |" in card_text
  assert dfj.load(tmp_path / "out").card == run.card


# Longer, and watched differently


def test_a_longer_run_is_what_it_would_have_been_from_the_start(
  short, tmp_path, capsys
):
  whole, longer = tmp_path / "whole", tmp_path / "longer"
  go(whole, *CONSTANT, "--config.num_steps=40")
  shutil.copytree(short, longer)
  capsys.readouterr()
  flags = ("--config.num_steps=40", "--config.keep.latest=2")
  go(longer, *CONSTANT, *flags)
  said = [l for l in capsys.readouterr().out.splitlines() if "changed" in l]
  assert said == [
    "changed since the last start: config.checkpoint_every 6 -> 10, "
    "config.keep.latest 3 -> 2, config.num_steps 20 -> 40"
  ]
  assert_same_bits(final_arrays(whole, 40), final_arrays(longer, 40))
  assert curve(whole) == curve(longer)
  assert runs.steps(longer) == [30, 40]
  name = "samples/step_00000040.png"
  assert (whole / name).read_bytes() == (longer / name).read_bytes()
  # and its config is the one that it has now
  assert workdir_lib.load_config(str(longer)).num_steps == 40
  (line,) = (longer / "config_history.jsonl").read_text().splitlines()
  known = json.loads(line)
  assert known["step"] == 20 and known["changed"]["num_steps"] == [20, 40]


def test_another_way_to_watch_changes_no_bit_of_the_state(tmp_path):
  """The sums of a half interval go into the next line, whenever that is."""
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  flags = (*CONSTANT, "--config.log_every=10", "--config.checkpoint_every=4")
  go(whole, *flags)
  shutil.copytree(whole, cut)
  for step in (20, 16):
    shutil.rmtree(cut / "checkpoints" / str(step))
  go(cut, *flags, "--config.log_every=7", "--config.sampler.solver=heun",
     "--config.sample_every=5", "--config.mesh.data=1")  # fmt: skip
  assert_same_bits(final_arrays(whole, 20), final_arrays(cut, 20))
  one, two = curve(whole), curve(cut)
  assert [line["step"] for line in one] == [10, 20]
  assert [line["step"] for line in two] == [10, 14, 15, 20]
  # steps 11 to 20 are in one line of one run, in two of the other: 4 and 6
  losses = [line["loss"] for line in two if "loss" in line]
  assert len(losses) == 3
  mean = (4 * losses[1] + 6 * losses[2]) / 10
  assert np.isclose(mean, one[1]["loss"], rtol=1e-5)


def test_what_makes_another_run_is_refused_and_nothing_is_written(short):
  before = {p: p.stat().st_mtime_ns for p in short.rglob("*")}
  text = refusal(short, *CONSTANT, "--config.batch_size=32")
  assert "holds a run with config.batch_size = 64, not 32: only num_s" in text
  assert f"--init_from={short}" in text
  text = refusal(short, *CONSTANT, "--config.num_steps=10")
  assert (
    f"{short} has reached step 20: config.num_steps must be at least" in text
  )
  files = {p: p.stat().st_mtime_ns for p in short.rglob("*") if p.is_file()}
  assert files.items() <= before.items()


BEFORE = {"num_steps": 20, "learning_rate.decay_steps": 20, "mesh.fsdp": 4}


@pytest.mark.parametrize(
  "field", ["num_steps", "mesh.fsdp", "log_every", "sample_every", "keep.best",
            "checkpoint_every", "sampler.solver", "sampler.guidance"],
)  # fmt: skip
def test_what_may_change(field):
  before = {**BEFORE, field: 1}
  assert changes.between("w", before, {**before, field: 2}) == {field: [1, 2]}
  assert changes.between("w", before, before) == {}


@pytest.mark.parametrize(
  "field", ["seed", "batch_size", "dataset.path", "learning_rate.peak_value",
            "accumulation", "keeper.x"],
)  # fmt: skip
def test_what_may_not_change(field):
  with pytest.raises(cli.Refusal, match=f"a run with config.{field} = None, "):
    changes.between("w", BEFORE, {**BEFORE, field: 2, "mesh.fsdp": 1})


def test_a_rate_that_follows_the_length_is_said_and_can_be_kept(tmp_path):
  longer = {**BEFORE, "num_steps": 40, "learning_rate.decay_steps": 40}
  with pytest.raises(cli.Refusal) as caught:
    changes.between("runs/a", BEFORE, longer)
  text = str(caught.value)
  assert "runs/a cannot go from config.num_steps = 20 to 40" in text
  assert "config.learning_rate.decay_steps = 20, not 40" in text
  kept = next(w for w in text.split() if w.startswith("--config.learning_rate"))
  # the command line can do what the sentence says, in any order
  for flags in (
    (kept, "--config.num_steps=40"),
    ("--config.num_steps=40", kept),
  ):
    config = config_of(*flags)
    assert config.num_steps == 40 and config.learning_rate.decay_steps == 20
  many = {**longer, "a": 1, "b": 1, "c": 1}
  with pytest.raises(cli.Refusal, match="c = None, not 1; and 1 more: only"):
    changes.between("w", BEFORE, many)


def config_of(*flags):
  values, argv = cli.new_flags(), ["train", TOY, *flags]
  cli.define_config(values, argv)
  cli.parse(values, argv, "")
  return cli.chosen_config(values)


def test_a_setting_given_by_hand_follows_no_other():
  config = config_of("--config.learning_rate.decay_steps=30")
  assert config.num_steps == 20 and config.learning_rate.decay_steps == 30
  config = config_of("--config.num_steps=40", "--config.sampler.num_steps=3")
  assert config.num_steps == config.learning_rate.decay_steps == 40


def test_a_config_that_cannot_be_written_waits_for_the_next_start(
  short, tmp_path, monkeypatch, caplog
):
  workdir = tmp_path / "full"
  shutil.copytree(short, workdir)

  def full(*args):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(workdir_lib, "change_config", full)
  go(workdir, *CONSTANT)  # with the file's checkpoint_every
  assert "config.json cannot be written: No space left" in caplog.text
  assert workdir_lib.load_config(str(workdir)).checkpoint_every == 6


# From another run


def arrays_at_start(workdir, tmp_path):
  only = tmp_path / "start" / "checkpoints"
  shutil.copytree(workdir / "checkpoints" / "0", only / "0")
  return final_arrays(only.parent, 0)


def source_ema(workdir, step=20):
  found = final_arrays(workdir, step)
  return {n: a for n, a in found.items() if n.startswith("['ema'][0]")}


def test_parameters_and_every_average_start_from_the_others_average(
  short, tmp_path, capsys
):
  source, new = tmp_path / "source", tmp_path / "new"
  shutil.copytree(short, source)
  flags = (
    *CONSTANT, "--config.seed=1", "--config.ema.name=power",
    "--config.ema.sigma_rel=(0.05,0.1)", "--config.keep.latest=9",
  )  # fmt: skip
  go(new, *flags, f"--init_from={source}")
  out = capsys.readouterr().out
  assert f"starts from {source} at step 20: 16 arrays of its average" in out
  first, want = arrays_at_start(new, tmp_path), source_ema(source)
  assert len(want) == 16
  for name, array in want.items():
    rest = name.removeprefix("['ema'][0]")
    for place in ("['params']", "['ema'][0]", "['ema'][1]"):
      assert np.array_equal(first[place + rest], array), name
  fresh = [a for n, a in first.items() if n.startswith("['opt_state']")]
  assert len(fresh) > 32 and not any(np.any(a) for a in fresh)
  assert first["['step']"] == 0
  record = json.loads((new / "started_from.json").read_text())
  assert record["init_from"] == str(source) and record["step"] == 20
  assert record["config"]["seed"] == 0

  # the same command goes on, without the other run, to the same bits
  last, lines = final_arrays(new, 20), curve(new)
  shutil.rmtree(source)
  for step in (20, 10):
    shutil.rmtree(new / "checkpoints" / str(step))
  go(new, *flags, f"--init_from={source}/")
  assert_same_bits(final_arrays(new, 20), last)
  assert curve(new) == lines
  go(new, *flags)  # and so does the command without it
  text = refusal(new, *flags, f"--init_from={short}")
  assert f"{new} started with --init_from={source}, not {short}: leave" in text
  text = refusal(new, *flags, f"--init_from={source}", "--init_from_skip=*bias")
  assert "started with --init_from_skip=[], not ['*bias']" in text


def test_arrays_that_do_not_fit_are_refused_or_left_by_name(short, tmp_path):
  new = tmp_path / "new"
  flags = (*CONSTANT, "--config.network.depth=2", f"--init_from={short}")
  text = refusal(new, *flags)
  assert "params.Dense_4.kernel is (16, 2) there and (16, 16) here" in text
  assert "params.Dense_7.bias is missing there and (2,) here" in text
  assert "params.Dense_1" not in text and not new.exists()
  text = refusal(new, *flags, "--init_from_skip=*Dense_4*,*nothing")
  assert "--init_from_skip=*nothing matches no array; they are" in text
  assert "none of its 16 arrays" in refusal(
    new, *flags, "--config.network.width=8"
  )
  # a correction of the config is another config: nothing may be there yet
  assert not new.exists()
  skip = "--init_from_skip=params.Dense_[4-7].*,*LayerNorm_1*"
  go(new, *flags, skip, "--config.num_steps=5")
  first, theirs = arrays_at_start(new, tmp_path), source_ema(short)
  net = networks.MLP(width=16, depth=2)
  seeds = recipe_lib.init(
    objectives.flow_matching(), net, card.Card((2,)), seed=0
  )
  record = json.loads((new / "started_from.json").read_text())
  for name, initial in transfer.named(seeds).items():
    place = "['" + name.replace(".", "']['") + "']"
    got = first["['params']" + place]
    if name in record["left_initial"]:  # of another program than this one
      np.testing.assert_allclose(got, initial, rtol=1e-5, atol=1e-6)
    else:
      assert np.array_equal(got, theirs["['ema'][0]" + place]), name
  assert record["left_initial"][:2] == [
    "params.Dense_4.bias",
    "params.Dense_4.kernel",
  ]
  assert len(record["left_initial"]) == 10 and record["num_arrays"] == 14


def shapes(**sizes):
  return {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in sizes.items()}


def test_fit_names_all_that_is_wrong_and_casts():
  theirs = {
    "a": np.ones((2,), jnp.bfloat16),
    "b": np.ones((3,)),
    "c": np.ones(1),
  }
  ours = shapes(a=(2,), b=(4,), d=(1,))
  with pytest.raises(cli.Refusal) as caught:
    transfer.fit("runs/a", theirs, ours)
  assert (
    "b is (3,) there and (4,) here; c is (1,) there and missing here; d is "
    "missing there and (1,) here ("
  ) in str(caught.value)
  given, initial, out = transfer.fit("runs/a", theirs, ours, ["[bcd]"])
  assert list(given) == ["a"] and given["a"].dtype == np.float32
  assert initial == ["b", "d"] and out == ["c"]
  with pytest.raises(cli.Refusal, match="leaves no array to start from"):
    transfer.fit("runs/a", theirs, ours, ["*"])


def test_where_a_run_may_start_from(short, tmp_path):
  seeded = tmp_path / "seeded"
  shutil.copytree(short, seeded)
  here = f"--init_from={short}"
  assert "--init_from is the --workdir itself" in refusal(
    short, *CONSTANT, here
  )
  text = refusal(seeded, *CONSTANT, here)
  assert f"{seeded} holds a run that did not start from {short}: leave" in text
  text = refusal(tmp_path / "a", *CONSTANT, "--init_from=nowhere")
  assert "--init_from: there is no folder nowhere" in text
  text = refusal(tmp_path / "a", *CONSTANT, "--init_from_skip=*")
  assert text == "--init_from_skip needs --init_from"
  # killed before its first save, it has to be told again
  killed = tmp_path / "killed"
  killed.mkdir()
  (killed / "started_from.json").write_text('{"init_from": "runs/a"}')
  text = refusal(killed, *CONSTANT)
  assert "has no checkpoint yet: --init_from=runs/a is missing" in text
  # a damaged record stops nothing that goes on
  (seeded / "started_from.json").write_text("[1")
  assert transfer.plan(str(seeded), {}, None, str(short)) is None


def recipe(made, **network):
  config = ml_collections.ConfigDict(
    dict(objective=dict(name="x"), network=dict(name="mlp", **network))
  )
  card = card_lib.Card((2,))
  return type("Recipe", (), dict(config=config, objective=made, card=card))


SAME = {
  "names": (objectives.flow_matching(), objectives.rectified_flow()),
  "clock": (
    objectives.flow_matching(),
    objectives.flow_matching().replace(target=targets.flow),
  ),
  "levels": (objectives.edm(), objectives.edm(p_mean=0.0)),
  "eps": (
    objectives.vp_sde(),
    objectives.on_schedule(objectives.vp_sde(), schedules.Cosine()),
  ),
}
OTHER = {
  "target": (objectives.v_diffusion(), objectives.simple_diffusion().replace(
    target=targets.eps)),
  "scale": (objectives.vp_sde(), objectives.ve()),
  "sigma_data": (objectives.edm(), objectives.edm(sigma_data=1.0)),
  "clock": (
    objectives.stochastic_interpolant(),
    objectives.stochastic_interpolant().replace(
      schedule=schedules.VPLinear()),
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_equal_outputs_are_no_difference(name):
  one, two = (recipe(made, channels=(1, 2)) for made in SAME[name])
  assert not list(meaning.differences("runs/a", one, two))


@pytest.mark.parametrize("name", OTHER)
def test_an_output_that_is_read_in_another_way_is_said(name):
  one, two = map(recipe, OTHER[name])
  (text,) = meaning.differences("runs/a", one, two)
  assert "reads the network's output in another way" in text, text
  assert "runs/a was trained" in text


def test_a_network_that_computes_otherwise_is_said():
  same = objectives.edm()
  one, two = recipe(same, num_heads=2), recipe(same, num_heads=4, dtype="x")
  (text,) = meaning.differences("runs/a", one, two)
  assert text == (
    "config.network differs from that of runs/a: dtype None -> x, "
    "num_heads 2 -> 4"
  )


@pytest.mark.slow
def test_a_start_is_sharded_and_goes_on_anywhere_without_the_other(
  short, tmp_path
):
  """By the command: 4 devices, then one; longer; the other run is gone."""
  source, new = tmp_path / "source", tmp_path / "new"
  shutil.copytree(short, source)
  flags = (*CONSTANT, f"--init_from={source}", f"--workdir={new}",
           "--config.keep.latest=9")  # fmt: skip
  devices = "--xla_force_host_platform_device_count=4"
  done = commands.run(
    "train", *flags, "--config.mesh.data=1", "--config.mesh.fsdp=4",
    XLA_FLAGS=devices,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert f"starts from {source} at step 20" in done.stdout
  first, want = arrays_at_start(new, tmp_path), source_ema(source)
  for name, array in want.items():
    rest = name.removeprefix("['ema'][0]")
    for place in ("['params']", "['ema'][0]"):
      assert np.array_equal(first[place + rest], array), name
  shutil.rmtree(source)
  done = commands.run("train", *flags, "--config.num_steps=30")
  assert done.returncode == 0, done.stderr
  assert "resumes at step 20" in done.stdout
  assert (
    "changed since the last start: config.mesh.data 1 -> -1, config.mesh.fsdp "
    "4 -> 1, config.num_steps 20 -> 30"
  ) in done.stdout
  assert runs.steps(new)[-1] == 30
