"""Samplers by name: what `sample` and configs ask for is what they get."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.cli import Refusal
from diffflow_jax.objective import objectives
from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.runs import auto, generate, samplers
from diffflow_jax.runs.card import Card
from diffflow_jax.sampling import compose, grids, noise, solvers, tableau
from tests import commands

FLOW = objectives.flow_matching()
DDPM = objectives.ddpm()
N = 5


def of(objective, spec, num_steps=N):
  return samplers.call("grid", spec, generate.GRIDS, objective, num_steps)


def flow(make, *args, **kwargs):
  return make(schedules.Flow(), FLOW.scale, *args, **kwargs)


# name: (spec, the grid on the flow objective)
GRIDS = {
  "uniform_t": ("uniform_t", lambda: flow(grids.uniform_t, N)),
  "uniform_flow": (
    "uniform_flow:shift=3",
    lambda: grids.shifted_flow(N, 3.0, FLOW.scale),
  ),
  "uniform_cosine": (
    "uniform_cosine",
    lambda: grids.uniform_t(schedules.Cosine(), FLOW.scale, N),
  ),
  "uniform_logsnr": (
    "uniform_logsnr:start=-6,end=6",
    lambda: grids.from_logsnr([-6.0, -3.0, 0.0, 3.0, 6.0, np.inf], FLOW.scale),
  ),
  "karras": (
    "karras:sigma_max=20,rho=5",
    lambda: grids.karras(N, 0.002, 20.0, 5.0, FLOW.scale),
  ),
  "quadratic": ("quadratic", lambda: flow(grids.quadratic_t, N)),
  "table_rows": (
    "table_rows:rows=11",
    lambda: flow(grids.from_t, np.array([10, 7.8, 5.6, 3.4, 1.2, 0]) / 10),
  ),
  "file": ("file:path=levels.txt,kind=sigma", None),
}


@pytest.mark.parametrize("name", generate.GRIDS)
def test_a_grid_by_name_is_that_grid(name, tmp_path, monkeypatch):
  spec, want = GRIDS[name]
  if name == "file":
    monkeypatch.chdir(tmp_path)
    sigma = [3.0, 1.0, 0.5, 0.1, 0.0]
    np.savetxt("levels.txt", sigma)
    want = lambda: grids.from_sigma(sigma, FLOW.scale)
  got, want = of(FLOW, spec), want()
  for field in ("logsnr", "alpha", "sigma"):
    np.testing.assert_allclose(
      getattr(got, field), getattr(want, field), rtol=1e-6, atol=1e-12
    )


def test_rows_of_a_run_on_a_table(tmp_path):
  """DDPM's own rows, by `grids.table_rows` on its log-SNR."""
  rows = np.asarray(DDPM.schedule.logsnr(jnp.linspace(0.0, 1.0, 1000)))
  for spacing in ("leading", "trailing", "linspace"):
    got = of(DDPM, f"table_rows:spacing={spacing}")
    want = grids.table_rows(rows, N, spacing, DDPM.scale)
    np.testing.assert_allclose(got.logsnr, want.logsnr, rtol=1e-4, atol=1e-4)
  # flow's row 0 is the data itself, so the last row is the end
  assert of(FLOW, "table_rows:spacing=leading").logsnr.shape == (N,)


def test_levels_of_a_file_are_used_as_they_are(tmp_path):
  path, given = tmp_path / "levels.npy", np.array([-5.0, -1.0, 0.5, 9.0])
  np.save(path, given)
  np.testing.assert_array_equal(of(FLOW, f"file:path={path}").logsnr, given)
  np.save(path, np.array([0.9, 0.4, 0.1]))
  got = of(FLOW, f"file:path={path},kind=t")
  np.testing.assert_allclose(got.sigma, [0.9, 0.4, 0.1])


