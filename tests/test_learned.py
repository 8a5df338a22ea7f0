"""Learned tableaus: never worse than hand-made, and safe to load."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import (
  candidates,
  compose,
  files,
  grids,
  learned,
  noise,
  solvers,
  tableau,
)
from diffflow_jax.sampling.fitting import dense, gauss_newton

KEY = jax.random.key(0)


def problem():
  means = np.random.default_rng(0).normal(size=(4, 4))
  return closed_form.mixture(np.ones(4), means, np.full(4, 0.6))


def flow_grid():
  return grids.uniform_t(schedules.Flow(), levels.vp, 10)


def test_learned_beats_hand_made_on_held_out_noise():
  """By twice at least, at 4 evaluations and on noise that no fit saw."""
  mix = problem()
  table, report = learned.fit_tableau(
    mix, flow_grid(), 4, KEY, (4,), num_train=256, num_valid=128, num_starts=1
  )
  assert table.num_evaluations == 4
  keys = noise.keys(jax.random.key(9), 0, 512)  # never seen
  z = noise.initial(keys, jnp.ones(()), (4,), jnp.float32)
  fine = solvers.heun(grids.uniform_t(schedules.Flow(), levels.vp, 100))
  goal = tableau.sample(mix, fine, KEY, z.shape, z=z)
  by_hand = [
    float(learned.error(mix, compose.pad(t, 4, 4), z, goal))
    for t in learned.hand_made(table.start, table.end, 4).values()
  ]
  got = float(learned.error(mix, table, z, goal))
  assert got < min(by_hand) / 2, (got, min(by_hand), report)
  assert report["learned"] < report["hand_made"] / 2
  tableau.check(table)


def test_without_steps_that_help_the_hand_made_one_is_kept(monkeypatch):
  """Steps the wrong way: the start survives, by validation."""
  step = gauss_newton._step
  monkeypatch.setattr(gauss_newton, "_step", lambda *system: -step(*system))
  table, report = learned.fit_tableau(
    problem(),
    flow_grid(),
    3,
    KEY,
    (4,),
    num_train=8,
    num_valid=64,
    num_starts=1,
    reference=solvers.heun(flow_grid()),
  )
  np.testing.assert_allclose(report["learned"], report["hand_made"], rtol=1e-5)
  start = learned.hand_made(table.start, table.end, 3)[report["started_from"]]
  z = jax.random.normal(KEY, (32, 4))
  zero = jnp.zeros_like(z)
  error = lambda t: float(learned.error(problem(), t, z, zero))
  np.testing.assert_allclose(error(table), error(start), rtol=1e-5)


def test_batches_are_all_noises_in_turn():
  """A fit in batches is that of all at once."""
  made = [
    learned.fit_tableau(
      problem(),
      flow_grid(),
      2,
      KEY,
      (4,),
      num_train=16,
      num_valid=16,
      num_steps=2,
      num_starts=1,
      batch=batch,
      reference=solvers.heun(flow_grid()),
    )[1]["learned"]
    for batch in (None, 8)
  ]
  # a batch's smallest distances are weighted by its own median
  np.testing.assert_allclose(*made, rtol=0.02)
  with pytest.raises(ValueError, match="batch must divide num_train=16, not 3"):
    learned.fit_tableau(
      problem(), flow_grid(), 2, KEY, (4,), num_train=16, batch=3
    )


@pytest.mark.parametrize("solver", ["adams_bashforth", "unipc", "rk4", "heun"])
def test_a_dense_table_is_the_same_sampler(solver):
  """Whatever it holds: anchor, stages, corrector, on any grid."""
  table = getattr(solvers, solver)(flow_grid())
  same = dense.tableau(dense.of(table))
  tableau.check(same)
  z = np.asarray(jax.random.normal(KEY, (16, 4)))
  got, want = (tableau.sample(problem(), t, z=z) for t in (same, table))
  np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
  assert same.num_evaluations == same.num_kept == table.num_evaluations


def test_derivatives_are_those_of_the_sampler():
  """By finite differences of the sample, in every free number."""
  table = solvers.unipc(grids.from_logsnr([-3.0, -1.0, 1.0, 4.0]), 2)
  one = dense.of(table)
  z = np.asarray(jax.random.normal(KEY, (3, 4)))
  with jax.enable_x64(True):
    z = z.astype(np.float64)
    mix = jax.tree.map(lambda a: jnp.asarray(a, float), problem())
    run = lambda d: np.asarray(tableau.sample(mix, dense.tableau(d), z=z))
    out, along = gauss_newton.linearised(mix, one, z, None)
    np.testing.assert_allclose(out, run(one), rtol=1e-9)
    places = dense.places(one)
    assert len(places) == len(along) == (3 * 3 + 5 * 3) // 2
    for p in range(len(places)):
      step = 1e-5 * np.eye(len(places))[p]
      slope = run(dense.moved(one, step)) - run(dense.moved(one, -step))
      np.testing.assert_allclose(along[p], slope / 2e-5, rtol=1e-5, atol=1e-7)


def test_an_infinite_level_stays_and_others_move_a_little():
  one = dense.of(solvers.ddim(flow_grid()))
  places = dense.places(one)
  assert (0, None) not in places and (1, None) in places
  moved = dense.moved(one, np.full(len(places), 5.0))
  np.testing.assert_allclose(moved.logsnr[1:], one.logsnr[1:] + dense.FARTHEST)
  assert moved.logsnr[0] == -np.inf
  np.testing.assert_array_equal(moved.weights[0], one.weights[0])


def test_it_starts_from_the_best_solvers_each_on_its_best_grid():
  scores = {("a", "x"): 3.0, ("a", "y"): 1.0, ("b", "x"): 2.0, ("c", "y"): 9.0}
  starts = learned.best_of_each_solver(scores)
  assert starts == [("a", "y"), ("b", "x"), ("c", "y")]


def test_grids_to_choose_from():
  """Each uniform in its own clock; to sigma = 0 by way of logsnr = 10."""
  flow = lambda l: 1 / (1 + np.exp(l / 2))
  clocks = {
    "flow": flow,
    "flow_power_1.25": lambda l: flow(l) ** (1 / 1.25),
    "flow_power_1.5": lambda l: flow(l) ** (1 / 1.5),
    "flow_stretch_1.5": lambda l: flow(l / 1.5),
    "flow_shift_3": lambda l: flow(l) / (3 - 2 * flow(l)),
    "cosine": lambda l: np.arctan(np.exp(-l / 2)),
    "logsnr": lambda l: l,
    "karras_3": lambda l: np.exp(-l / 6),
    "karras_7": lambda l: np.exp(-l / 14),
  }
  start, data, cleaner = grids.from_logsnr([-9.0, 6.0, np.inf])
  for end in (data, cleaner):
    made = candidates.candidate_grids(start, end, 5)
    assert made.keys() == clocks.keys()
    for name, grid in made.items():
      np.testing.assert_allclose(
        grid.logsnr[[0, -1]], [-9.0, end.logsnr], rtol=1e-12, err_msg=name
      )
      inner = grid.logsnr
      if end is cleaner and name in ("logsnr", "karras_3", "karras_7"):
        inner = inner[:-1]
        assert abs(inner[-1] - 10.0) < 1e-6
      steps = np.diff(clocks[name](inner))
      np.testing.assert_allclose(steps, steps[0], rtol=1e-5, err_msg=name)


def test_a_padded_tableau_is_not_saved(tmp_path):
  with pytest.raises(ValueError, match="save it before"):
    learned.save(
      tmp_path / "x.npz", compose.pad(solvers.ddim(flow_grid()), 12, 2)
    )


def test_save_and_load(tmp_path):
  table = solvers.unipc(flow_grid(), 2)
  path = tmp_path / "solver.npz"
  learned.save(path, table)
  for loaded in (learned.load(path), solvers.named(str(path))()):
    for a, b in zip(*map(jax.tree.leaves, (loaded, table)), strict=True):
      np.testing.assert_array_equal(a, b)


def test_bad_files_are_refused(tmp_path):
  path = tmp_path / "bad.npz"
  path.write_bytes(b"not a zip file")
  with pytest.raises(ValueError, match="is not a saved tableau"):
    learned.load(path)
  table = solvers.ddim(flow_grid())
  for broken in (
    dict(target=table.target[:-1]),
    dict(mix=table.mix[:, :1]),
    dict(mix=np.full_like(table.mix, np.nan)),
  ):
    learned.save(path, table.replace(**broken))
    with pytest.raises(ValueError, match="bad.npz: mix of a tableau must"):
      learned.load(path)
  learned.save(path, table.replace(mix=np.ones(table.mix.shape, int)))
  with pytest.raises(ValueError, match="bad.npz: mix must be floats, not int"):
    learned.load(path)
  np.savez(path, mix=np.array([object()], dtype=object))
  with pytest.raises(ValueError, match="is not a saved tableau"):
    learned.load(path)


def test_files_of_several_tables(tmp_path):
  """By their number of evaluations, the most if it is left out."""
  tables = {
    2: solvers.midpoint(flow_grid()[:2]),
    5: solvers.ddim(flow_grid()[:6]),
  }
  path = tmp_path / "several.npz"
  path.write_bytes(files.packed(tables, {"guidance": 1.5}))
  assert files.about(path) == {"guidance": 1.5}
  for count in (2, 5):
    for a, b in zip(
      *map(jax.tree.leaves, (files.load(path, count), tables[count])),
      strict=True,
    ):
      np.testing.assert_array_equal(a, b)
  assert files.load(path).num_evaluations == 5
  with pytest.raises(
    ValueError, match="tableaus of 2, 5 evaluations, not of 3"
  ):
    files.load(path, 3)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(about=np.array("[1]")), "is not a saved tableau: what it is about"),
    (dict(about=np.array("{")), "is not a saved tableau"),
    ({"5_mix": np.zeros((3, 2, 4))}, "mix of a tableau must|target of a tab"),
    ({"x_mix": np.zeros(3)}, "is not a saved tableau"),
    ({"2_mix": None}, "is not a saved tableau: '?mix"),
    ({"5_target": np.full((5, 2), np.nan)}, "target of a tableau must be fin"),
    ({"5_target": np.zeros((5, 2), int)}, "target must be floats, not int"),
  ],
)
def test_broken_files_of_several_are_refused(change, message, tmp_path):
  tables = {
    2: solvers.midpoint(flow_grid()[:2]),
    5: solvers.ddim(flow_grid()[:6]),
  }
  path = tmp_path / "several.npz"
  path.write_bytes(files.packed(tables, {}))
  with np.load(path) as file:
    arrays = dict(file) | change
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  with pytest.raises(ValueError, match=message):
    files.load(path)


def test_tables_filed_under_other_numbers_are_refused(tmp_path):
  path = tmp_path / "several.npz"
  path.write_bytes(files.packed({3: solvers.ddim(flow_grid()[:6])}, {}))
  with pytest.raises(ValueError, match=r"of \[5\] evaluations are filed under"):
    files.load(path)
