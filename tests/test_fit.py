"""python -m diffflow_jax.fit: learned tables of a run, and their use."""

import logging
import types

import jax
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax.cli import Refusal
from diffflow_jax.commands import fit
from diffflow_jax.runs import fitting
from diffflow_jax.sampling import (
  compose,
  files,
  guidance,
  learned,
  solvers,
  tableau,
)
from diffflow_jax.sampling.fitting import pairs
from tests import runs

STRENGTH = 1.5


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  return dfj.load(runs.untrained(tmp_path_factory.mktemp("fit") / "run"))


@pytest.fixture(scope="module")
def fitted(run, tmp_path_factory):
  """(the file of tables of 2 and 3 evaluations, what was printed)."""
  out = tmp_path_factory.mktemp("tables") / "tables.npz"
  lines = []
  made, about, rows = fitting.fit(
    run,
    [3, 2],
    guidance=STRENGTH,
    batch=32,
    num_train=32,
    num_held=32,
    say=lines.append,
  )
  fitting.write(str(out), made, about)
  return out, lines, rows


def test_it_beats_every_hand_made_solver_on_other_noise(fitted, run):
  """And what it says is what an independent look finds."""
  out, lines, rows = fitted
  assert list(rows) == [2, 3]
  for count, found in rows.items():
    first, *others, fine = found
    assert first[0] == "learned" and fine[:2] == ("fine", 0.0)
    assert len(others) > 5
    assert first[1] < 0.9 * min(error for _, error, _ in others)
    table = files.load(out, count)
    assert table.num_evaluations == count
    model = guidance.Guided(run.predict, 3, STRENGTH)
    z = np.asarray(jax.random.normal(jax.random.key(77), (64, 2)))
    draw = lambda t, z=z, m=model: tableau.sample(  # one program for all
      m, compose.pad(t, 240, 4), z=z, cond=np.arange(64) % 3
    )
    want = np.asarray(draw(solvers.rk4(dfj.grids.shifted_flow(60, power=1.5))))
    off = lambda t, w=want, d=draw: pairs.rms(d(t), w).mean()
    by_hand = learned.hand_made(table.start, table.end, count).values()
    assert off(table) < min(off(one) for one in by_hand)
  assert any("3 evaluations: error" in line for line in lines)


def test_the_number_of_evaluations_chooses_the_table(fitted, run):
  out = str(fitted[0])
  draw = lambda **how: run.draw(3, solver=out, guidance=STRENGTH, **how)
  most, _, evaluations = draw()
  assert evaluations == 3
  np.testing.assert_array_equal(most, draw(num_steps=3)[0])
  assert draw(num_steps=2)[2] == 2
  with pytest.raises(Refusal, match="solver: .* of 2, 3 evaluations, not of 4"):
    draw(num_steps=4)
  with pytest.raises(Refusal, match="grid has no effect with"):
    draw(grid="karras")


def test_use_for_another_strength_or_run_warns(fitted, run, tmp_path, caplog):
  out = str(fitted[0])
  with caplog.at_level(logging.WARNING, logger="diffflow_jax"):
    run.sample(2, solver=out, guidance=STRENGTH)
    dfj.load(run.path).sample(2, solver=out, guidance=STRENGTH)
    assert not caplog.records
    run.sample(2, solver=out, guidance=2.0)
    said = caplog.records[-1].getMessage()
    assert "was fitted to step 6" in said and "guidance 1.5, and here" in said
    assert "guidance 2.0" in said and "\n" not in said
    dfj.load(run.path, step=3).sample(2, solver=out, guidance=STRENGTH)
    assert "draws from step 3" in caplog.records[-1].getMessage()
  assert len(caplog.records) == 2


def test_a_single_table_says_nothing_of_runs(run, tmp_path, caplog):
  path = tmp_path / "one.npz"
  learned.save(path, solvers.ddim(dfj.grids.shifted_flow(4)))
  assert run.draw(2, solver=str(path), guidance=1.0)[2] == 4
  assert not caplog.records


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--num_evaluations=4"], "--out is missing"),
    (["--num_evaluations=4", "--out=x.txt"], "--out must end in .npz"),
    (["--num_evaluations=a", "--out=x.npz"], "--num_evaluations must be int"),
    (
      ["--num_evaluations=1", "--out=x.npz"],
      r"--num_evaluations must be in \[",
    ),
    (["--num_evaluations=3,3", "--out=x.npz"], "must be different integers"),
    (["--num_evaluations=99", "--out=x.npz"], r"--num_evaluations must be in"),
    (["--num_evaluations=3", "--out=there.npz"], "there.npz exists already"),
    (["--num_evaluations=3", "--out=x.npz", "--batch=0"], "--batch must be at"),
    (["--num_evaluations=3", "--out=x.npz", "--seed=-1"], "--seed must be in"),
  ],
)
def test_what_cannot_be_fitted_is_refused(
  flags, message, run, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "there.npz").write_bytes(b"")
  with pytest.raises(Refusal, match=message):
    fit.main(["fit", f"--workdir={run.path}", *flags])
  assert not (tmp_path / "x.npz").exists()


def test_guidance_without_classes_is_refused(tmp_path):
  place = runs.untrained(tmp_path / "run", num_classes=0)
  flags = [f"--workdir={place}", "--num_evaluations=3", "--guidance=2"]
  out = tmp_path / "x.npz"
  with pytest.raises(Refusal, match="--guidance: .* trained without classes"):
    fit.main(["fit", *flags, f"--out={out}"])


def test_a_flow_map_is_refused():
  network = types.SimpleNamespace(destination=True)
  run = types.SimpleNamespace(network=network, path="maps", say=str)
  with pytest.raises(Refusal, match="maps is of a flow map, .*no table to"):
    fitting.fit(run, [3])


def test_distances_are_measured_in_features():
  """What those do not see changes the error alone; the numbers see all."""
  x, other = np.random.default_rng(0).normal(size=(2, 64, 2))
  held = types.SimpleNamespace(run=lambda one: one, goal=x)
  seen = lambda rows: 3.0 * rows[:, :1]
  tables = {"learned": x + [0.0, 9.0]}
  first, fine = fitting.judged(held, tables, (seen(other), 2.0), seen)
  want = (seen(x).mean() - seen(other).mean()) ** 2
  want += (seen(x).std(ddof=1) - seen(other).std(ddof=1)) ** 2
  np.testing.assert_allclose([first[2], fine[2]], want / 2.0, rtol=1e-6)
  assert first[1] > 6.0 and fine[1] == 0.0
  first, fine = fitting.judged(held, tables, (other, 2.0))
  assert first[2] > 30.0 > fine[2]