@pytest.mark.parametrize(
  "spec,message",
  [
    ("file", "grid: path= is no file of levels"),
    ("file:path=nowhere.npy", "grid: path=nowhere.npy is no file of levels"),
    ("file:kind=t2", "kind must be one of"),
    ("table_rows:spacing=even", "grid: spacing must be one of"),
    ("table_rows:rows=3", "num_steps must be at most the 3 rows"),
    ("table_row", "grid is 'table_row'; known: file, karras"),
    ("file:path=rising.npy,kind=sigma", "path=rising.npy: a grid goes from"),
  ],
)
def test_bad_grids_are_refused(spec, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  np.save("rising.npy", [1.0, 2.0, 3.0])
  with pytest.raises(Refusal, match=message):
    of(FLOW, spec)


def test_adaptive_and_restart_by_name():
  got = generate.make_tableau(FLOW, "adaptive:rtol=1e-3", "karras", 4)
  end = grids.karras(4, scale=FLOW.scale)
  assert got.rtol == 1e-3 and got.atol == 1e-5
  np.testing.assert_allclose(got.start.logsnr, end.logsnr[0])
  assert got.end.sigma == 0.0
  grid = of(FLOW, "uniform_logsnr", 8)
  want = compose.restart(grid, solvers.heun, 2, 5, 2)
  again = generate.make_tableau(
    FLOW, "heun", "uniform_logsnr", 8, restart=(2, 5, 2)
  )
  np.testing.assert_array_equal(again.mix, want.mix)
  for solver, restart, message in (
    ("adaptive:rtol=0", None, "solver: rtol must be > 0"),
    ("heun", (5, 2, 1), "restart needs 0 <= high < low"),
  ):
    with pytest.raises(Refusal, match=message):
      generate.make_tableau(FLOW, solver, "karras", 8, restart=restart)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 14, 15, 31, 32, 70, 71, 150])
