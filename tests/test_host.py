"""Concrete grids and tables compile nothing, and are what JAX would make."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import host, levels, schedules, targets
from tests.tables import SCALES, SCHEDULES

COUNT = """
import jax, numpy as np
import diffflow_jax as dfj
from diffflow_jax.sampling import compose
compiled = []
jax.monitoring.register_event_duration_secs_listener(
  lambda name, _, **kw: compiled.append(name) if "backend_compile" in name
  else None
)
jax.jit(lambda x: 2 * x)(3.0)
assert len(compiled) == 1, "compilations are not counted"
learned = dfj.schedules.learned(jax.random.key(0), 8)  # its draws compile
compiled.clear()
made = {n: dfj.schedules.make(n) for n in dfj.schedules.SCHEDULES
        if n not in ("learned", "shift")}
made |= dict(learned=learned, shift=dfj.schedules.shift("flow", 3.0))
grids, vp = {}, dfj.levels.vp
for name, schedule in made.items():
  for scale in dfj.levels.SCALES:
    grids[name, scale] = dfj.grids.uniform_t(
      schedule, dfj.levels.make(scale), 7, 0.97, 0.03)
  grids[name, "to the ends"] = dfj.grids.quadratic_t(schedule, vp, 9)
  solvers = ("heun", "adams_bashforth", "euler_maruyama", "deis", "edm")
  for solver in solvers[:4]:  # a path of one's own
    dfj.solvers.named(solver)(
      grids[name, "vp"], coordinate=(schedule, vp))
few = [grids["flow", "to the ends"], grids["cosine", "vp"],
  dfj.grids.karras(6), dfj.grids.shifted_flow(5, scale=vp),
  dfj.grids.table_rows(made["ddpm_table"].rows, 6),
  dfj.grids.uniform_logsnr(-5.0, 6.0, 7),
  dfj.grids.to_data(np.linspace(-4.0, 4.0, 5))]
for name, solver in dfj.solvers.SOLVERS.items():
  for grid in few:
    try:
      table = solver(grid)
    except ValueError as e:  # sigma has no alpha = 0
      assert name == "edm" and "infinite at alpha = 0" in str(e), (name, e)
      continue
    dfj.pad(table, 200, 6), dfj.contributions(table)
  for coordinate in ("sigma", "angle", "flow"):
    try:
      solver(few[1], coordinate=coordinate)
    except TypeError:
      pass
    dfj.restart(few[1], solver, 2, 5)
print(len(compiled), len(grids))
"""


def test_no_grid_and_no_table_compiles():
  """In a fresh process, every solver, and every schedule on every scale."""
  env = dict(os.environ, PYTHONPATH=os.getcwd(), JAX_PLATFORMS="cpu")
  done = subprocess.run(
    [sys.executable, "-c", COUNT],
    env=env,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  compiled, grids = map(int, done.stdout.split())
  assert compiled == 0 and grids > 100


@pytest.mark.parametrize("name", SCHEDULES)
def test_numpy_gives_what_jax_gives(name, x64):
  schedule = SCHEDULES[name]
  scale = list(SCALES.values())[len(name) % len(SCALES)]
  t, logsnr = np.linspace(0.01, 0.99, 9), np.linspace(-4.5, 4.5, 7)

  def everything(schedule, t, logsnr):
    on = levels.level(schedule, scale, t)
    return on, levels.at_logsnr(scale, logsnr, schedule), schedule.t(logsnr)

  got = host.evaluate64(everything, schedule, t, logsnr)
  want = jax.jit(everything)(
    jax.tree.map(lambda l: jnp.asarray(l, jnp.float64), schedule), t, logsnr
  )
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    assert isinstance(a, np.ndarray) and a.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_every_targets_solution(x64):
  lv = levels.at_logsnr(
    levels.linear, np.array([-np.inf, -3.0, 0.2, np.inf]), schedules.Flow()
  )
  rows = lambda lv: [targets.solve(r, lv) for r in targets.TARGETS.values()]
  both = map(jax.tree.leaves, (host.evaluate64(rows, lv), rows(lv)))
  pairs = zip(*both, strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=1e-14)


def test_exact_ends():
  flow = host.evaluate64(
    lambda s, t: levels.level(s, levels.linear, t),
    schedules.Flow(),
    np.array([1.0, 0.0]),
  )
  assert np.array_equal(flow.logsnr, [-np.inf, np.inf])
  assert np.array_equal(flow.alpha, [0.0, 1.0])
  assert np.array_equal(flow.dsigma, [1.0, 1.0])


def test_the_dtype_is_jaxs():
  fn = lambda x, n: (x * jnp.pi, n // 2, jnp.arange(3.0) / n, x > 0)
  x, n = np.linspace(-1.0, 1.0, 3), np.int32(-7)
  for wide in (False, True):
    with jax.enable_x64(wide):
      got, want = host.evaluate(fn, x, n), fn(jnp.asarray(x), jnp.asarray(n))
    for a, b in zip(got, want, strict=True):
      assert a.dtype == b.dtype
      np.testing.assert_allclose(a, b, rtol=1e-6)


LOOPS = {
  "scan": lambda x: jax.lax.scan(lambda c, y: (c + y, c * y), x[0], x),
  "reverse": lambda x: jax.lax.scan(
    lambda c, y: (c * y, c), x[0], x, reverse=True
  ),
  "while": lambda x: jax.lax.while_loop(lambda c: c[0] < 9, lambda c: c * 2, x),
  "cond": lambda x: jax.lax.cond(x[0] > 1, jnp.sin, jnp.cos, x),
  "nested": lambda x: jax.jit(lambda y: jax.grad(lambda z: z**3)(y) + 1)(x[1]),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_and_branches(name):
  x = np.array([0.5, 1.5, 3.0])
  got = host.evaluate64(LOOPS[name], x)
  with jax.enable_x64(True):
    want = LOOPS[name](jnp.asarray(x))
  for a, b in zip(*map(jax.tree.leaves, (got, want)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-14)


FALLBACKS = {
  "unknown operation": lambda x: jnp.sort(jnp.sin(x)),
  "a gather of its own": lambda x: jnp.outer(x, x)[jnp.array([2, 0])],
  "control by values": lambda x: jnp.sin(x) if x[0] > 0 else jnp.cos(x),
  "numpy": lambda x: jnp.asarray(np.sin(np.asarray(x))),
}


@pytest.mark.parametrize("name", FALLBACKS)
def test_what_numpy_cannot_do_is_left_to_jax(name):
  x = np.array([0.5, 1.5, 3.0])
  got = host.evaluate64(FALLBACKS[name], x)
  with jax.enable_x64(True):
    want = FALLBACKS[name](jnp.asarray(x))
  assert got.dtype == np.float64
  np.testing.assert_allclose(got, want, rtol=1e-14)
