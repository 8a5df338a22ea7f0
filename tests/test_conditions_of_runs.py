"""Runs of every kind of condition: resumed, sampled, guided, exported."""

import copy
import json
import logging
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import diffflow_jax as dfj
from diffflow_jax import cli, networks, plots
from diffflow_jax.commands import sample as sample_command
from diffflow_jax.data import splits
from diffflow_jax.evaluation import eps_mse_by_logsnr
from diffflow_jax.objective import objectives
from diffflow_jax.plots.class_grid import class_grid
from diffflow_jax.process import conditions, levels
from diffflow_jax.process.conditions import Condition, Given
from diffflow_jax.runs import (
  card as card_lib,
  changes,
  conditioning,
  loading,
  meaning,
  recipe,
)
from diffflow_jax.training import (
  first_look,
  numbers,
  programs,
)
from diffflow_jax.training.resolve import resolve
from tests import commands, conditions as made, runs

DATA = made.arrays()
KNOWN = conditions.of(DATA)
FLOW = objectives.flow_matching()


# A run of every kind of condition


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("conditions") / "run"
  dfj.train(made.config(), str(workdir))
  return workdir


@pytest.fixture(scope="module")
def run(trained):
  return dfj.load(trained)


SAID = {
  "label": np.array([0, 1, 2, 1]),
  "power": np.linspace(-1, 1, 8).reshape(4, 2),
  "text": (np.full((4, 3, 5), 0.3), np.arange(12).reshape(4, 3) % 3 > 0),
  "small": np.linspace(-1, 1, 16).reshape(4, 2, 2, 1),
}


def test_a_resumed_run_ends_with_the_same_bits(trained, tmp_path):
  """Stopped at step 2 of 4; dropout and dropping, in parts, two at a time."""
  dfj.train(made.config(num_steps=2), str(tmp_path / "run"))
  dfj.train(made.config(), str(tmp_path / "run"))
  one, two = (runs.final_arrays(w, 4) for w in (trained, tmp_path / "run"))
  assert one.keys() == two.keys() and len(one) > 30
  for name in one:
    np.testing.assert_array_equal(one[name], two[name], err_msg=name)
  names = ("samples/step_00000004.png", "conditions.npz", "data.json")
  for name in names:
    assert (trained / name).read_bytes() == (
      tmp_path / "run" / name
    ).read_bytes()


def test_by_default_a_sample_is_told_what_an_example_was(trained, run):
  held = splits.split(made.arrays(), num=6)[1]
  batch = held.take(np.arange(6))
  with np.load(trained / "conditions.npz") as file:
    assert set(file) == batch.keys() - {"x"}
    for name in file:
      np.testing.assert_array_equal(file[name], batch[name])
  cond = run.cond(8)
  again = np.arange(8) % 6
  np.testing.assert_array_equal(cond["power"].value, batch["power"][again])
  np.testing.assert_array_equal(cond["text"].mask, batch["text_mask"][again])
  np.testing.assert_array_equal(run.labels(8), batch["label"][again])
  default = run.sample()
  np.testing.assert_array_equal(default, run.sample(8, held_out=again))
  two = run.sample(held_out=[5, 1])  # as many as there are rows
  assert two.shape == (2, 4, 4, 1)
  paired = {
    "label": batch["label"], "power": batch["power"], "small": batch["small"],
    "text": (batch["text"], batch["text_mask"]),
  }  # fmt: skip
  got = run.sample(6, conditions=paired)
  np.testing.assert_allclose(got, default[:6], atol=1e-6)
  frames, _ = run.trajectory(3)
  np.testing.assert_allclose(frames.z[-1], run.sample(3), atol=1e-6)