def test_auto_is_the_nearest_rows_pair_with_the_evaluations_there_are(n):
  row = min(auto.ADVICE, key=lambda count: max(count / n, n / count))
  solver, grid = auto.ADVICE[row]
  got = generate.make_tableau(FLOW, "auto", "auto", n)
  assert n - 3 <= got.num_evaluations <= n
  make = lambda steps: generate.make_tableau(FLOW, solver, grid, steps)
  steps = [s for s in (n, n - 1, n // 2, n // 3, n // 4) if s > 0]
  steps = next(s for s in steps if make(s).num_evaluations <= n)
  assert make(steps + 1).num_evaluations > n
  want = make(steps)
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    np.testing.assert_array_equal(a, b)


def test_autos_advice_is_what_the_benchmark_chose():
  path = commands.ROOT / "benchmarks" / "results" / "advice.json"
  chosen = json.loads(path.read_text())
  assert {int(c): (a["solver"], a["grid"]) for c, a in chosen.items()} == (
    auto.ADVICE
  )


def test_auto_has_no_settings():
  with pytest.raises(Refusal, match="auto has no settings, as in 'auto:10'"):
    generate.make_tableau(FLOW, "auto:10", "auto", 10)


def test_auto_is_nearer_than_a_usual_choice():
  """A mixture that is none of the benchmark's, at 8 to 60 evaluations."""
  model = closed_form.mixture([0.3, 0.7], [[-1.0, 0.2], [1.0, 1.0]], [0.2, 0.4])
  z = jax.random.normal(jax.random.key(5), (64, 2))
  to = lambda table: np.asarray(tableau.sample(model, table, z=z))
  goal = to(solvers.rk4(of(FLOW, "uniform_cosine", 200)))
  for n in (8, 20, 60):
    made = [generate.make_tableau(FLOW, "auto", "auto", n)]
    made += [generate.make_tableau(FLOW, "dpmpp_2m", "karras", n)]
    ours, usual = (np.abs(to(table) - goal).mean() for table in made)
    assert ours < usual / 3, (n, ours, usual)


def a_run(num_classes=0, shape=(2,)):
  """What `generate` needs of a run."""
  card = Card(shape, num_classes)
  apply = lambda params, z, logsnr, cond: (
    0.5 * z + (0.0 if cond is None else jnp.sin(1.0 + cond)[:, None])
  )
  network = types.SimpleNamespace(apply=apply)
  return types.SimpleNamespace(
    config={}, card=card, objective=FLOW, network=network
  )


@pytest.mark.parametrize(
  "spec,make",
  [
    ("ddim:eta=(0,0.5,1,0)", lambda g: solvers.ddim(g, [0, 0.5, 1, 0])),
    (
      "unipc:order=3,orders=(1,2,3,1)",
      lambda g: solvers.unipc(g, 3, orders=[1, 2, 3, 1]),
    ),
    (
      "dpmpp_3m:lower_order_final=true",
      lambda g: solvers.dpmpp_3m(g, lower_order_final=True),
    ),
    ("dpmpp_3m:lower_order_final=false", solvers.dpmpp_3m),
    (
      "churned:solver=midpoint,s_churn=4",
      lambda g: solvers.churned(g, solvers.midpoint, 4),
    ),
  ],
)
def test_what_differs_by_step_by_name(spec, make):
  table = generate.make_tableau(FLOW, spec, "uniform_t", 4)
  grid = samplers.GRIDS["uniform_t"](FLOW, 4)
  np.testing.assert_array_equal(table.mix, make(grid).mix)


def test_frames_are_the_states_at_unit_variance():
  model = closed_form.gaussian([0.4, 0.1], 0.6)
  table = solvers.ddim(of(FLOW, "uniform_t", 6), 0.5)
  frames, names = generate.trajectory(
    a_run(), model, table, num_samples=4, seed=3
  )
  key = jax.random.key(3)
  want, (z, lv) = tableau.sample(
    model, table, key, (4, 2), trajectory=lambda z, x, e, lv: (z, lv)
  )
  norm = np.hypot(lv.alpha, lv.sigma)[:, None, None]
  np.testing.assert_allclose(frames.z[:-1], z / norm, atol=1e-6)
  for i in range(1, 6):  # x̂ is what the model says at that z and level
    level = jax.tree.map(lambda field, i=i: field[i], lv)
    x_hat = model(z[i], level, None)[0]
    np.testing.assert_allclose(frames.x_hat[i], x_hat, atol=1e-5)
  for way in (frames.z, frames.x_hat):
    np.testing.assert_allclose(way[-1], want, atol=1e-6)
  start = noise.initial(noise.keys(key, 0, 4), jnp.ones(()), (2,), jnp.float32)
  np.testing.assert_allclose(frames.z[0], start, atol=1e-6)
  assert names[0] == "logsnr -inf" and names[-1] == "sample"


def test_adaptive_samples_are_those_of_a_fine_grid():
  model = closed_form.gaussian([0.4, 0.1], 0.6)
  fine = solvers.heun(of(FLOW, "uniform_t", 200))
  adaptive = generate.make_tableau(FLOW, "adaptive", "uniform_t", 5)
  draw = lambda t: generate.evaluated(
    a_run(), model, t, num_samples=5, seed=1, batch_size=2
  )
  (x, _, count), (want, _, fixed) = draw(adaptive), draw(fine)
  np.testing.assert_allclose(x, want, atol=1e-3)
  assert fixed == 400 and 7 < count < 200


def test_what_guides_the_predictor():
  """Strength 1 is off, but not of CFG++; null is the run's or a negative."""
  run, z = a_run(10), jnp.ones((2, 2))
  lv, cond = levels.at_logsnr(FLOW.scale, 0.3), jnp.array([1, 2])
  made = lambda *args, **kw: generate.make_predict(run, None, *args, **kw)(
    z, lv, cond
  )
  plain = made(1.0)
  none = generate.make_predict(run, None, 1.0)(z, lv, jnp.array([10, 10]))
  four = generate.make_predict(run, None, 1.0)(z, lv, jnp.array([4, 4]))
  np.testing.assert_allclose(made(1.0, plus_plus=True)[0], plain[0], rtol=1e-5)
  np.testing.assert_allclose(made(1.0, plus_plus=True)[1], none[1], rtol=1e-5)
  for null, other in ((None, none), (4, four)):
    for batched in (True, False):
      got = made(3.0, null=null, batched=batched)
      want = other[0] + 3.0 * (plain[0] - other[0])
      np.testing.assert_allclose(got[0], want, rtol=1e-5)
  strong = generate.make_predict(run, None, 3.0)
  clipped = lambda c: generate.clipped(strong, c, "clip")(z, lv, cond)[0]
  x = clipped("static:limit=0.2")
  assert np.abs(x).max() <= 0.2 + 1e-6 < np.abs(made(3.0)[0]).max()
  x = clipped("dynamic:percentile=50,limit=0.1")
  np.testing.assert_allclose(np.abs(x).max(), 0.1, rtol=1e-5)
