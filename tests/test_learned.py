"""Learned tableaus: never worse than hand-made, and safe to load."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import (
  candidates,
  compose,
  grids,
  learned,
  noise,
  solvers,
  tableau,
)

KEY = jax.random.key(0)


def problem():
  means = np.random.default_rng(0).normal(size=(4, 4))
  return closed_form.mixture(np.ones(4), means, np.full(4, 0.6))


def flow_grid():
  return grids.uniform_t(schedules.Flow(), levels.vp, 10)


@pytest.mark.slow
def test_learned_beats_hand_made_on_held_out_noise():
  mix = problem()
  table, report = learned.fit_tableau(
    mix, flow_grid(), 4, KEY, (4,), num_train=512, num_valid=128, num_steps=200
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


def test_without_steps_that_help_the_hand_made_one_is_kept():
  """A learning rate that destroys: the start survives, by validation."""
  table, report = learned.fit_tableau(
    problem(),
    flow_grid(),
    3,
    KEY,
    (4,),
    num_train=8,
    num_valid=64,
    num_steps=5,
    learning_rate=1e3,
    reference=solvers.heun(flow_grid()),
  )
  np.testing.assert_allclose(report["learned"], report["hand_made"], rtol=1e-5)
  start = learned.hand_made(table.start, table.end, 3)[report["started_from"]]
  z = jax.random.normal(KEY, (32, 4))
  zero = jnp.zeros_like(z)
  error = lambda t: float(learned.error(problem(), t, z, zero))
  np.testing.assert_allclose(error(table), error(start), rtol=1e-5)


@pytest.mark.parametrize("num_evaluations", [1, 2])
def test_fewer_evaluations_than_predictions_kept(num_evaluations):
  """A hand-made start may keep more than one prediction an evaluation."""
  table, report = learned.fit_tableau(
    problem(),
    flow_grid(),
    num_evaluations,
    KEY,
    (4,),
    num_train=8,
    num_valid=16,
    num_steps=3,
    num_starts=2,
    reference=solvers.heun(flow_grid()),
  )
  assert table.num_evaluations == num_evaluations
  assert report["learned"] <= report["hand_made"]
  keys = noise.keys(KEY, 0, 24)[8:]  # the first 8 are for training
  z = noise.initial(keys, jnp.ones(()), (4,), jnp.float32)
  goal = tableau.sample(problem(), solvers.heun(flow_grid()), z=z)
  got = learned.error(problem(), table, z, goal)
  np.testing.assert_allclose(got, report["learned"], rtol=1e-4)
  tableau.check(table)


def test_corrections_do_not_reach_predictions_that_are_not_made():
  table = jax.tree.map(jnp.asarray, solvers.unipc(flow_grid(), 3))
  params = dict(
    mix=jnp.ones_like(table.mix[..., :-1]),
    logsnr=jnp.zeros_like(table.levels.logsnr),
  )
  moved = learned._free(params, table).mix - table.mix
  for i in range(6):
    want = [1.0, 1.0, *(float(j < i) for j in range(4)), 0.0]
    np.testing.assert_allclose(moved[i], [want, want], atol=1e-6)


def test_it_starts_from_the_best_solvers_each_on_its_best_grid():
  scores = {("a", "x"): 3.0, ("a", "y"): 1.0, ("b", "x"): 2.0, ("c", "y"): 9.0}
  starts = learned._best_of_each_solver(scores)
  assert starts == [("a", "y"), ("b", "x"), ("c", "y")]


def test_grids_to_choose_from():
  """Each uniform in its own clock; to sigma = 0 by way of logsnr = 10."""
  flow = lambda l: 1 / (1 + np.exp(l / 2))
  clocks = {
    "flow": flow,
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


def test_no_correction_leaves_the_table_as_it_is():
  """On whatever scale a solver evaluates, its levels keep their norm."""
  for solver in (solvers.adams_bashforth, solvers.unipc, solvers.rk4):
    table = jax.tree.map(jnp.asarray, solver(flow_grid()))
    params = dict(
      mix=jnp.zeros_like(table.mix[..., :-1]),
      logsnr=jnp.zeros_like(table.levels.logsnr),
    )
    same = learned._free(params, table)
    for a, b in zip(*map(jax.tree.leaves, (same, table)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
