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
    num_kept=num_evaluations,
    reference=solvers.heun(flow_grid()),
  )
  assert table.num_evaluations == num_evaluations
  assert table.num_kept <= num_evaluations == report["num_kept"]
  assert report["learning_rate"] in learned.RATES
  tried = [t["learning_rate"] for t in report["tried"]]
  assert tried == list(learned.RATES[: len(tried)]) and len(tried) > 1
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
  moved = learned._free(params, table, 99).mix - table.mix
  for i in range(6):
    want = [1.0, 1.0, *(float(j < i) for j in range(4)), 0.0]
    np.testing.assert_allclose(moved[i], [want, want], atol=1e-6)


def test_corrections_keep_to_the_history_that_is_asked_for():
  table = jax.tree.map(jnp.asarray, solvers.unipc(flow_grid(), 3))
  params = dict(
    mix=jnp.ones_like(table.mix[..., :-1]),
    logsnr=jnp.zeros_like(table.levels.logsnr),
  )
  moved = learned._free(params, table, 2).mix - table.mix
  np.testing.assert_allclose(moved[5, :, :4], 1.0, atol=1e-6)
  assert (moved[:, :, 4:] == 0.0).all()


def _fit_of(errors):
  """A trainer that has (rate, num_kept) -> error."""
  return lambda table, rate, steps, kept: (table, errors(rate, kept))


def test_the_rate_and_the_history_are_those_of_the_best_short_runs():
  """5 % less error pays for twice the history, 1 % does not."""
  rate_at = lambda rate: 1.0 + abs(np.log10(rate / 1e-4))
  for gain, kept in ((0.9, 16), (0.99, 4)):
    errors = lambda rate, k, g=gain: rate_at(rate) * g ** np.log2(k / 4)
    rate, num_kept, tried = learned._search(
      _fit_of(errors), None, learned.RATES, [4, 8, 16], 10
    )
    assert (rate, num_kept) == (1e-4, kept)
    rates = [t["learning_rate"] for t in tried]
    assert rates[:6] == list(learned.RATES[:6])  # the sixth is worse again
    assert len(tried) == 6 + (2 if gain == 0.9 else 1)
    for one in tried:
      want = errors(one["learning_rate"], one["num_kept"])
      np.testing.assert_allclose(one["error"], want)
  useless = _fit_of(lambda rate, k: float(rate > 1e-5))  # but the last few
  assert learned._search(useless, None, learned.RATES, [4], 10)[0] == 1e-5
  assert learned._search(None, None, [0.1], [3], 10) == (0.1, 3, [])
  assert learned._histories(4, 10) == [4, 8, 10]
  assert learned._histories(4, 4) == [4]


@pytest.mark.parametrize(
  "settings,message",
  [
    (dict(learning_rate=()), "learning_rate must be one number, > 0, not"),
    (dict(learning_rate=(1e-3, -1.0)), "learning_rate must be > 0"),
    (dict(num_kept=0), "num_kept"),
  ],
)
def test_bad_settings_are_refused(settings, message):
  with pytest.raises((ValueError, TypeError), match=message):
    learned.fit_tableau(problem(), flow_grid(), 3, KEY, (4,), **settings)


def test_it_starts_from_the_best_solvers_each_on_its_best_grid():
  scores = {("a", "x"): 3.0, ("a", "y"): 1.0, ("b", "x"): 2.0, ("c", "y"): 9.0}
  starts = learned._best_of_each_solver(scores)
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


def test_no_correction_leaves_the_table_as_it_is():
  """On whatever scale a solver evaluates, its levels keep their norm."""
  for solver in (solvers.adams_bashforth, solvers.unipc, solvers.rk4):
    table = jax.tree.map(jnp.asarray, solver(flow_grid()))
    params = dict(
      mix=jnp.zeros_like(table.mix[..., :-1]),
      logsnr=jnp.zeros_like(table.levels.logsnr),
    )
    same = learned._free(params, table, 99)
    for a, b in zip(*map(jax.tree.leaves, (same, table)), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