def test_a_file_is_the_same_bits_as_arrays(trained, run, tmp_path):
  rows = {n: v[0] if isinstance(v, tuple) else v for n, v in SAID.items()}
  np.savez(tmp_path / "told.npz", text_mask=SAID["text"][1], **rows)
  out = tmp_path / "samples.npz"
  sample_command.main(
    ["sample", f"--workdir={trained}", f"--conditions={tmp_path / 'told.npz'}",
     "--guided=text", "--guidance=2", "--seed=3", f"--out={out}"]
  )  # fmt: skip
  want = run.sample(conditions=SAID, guided="text", guidance=2.0, seed=3)
  with np.load(out) as file:
    np.testing.assert_array_equal(file["samples"], want)
    np.testing.assert_array_equal(file["labels"], SAID["label"])
    np.testing.assert_array_equal(file["text_mask"], SAID["text"][1])
    np.testing.assert_allclose(file["power"], SAID["power"], rtol=1e-6)
  sample_command.main(
    ["sample", f"--workdir={trained}", "--held_out=5,1", f"--out={out}"]
  )
  with np.load(out) as file:
    np.testing.assert_array_equal(file["samples"], run.sample(held_out=[5, 1]))


def test_what_is_left_out_was_not_said(run):
  cond = run.cond(4, conditions={"text": np.ones((2, 2, 5)), "label": [1]})
  np.testing.assert_array_equal(cond["label"], [1] * 4)
  assert not cond["power"].mask.any() and not cond["small"].mask.any()
  # a shorter sequence says nothing in its last place
  np.testing.assert_array_equal(cond["text"].mask, [[1, 1, 0]] * 4)
  one = run.cond(2, conditions={"power": np.array([1.0, 2.0])})  # one example
  np.testing.assert_array_equal(one["power"].value, [[1.0, 2.0]] * 2)
  assert run.cond(2, labels=2)["label"].tolist() == [2, 2]
  assert run.labels(2, [0, 1]).tolist() == [0, 1]
  _, labels, _ = run.draw(2, conditions={"power": np.ones((1, 2))})
  assert labels is None


def test_what_was_dropped_only_with_all_else_is_warned_of(run, caplog):
  """small has no rate of its own, drop_all alone drops it."""
  three = {"text": np.ones((1, 3, 5)), "label": [1], "power": np.ones((1, 2))}
  run.cond(2, conditions=three)
  assert "conditions says nothing of small: training dropped" in caplog.text
  caplog.clear()
  run.cond(
    2, conditions={"small": np.ones((1, *run.card.conditions["small"].shape))}
  )
  run.cond(2, conditions={})  # as all together were dropped
  assert not caplog.text


@pytest.mark.parametrize(
  "settings,message",
  [
    (dict(conditions={"txt": 1}), "no condition 'txt', it has label, power"),
    (dict(conditions=3), "^conditions must be arrays by name, not 3"),
    (dict(conditions={"power": np.ones((4, 3))}), r"power must have shape \(n"),
    (dict(conditions={"power": ["a"]}), "power holds <U1, which are no numb"),
    (
      dict(conditions={"power": [[1, 0]]}),
      r"power holds int64, but must be floats, about ±1: give array.astype\(n",
    ),
    (
      dict(conditions={"small": np.ones((2, 2, 2, 1), int)}),
      "small holds int64, but must be floats",
    ),
    (dict(conditions={"power": None}), "power is None: leave out what is not"),
    (dict(conditions={"power": [[1.0], [1.0, 2.0]]}), "power is no array"),
    (dict(conditions={"power": [[np.nan, 0.0]]}), "power holds NaN .* row 0"),
    (
      dict(conditions={"power": (np.ones((2, 2)), np.ones(3, bool))}),
      r"power has a mask of shape \(3,\) for values of shape \(2, 2\)",
    ),
    (
      dict(conditions={"power": (np.ones((2, 2)), np.ones(2))}),
      r"a mask of float64: give mask.astype\(bool\)",
    ),
    (dict(conditions={"text": np.ones((1, 4, 5))}), r"\(num, 3, 5\), not \(1"),
    (dict(conditions={"label": [3]}), "label must be 0 to 2, not 3"),
    (dict(conditions={"label": [0.5]}), "label must be integers in one list"),
    (
      dict(conditions={"power": np.ones((2, 2)), "text": np.ones((3, 3, 5))}),
      "must have rows of as many samples: 2 of power, 3 of text",
    ),
    (
      dict(conditions={"power": np.ones((4, 2)), "label": [0, 1, 2]}),
      "must have rows of as many samples: 3 of label, 4 of power",
    ),
    (dict(num_samples=2, conditions=SAID), "4 rows of label for 2 samples"),
    (dict(conditions=SAID, labels=1), "holds label: leave labels out"),
    (dict(conditions=SAID, held_out=[1]), "give conditions or held_out, not b"),
    (dict(held_out=[6]), "held_out must be 0 to 5, not 6"),
    (dict(held_out=["a"]), "held_out must be indices of examples"),
    (dict(guided=3), "guided must be names out of label, power, text, small"),
    (dict(guided=()), "guided must be names out of"),
    (dict(guided="txt"), "guided: 'txt' is no condition of the data"),
    (
      dict(guided=("text", "small")),
      "by text, small needs .* without small, which config.conditions.small."
      "dropout = 0 never trains",
    ),
    (dict(guided="text", guidance=1.0), "guided has no effect at a guidance"),
    (dict(guided="text", weak="."), "guided has no effect with weak"),
  ],
)  # fmt: skip
def test_what_samples_cannot_be_told_is_refused(run, settings, message):
  with pytest.raises(cli.Refusal, match=message) as caught:
    run.sample(**{"guidance": 2.0, **settings})
  assert "\n" not in str(caught.value)


def test_a_file_of_conditions_that_is_none_is_refused(trained, tmp_path):
  call = lambda flag: sample_command.main(
    ["sample", f"--workdir={trained}", flag, f"--out={tmp_path / 'x.npz'}"]
  )
  (tmp_path / "broken.npz").write_bytes(b"PK nothing of the kind")
  for flag, message in (
    ("--conditions=x.png", "--conditions must be an .npz of arrays"),
    ("--conditions=none.npz", "--conditions: there is no file none.npz"),
    (
      f"--conditions={tmp_path / 'broken.npz'}",
      "is no .npz of arrays, or is d",
    ),
    ("--held_out=a", "--held_out must be integers separated by commas"),
    ("--held_out=9", "--held_out must be 0 to 5, not 9"),
  ):
    with pytest.raises(cli.Refusal, match=message):
      call(flag)


def test_a_damaged_file_of_conditions(trained, tmp_path, caplog):
  """Sampling refuses it; training sets it aside and writes it anew."""
  folder = tmp_path / "run"
  for name in ("config.json", "data.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes((trained / name).read_bytes())
  whole = (trained / "conditions.npz").read_bytes()
  flipped = bytearray(whole)
  flipped[len(whole) // 3] ^= 1
  (folder / "conditions.npz").write_bytes(bytes(flipped))
  half = loading.opened(folder)
  with pytest.raises(cli.Refusal, match="conditions.npz is no .npz .* damaged"):
    half.cond(2)
  (folder / "conditions.npz").unlink()
  half = loading.opened(folder)
  with pytest.raises(cli.Refusal, match="has no conditions.npz, .*give condit"):
    half.cond(2)
  assert half.cond(4, conditions=SAID)["small"].mask.all()
  (folder / "conditions.npz").write_bytes(bytes(flipped))
  dfj.train(made.config(num_steps=2, sample_every=2), str(folder))
  assert "it is set aside and written anew" in caplog.text
  assert (folder / "conditions.npz").read_bytes() == whole


def test_an_export_takes_them_along_and_its_sampler_is_told(run, tmp_path):
  run.export(tmp_path / "out", batch=4, guidance=2.0)
  again = dfj.load(tmp_path / "out")
  np.testing.assert_array_equal(again.sample(3), run.sample(3))
  text = (tmp_path / "out" / "README.md").read_text()
  assert "| told: text | sequence (3, 5), dropout 0.3 |" in text
  draw = dfj.load_exported(tmp_path / "out" / "sampler.jaxexport")
  key = jax.random.key(0)
  want = run.sample(4, conditions=SAID, guidance=2.0)
  np.testing.assert_allclose(draw(key, SAID), want, atol=1e-5)
  said = {"label": SAID["label"], "power": SAID["power"]}
  want = run.sample(4, conditions=said, guidance=2.0)
  np.testing.assert_allclose(draw(key, said), want, atol=1e-5)
  cond = run.cond(4, conditions=said)
  np.testing.assert_array_equal(draw(key, cond), draw(key, said))
  for label in ({}, {"label": None}, {"label": np.full(4, -1)}):  # not said
    unsaid = {"power": SAID["power"], **label}
    want = run.sample(4, conditions={"power": SAID["power"]}, guidance=2.0)
    np.testing.assert_allclose(draw(key, unsaid), want, atol=1e-5)
  grey = np.arange(16, dtype=np.uint8).reshape(4, 2, 2, 1) * 17
  want = run.sample(4, conditions={**said, "small": grey}, guidance=2.0)
  np.testing.assert_allclose(
    draw(key, {**said, "small": grey}), want, atol=1e-5
  )
  # and with jax alone, as its README says
  called = re.search(r"sampler.call\((.*)\)\n", text)[1]
  example = eval(f"[{called}]", {"jax": jax, "np": np})[1]
  assert example.keys() == {
    "label", "power", "power_mask", "text", "text_mask", "small", "small_mask"
  }  # fmt: skip
  assert all(a.all() for name, a in example.items() if "mask" in name)
  for told, message in (
    (np.arange(4), "conditions must be a dict of label, power, small, text"),
    ({**said, "txt": 1}, "there is no condition 'txt', only label, power, sm"),
    ({**said, "text": np.ones((4, 5))}, r"text must have shape \(4, 3, 5\), n"),
    ({**said, "power": np.ones((4, 2), int)}, "power holds int64, but must be"),
    ({**said, "label": np.array([0, 1, 2, 3])}, r"labels\[3\] is no class: 3"),
    ({**said, "power": np.full((4, 2), np.nan)}, "power holds NaN or infinity"),
    (
      {**said, "power": (SAID["power"], np.ones(4))},
      "power_mask must hold bools, True where it is said, not float64",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      draw(key, told)


def test_held_out_data_are_judged_under_their_conditions(run):
  training = resolve(made.config())
  values, mean = numbers.held_out(training, run.params)
  batch = training.held_out[0].batch(2**32, 0, 6)
  cond = {
    "label": jnp.asarray(batch["label"]),
    "power": Given(batch["power"], np.ones(6, bool)),
    "text": Given(batch["text"], batch["text_mask"]),
    "small": Given(batch["small"], np.ones(6, bool)),
  }
  want = eps_mse_by_logsnr(run.predict, batch["x"], cond)
  np.testing.assert_allclose(mean, np.mean(list(want.values())), rtol=1e-5)
  other = {**cond, "power": Given(batch["power"][::-1], np.ones(6, bool))}
  assert eps_mse_by_logsnr(run.predict, batch["x"], other) != want
  assert len(values) == len(want) + 1  # and their mean


# Guidance of some


def linear(z, lv, cond):
  """x̂ = 2 a + 5 b where they are said, and ε̂ what is left of z."""
  a, b = (jnp.where(cond[n].mask, cond[n].value[:, 0], 0.0) for n in "ab")
  x_hat = jnp.broadcast_to((2.0 * a + 5.0 * b)[:, None], z.shape)
  return x_hat, (z - lv.alpha * x_hat) / lv.sigma


@pytest.mark.parametrize("batched", [True, False])
def test_only_the_guided_one_is_pushed(batched):
  known = dict.fromkeys("ab", Condition("vector", (1,)))
  z, lv = jnp.ones((2, 3)), levels.at_logsnr(levels.vp, 0.5)
  row = lambda v: Given(jnp.array([[v], [2 * v]]), jnp.ones(2, bool))
  cond = {"a": row(1.0), "b": row(3.0)}
  x_of = lambda names: dfj.Guided(
    linear, conditions.without(known, names), 4.0, batched=batched
  )(z, lv, cond)[0][:, 0]
  given = np.array([17.0, 34.0])  # 2 a + 5 b
  np.testing.assert_allclose(x_of(["a"]), given + 3.0 * np.array([2.0, 4.0]))
  np.testing.assert_allclose(x_of(["b"]), given + 3.0 * np.array([15.0, 30.0]))
  np.testing.assert_allclose(x_of(["a", "b"]), 4.0 * given)
  np.testing.assert_allclose(x_of(None), 4.0 * given)
  with pytest.raises(ValueError, match="null has b, cond has a"):
    dfj.Guided(linear, conditions.without(known, ["b"]), 2.0)(
      z, lv, {"a": cond["a"]}
    )


def test_a_run_is_guided_by_what_it_names(run):
  """By hand: x̂_null + w (x̂ - x̂_null), the null of those named alone."""
  cond = jax.tree.map(jnp.asarray, run.cond(4, conditions=SAID))
  z, lv = jnp.ones((4, 4, 4, 1)), levels.at_logsnr(levels.linear, 0.3)
  given = run.predict(z, lv, cond)[0]
  none = jnp.zeros(4, bool)
  nulls = {
    "label": jnp.full(4, 3),
    "text": cond["text"].replace(mask=jnp.zeros((4, 3), bool)),
    "power": cond["power"].replace(mask=none),
    "small": cond["small"].replace(mask=none),
  }
  for guided in ("text", ("power", "label"), None):
    names = [guided] if isinstance(guided, str) else guided or list(nulls)
    null = run.predict(z, lv, {**cond, **{n: nulls[n] for n in names}})[0]
    got = run.guided(3.0, guided=guided)(z, lv, cond)[0]
    np.testing.assert_allclose(got, null + 3.0 * (given - null), atol=1e-4)
  negative = {**cond, "label": jnp.full(4, 1), "text": nulls["text"]}
  null = run.predict(z, lv, negative)[0]
  got = run.guided(3.0, guided="text", negative_label=1)(z, lv, cond)[0]
  np.testing.assert_allclose(got, null + 3.0 * (given - null), atol=1e-4)


def test_what_was_never_dropped_is_kept_and_has_to_be_told(tmp_path):
  """Guidance leaves out what training did; without the rest nothing goes."""
  told = lambda **changes: conditioning.guided(made.config(**changes), KNOWN)
  assert told() == ("label", "power", "text", "small")
  assert told(drop_all=0.0) == ("label", "power", "text")
  nothing = dict(label_dropout=0.0, conditions={})
  assert told(drop_all=0.0, **nothing) == ()
  assert conditioning.never_dropped(made.config(), KNOWN) == []
  quiet = made.config(drop_all=0.0)
  assert conditioning.never_dropped(quiet, KNOWN) == ["small"]
  together = made.config(**nothing)
  with pytest.raises(ValueError, match="by text needs .* without text, which"):
    conditioning.guided(together, KNOWN, ["text"])
  assert conditioning.guided(together, KNOWN, list(KNOWN)) == tuple(KNOWN)
  own = {"text": Condition("sequence", (3, 5)), **KNOWN}
  assert (
    conditioning.rates(
      made.config(conditions=dict(label=dict(dropout=0.3)), label_dropout=0.0),
      own,
    )[0]["label"]
    == 0.3
  )
  config = made.config(drop_all=0.0, **nothing)
  with pytest.raises(
    cli.Refusal,
    match="config.sampler.guidance: .* 1.5 needs .*"
    "without label or power or text or small, which nothing",
  ):
    first_look.look(resolve(config))
  config.sampler.guidance = 1.0
  first_look.look(resolve(config))


def test_a_run_that_always_told_is_refused_without(trained, tmp_path):
  config = made.config(drop_all=0.0)
  shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
  (tmp_path / "config.json").write_text(config.to_json())
  always = loading.opened(tmp_path)
  with pytest.raises(cli.Refusal, match="^conditions must hold small too: tra"):
    always.cond(4, conditions={"text": np.ones((1, 3, 5))})
  with pytest.raises(cli.Refusal, match="^conditions must hold small too"):
    always.cond(4, labels=2)
  assert always.cond(2)["small"].mask.all()
  always.export(tmp_path / "out", batch=2)  # as its sampler has it
  draw = dfj.load_exported(tmp_path / "out" / "sampler.jaxexport")
  cond = always.cond(2)
  want = always.sample(2)
  np.testing.assert_allclose(draw(jax.random.key(0), cond), want, atol=1e-5)
  del cond["small"]
  with pytest.raises(ValueError, match="small must be said, as training ne"):
    draw(jax.random.key(0), cond)


# Configs, cards, changes


@pytest.mark.parametrize(
  "changes,message",
  [
    (dict(conditions=dict(txt={})), "conditions.txt is no condition of the da"),
    (dict(conditions=3), "config.conditions must be a dict of conditions"),
    (dict(conditions=dict(text=0.1)), "conditions.text must be a dict of set"),
    (
      dict(conditions=dict(text=dict(drop=1))),
      "conditions.text.drop is not a setting of a condition; known: dropout",
    ),
    (dict(conditions=dict(text=dict(dropout=2.0))), "text.dropout must be in"),
    (dict(conditions=dict(text=dict(null="one"))), "must be learned or zero"),
    (dict(conditions=dict(label=dict(null="zero"))), "null must be learned"),
    (
      dict(conditions=dict(label=dict(dropout=0.5))),
      "label.dropout = 0.5 and config.label_dropout = 0.1 are of the same",
    ),
    (dict(label_dropout=1.0), r"label_dropout must be in \[0, 1\), not 1"),
    (
      dict(network=dict(name=dict(a=1, b=dict(c=2)))),
      "config.network.name must be a name, not a: 1",
    ),
    (dict(drop_all=-1.0), r"config.drop_all must be in \[0, 1\), not -1"),
    (dict(drop_all=1.0), r"config.drop_all must be in \[0, 1\), not 1"),
    (dict(conditions=dict(text=dict(dropout=1))), "text.dropout must be in"),
    (dict(network=dict(name=f"{__name__}:small")), "take an argument c"),
    (
      dict(dataset=dict(name="moons"), conditions={}, held_out=dict(num=0)),
      "config.drop_all = 0.1 has no effect: the data has no condition",
    ),
  ],
)  # fmt: skip
def test_configs_that_cannot_work_are_refused(changes, message):
  with pytest.raises(cli.Refusal, match=message) as caught:
    resolve(made.config(**changes))
  assert "\n" not in str(caught.value)


def small(num_classes=0):
  return networks.MLP(width=8, depth=1, num_classes=num_classes)


def test_networks_get_the_nulls_that_the_config_asks_for():
  spec = dict(name="unet", channels=(8,), num_blocks=1)
  known = resolve(made.config(network=spec))
  assert known.network.conditions["text"].null == "zero"
  assert known.network.conditions["power"].null == "learned"
  assert known.card.conditions == dict(known.network.conditions)
  plain = made.config(
    network=spec, dataset=dict(name="digits"), conditions={}, drop_all=0.0
  )
  del plain.conditions, plain.drop_all  # the config of a run of labels alone
  assert resolve(plain).network.conditions is None


def test_nnx_modules_are_told_and_draw_their_dropout():
  training = resolve(
    made.config(network=dict(name="tests.conditions:OfNnx"), accumulation=1)
  )
  program = programs.build(training)
  state = program.init({})
  after = program.step(state, program.batch(0))
  assert np.isfinite(after.sums.loss) and int(after.bad_step) < 0
  assert training.network.dropout


DEVICES = """
import jax, numpy as np
from diffflow_jax.training import programs
from diffflow_jax.training.resolve import resolve
from tests import conditions as made
for mesh in (dict(data=1, fsdp=4), dict(data=4, fsdp=1)):
  run = resolve(made.config(mesh=mesh, network=dict(
    name="unet", channels=(16,), num_blocks=1, num_groups=4, head_dim=8,
    dropout=0.1)))
  program = programs.build(run)
  state = program.step(program.init({}), program.batch(0))
  sums = [float(np.abs(np.asarray(a)).sum()) for a in jax.tree.leaves(
    state.params)]
  print(mesh["fsdp"], float(state.sums.loss), sum(sums))
"""


@pytest.mark.slow
def test_a_batch_is_split_over_devices_with_its_conditions():
  """Two steps of the UNet, of every kind, on four devices: FSDP or not."""
  done = subprocess.run(
    [sys.executable, "-c", DEVICES],
    cwd=commands.ROOT,
    env=commands.environment(
      XLA_FLAGS="--xla_force_host_platform_device_count=4"
    ),
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  one, two = (line.split() for line in done.stdout.splitlines()[-2:])
  assert (one[0], two[0]) == ("4", "1")
  np.testing.assert_allclose(
    np.array(one[1:], float), np.array(two[1:], float), rtol=1e-5
  )


def test_a_card_of_before_there_were_conditions_is_read(tmp_path):
  card = card_lib.of(DATA)
  (tmp_path / "data.json").write_text(card.to_json())
  read = card_lib.read(tmp_path)
  assert read == card and list(read.conditions) == list(KNOWN)
  old = json.loads(card_lib.Card((2,), 3).to_json())
  del old["conditions"], old["blake2b"]
  (tmp_path / "data.json").write_text(json.dumps(old))
  assert card_lib.read(tmp_path).conditions == {
    "label": Condition("label", (), 3)
  }


def test_how_often_conditions_drop_may_change_and_what_they_are_may_not(
  trained, tmp_path
):
  before = {"conditions.text.dropout": 0.1, "conditions.text.null": "zero"}
  now = {**before, "conditions.text.dropout": 0.2, "drop_all": 0.1}
  assert changes.between("runs/a", before, now) == {
    "conditions.text.dropout": [0.1, 0.2],
    "drop_all": [None, 0.1],
  }
  with pytest.raises(
    cli.Refusal, match="conditions.text.null = 'zero', not 'l"
  ):
    changes.between(
      "runs/a", before, {**now, "conditions.text.null": "learned"}
    )
  # data that says something else by now, under the same config
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / "config.json").write_bytes((trained / "config.json").read_bytes())
  other = copy.deepcopy(DATA.conditions) | {
    "text": Condition("sequence", (9, 5))
  }
  card = card_lib.Card(DATA.shape, 3, conditions=other)
  (folder / "data.json").write_text(card.to_json())
  with pytest.raises(cli.Refusal, match=r"data says .*text: sequence \(9, 5\)"):
    dfj.train(made.config(), str(folder))


def test_another_null_is_another_function():
  one, two = (
    recipe.resolve(
      made.config(conditions=dict(text=dict(null=null))), card_lib.of(DATA)
    )
    for null in ("zero", "learned")
  )
  (text,) = meaning.differences("runs/a", one, two)
  assert text.startswith("the condition text is ") and "null='zero'" in text


def test_the_look_of_a_config_says_its_conditions(caplog):
  with caplog.at_level(logging.WARNING, "diffflow_jax"):
    found = first_look.look(resolve(made.config()))
  assert "text: sequence (3, 5), said of" in found.summary()
  assert not caplog.text


# Pictures


def test_samples_are_shown_beside_the_images_that_they_are_told(
  trained, run, tmp_path
):
  out = tmp_path / "x.png"
  sample_command.main(
    ["sample", f"--workdir={trained}", "--num_samples=8", f"--out={out}"]
  )
  samples, labels, _ = run.draw(8)
  shown = run.cond(8)["small"]
  small = np.kron(shown.value, np.ones((1, 2, 2, 1)))  # 2x2 pixels onto 4x4
  assert shown.mask.all()
  want = class_grid(samples, labels, beside={"small": small})[..., 0]
  np.testing.assert_array_equal(np.asarray(Image.open(out)), want)
  # the same conditions while it trained, and the same last state
  while_training = Image.open(trained / "samples" / "step_00000004.png")
  last = np.asarray(while_training).astype(int)
  assert last.shape == want.shape and np.abs(last - want).max() <= 1
  # a look draws x's own
  drawn = []
  see = lambda path, x, *rest: drawn.append((x, rest[-1]))
  recipe = resolve(made.config())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(plots, "save_batch", see)
    first_look.save_picture(out, recipe, first_look.inspect(recipe))
  ((x, beside),) = drawn
  batch = recipe.dataset.batch(0, 0, len(x))
  np.testing.assert_array_equal(x, batch["x"])
  want = np.kron(batch["small"], np.ones((1, 2, 2, 1), np.float32))
  np.testing.assert_array_equal(beside["small"], want)
