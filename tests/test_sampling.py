"""The loop, its noise, and tableaus out of tableaus: MATH.md 5."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import (
  compose,
  grids,
  guidance,
  held,
  introspection,
  noise,
  scan,
  solvers,
  structure,
  tableau,
)
from tests.tables import mix1d

KEY = jax.random.key(0)


def flow_grid(n, t_end=0.0):
  return grids.uniform_t(schedules.Flow(), levels.linear, n, t_end=t_end)


def test_sample_i_does_not_depend_on_the_batch():
  mix = closed_form.gaussian([0.4, 0.1], 0.6)
  table = solvers.ddim(flow_grid(8), 0.5)
  whole = tableau.sample(mix, table, KEY, (64, 2))
  one = tableau.sample(mix, table, KEY, (1, 2), first=5)
  seven = tableau.sample(mix, table, KEY, (7, 2), first=3)
  np.testing.assert_allclose(one[0], whole[5], atol=1e-6)
  np.testing.assert_allclose(seven, whole[3:10], atol=1e-6)
  assert len(np.unique(np.asarray(whole)[:, 0])) == 64


DEVICES = """
import sys, jax, numpy as np
import diffflow_jax as dfj
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()), "i")
grid = dfj.grids.uniform_t(dfj.schedules.Flow(), dfj.levels.linear, 8)
arrays = {}
for name, settings in (
  ("ddim", dict(eta=0.5)), ("heun", {}), ("unipc", {}), ("sde_dpmpp_2m", {})
):
  table = dfj.pad(dfj.solvers.named(name)(grid, **settings), 16, 3)
  x = dfj.sample(
    dfj.closed_form.gaussian([0.4, 0.1], 0.6), table,
    jax.random.key(0), (64, 2), sharding=NamedSharding(mesh, P("i")),
  )
  assert len(x.devices()) == 8, x.sharding
  arrays[name] = np.asarray(x)
np.savez(sys.argv[1], **arrays)
"""


def test_sample_i_does_not_depend_on_the_devices(tmp_path):
  """On 8 CPU devices in another process, sharded; and on one, here."""
  path = tmp_path / "x.npz"
  flags = "--xla_force_host_platform_device_count=8"
  env = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
  env["PYTHONPATH"] = os.getcwd()
  command = [sys.executable, "-c", DEVICES, str(path)]
  subprocess.run(command, env=env, check=True, timeout=120)
  mix, there = closed_form.gaussian([0.4, 0.1], 0.6), np.load(path)
  for name, table in (
    ("ddim", solvers.ddim(flow_grid(8), 0.5)),
    ("heun", solvers.heun(flow_grid(8))),
    ("unipc", solvers.unipc(flow_grid(8))),
    ("sde_dpmpp_2m", solvers.sde_dpmpp_2m(flow_grid(8))),
  ):
    here = tableau.sample(mix, compose.pad(table, 16, 3), KEY, (64, 2))
    np.testing.assert_allclose(there[name], here, atol=1e-6, err_msg=name)


def small(params, z, logsnr, cond):
  h = jnp.tanh(z @ params + jnp.tanh(logsnr)[:, None])
  return h @ params.T


@pytest.mark.parametrize(
  "name",
  [
    "flow_matching",
    "ddpm",
    pytest.param("v_diffusion", marks=pytest.mark.slow),
    pytest.param("edm", marks=pytest.mark.slow),
  ],
)
def test_gradients_are_finite_between_the_exact_ends(name):
  """From alpha = 0 to sigma = 0, through solvers that share two programs."""
  from diffflow_jax.objective import objectives

  objective = objectives.OBJECTIVES[name]()
  params = 0.3 * jax.random.normal(KEY, (2, 8))

  @jax.jit
  def slope(params, table):
    run = lambda predict: tableau.sample(predict, table, KEY, (3, 2))
    loss = lambda p: jnp.sum(
      run(objectives.predictor(objective, small, p)) ** 2
    )
    return jax.grad(loss)(params)

  wide = lambda t: t.replace(mix=compose.widen(t.mix, 4))
  for make, n in (
    (solvers.ddim, 7),
    (lambda l: solvers.ddim(l, 0.9), 7),
    (solvers.ddpm, 7),
    (solvers.dpmpp_2m, 7),
    (solvers.dpmpp_3m, 7),
    (solvers.unipc, 7),
    (solvers.deis, 7),
    (solvers.adams_bashforth, 7),
    (solvers.sde_dpmpp_3m, 7),
    (solvers.euler_maruyama, 7),
    (solvers.heun, 4),
    (lambda l: solvers.heun(l, "angle"), 4),
  ):
    grad = slope(params, wide(make(flow_grid(n))))
    assert np.isfinite(grad).all() and np.abs(grad).max() > 0, make


def counting(traces):
  def network(z, lv, cond):
    traces.append(1)
    x_hat, eps_hat = closed_form.gaussian([0.4], 0.6)(z, lv)
    return x_hat * jnp.where(cond > 9, 0.5, 1.0)[:, None], eps_hat

  return jax.tree_util.Partial(network)


def test_one_trace_of_solvers_that_read_the_same():
  traces = []
  predict = counting(traces)
  run = lambda table, w: tableau.sample(
    guidance.Guided(predict, 10, w), table, KEY, (4, 1), cond=jnp.arange(4)
  )
  cosine = grids.uniform_t(schedules.Cosine(), levels.vp, 9)
  outs = [
    run(solvers.ddim(flow_grid(9), 0.2), 1.0),
    run(solvers.ddim(flow_grid(9), 0.7), 1.0),
    run(solvers.ddim(cosine, 0.2), 3.0),
    run(solvers.ddpm(cosine), 1.0),
  ]
  assert len(traces) == 1
  outs += [
    run(solvers.dpmpp_2m(flow_grid(9)), 1.0),
    run(solvers.dpmpp_2m_heun(cosine), 2.0),
    run(solvers.unip(cosine, 2), 2.0),
    run(solvers.adams_bashforth(flow_grid(9)), 2.0),
  ]
  assert len(traces) == 2  # no noise, and one older prediction
  outs += [run(solvers.heun(flow_grid(5)), 2.0)]
  assert len(traces) == 3  # N = 9 too, but with an anchor
  assert len({float(o[0, 0]) for o in outs}) == 9


def test_one_compilation_serves_everything_that_is_padded():
  """Ten settings of (solver, steps, eta, guidance, grid): one program.

  Strengths as they come: off, an integer, NumPy's and JAX's numbers.
  """
  traces = []
  predict = counting(traces)

  def run(table, w, **kwargs):
    model = guidance.Guided(predict, 10, w, **kwargs)
    return tableau.sample(model, table, KEY, (4, 1), cond=jnp.arange(4))

  cosine = lambda n: grids.uniform_t(schedules.Cosine(), levels.vp, n)
  settings = [
    (solvers.ddim(flow_grid(9)), 1.0),
    (solvers.ddim(flow_grid(20), 0.7), 2),
    (solvers.ddpm(cosine(13)), np.float32(3.0)),
    (solvers.heun(flow_grid(11)), np.float64(2.0)),
    (solvers.rk4(cosine(10)), jnp.asarray(2)),
    (solvers.dpmpp_3s(cosine(8)), 0.0),
    (solvers.unipc(flow_grid(7), 3), np.array(1.5)),
    (solvers.deis(cosine(40)), 4),
    (solvers.edm(grids.karras(12), 5.0), 2.0),
    (solvers.sde_dpmpp_3m(flow_grid(25), 0.3), -1),
  ]
  extra = [{}] * 8 + [dict(interval=(-3, 4)), dict(rescale=1)]
  before = scan.run._cache_size()
  outs = [
    run(compose.pad(table, 40, 4), w, **kwargs)
    for (table, w), kwargs in zip(settings, extra, strict=True)
  ]
  assert scan.run._cache_size() - before == 1 and len(traces) == 1
  for (table, w), out in zip(settings[:3], outs, strict=False):
    np.testing.assert_allclose(out, run(table, w), atol=1e-5)


def test_a_number_broadcast_over_samples_shares_their_program():
  traces = []
  predict = counting(traces)
  table = compose.pad(solvers.ddim(flow_grid(9)), 40, 4)
  for w in ([1.0, 2.0, 3.0, 4.0], np.full(4, 2.0), jnp.full(4, 1)):
    model = guidance.Guided(predict, 10, w)
    tableau.sample(model, table, KEY, (4, 1), cond=jnp.arange(4))
  assert len(traces) == 1


def test_padding_costs_no_evaluation():
  calls = []

  def network(z, lv, cond):
    jax.debug.callback(lambda _: calls.append(1), lv.logsnr)
    return closed_form.gaussian([0.4], 0.6)(z, lv)

  table = solvers.heun(flow_grid(6))
  tableau.sample(network, compose.pad(table, 100, 4), KEY, (3, 1))
  jax.effects_barrier()
  assert len(calls) == table.num_evaluations == 12


def test_a_deterministic_tableau_draws_no_noise():
  """Concrete: its program cannot. Traced: in a branch, and nowhere else."""
  mix = closed_form.gaussian([0.4], 0.6)
  run = lambda t: tableau.sample(mix, t, KEY, z=jnp.zeros((3, 1)))
  still, noisy = (solvers.ddim(flow_grid(4), eta) for eta in (0.0, 0.5))
  program = lambda table: str(jax.make_jaxpr(lambda: run(table))())
  assert "random_bits" in program(noisy)
  assert "random" not in program(still) and "cond[" not in program(still)
  outside, _, inside = str(jax.make_jaxpr(run)(still)).partition("cond[")
  assert inside and "random_bits" in inside and "random_bits" not in outside


def by_rows(table, predict, draws, z):
  """A tableau by its definition, with all history, in NumPy."""
  mix, (a, b) = np.asarray(table.mix), np.asarray(table.target).T
  n, states, history = len(a), (z, z), [np.zeros_like(z)] * mix.shape[-1]
  for i in range(n + 1):
    held = np.stack([*states, *history[: mix.shape[-1] - 3], draws[i]])
    states = np.tensordot(mix[i], held, 1)
    if i < n:
      lv = jax.tree.map(lambda f, i=i: f[i], table.levels)
      x_hat, eps_hat = predict(states[1], lv)
      kept = a[i] * np.asarray(x_hat) + b[i] * np.asarray(eps_hat)
      history = [kept, *history]
  return states[0]


def random_table(states, kept, noisy, seed):
  """One that no solver makes: dense columns, noise in the rows `noisy`."""
  rng = np.random.default_rng(seed)
  rows = max(8, kept + 1)
  base = solvers.ddim(grids.from_logsnr(np.linspace(-3.0, 3.0, rows)))
  mix = 0.3 * rng.normal(size=(rows, 2, kept + 3))
  made = np.arange(kept) < np.arange(rows)[:, None]
  mix[..., 2:-1] *= made[:, None]
  mix[..., -1] *= np.isin(np.arange(rows), noisy)[:, None]
  if states == 1:
    mix[:-1, 1] = mix[:-1, 0]
  return base.replace(mix=mix, target=rng.normal(size=(rows - 1, 2)))


@pytest.mark.parametrize(
  "states,kept,noisy",
  [
    (1, 1, []),
    (1, 2, [0]),
    (1, 4, range(8)),
    (2, 1, range(1, 8)),
    (2, 3, [2, 7]),
    (1, held.LONG, [3]),
    (2, held.LONG // 2 - 1, []),
    (2, 9, [0, 5]),
  ],
)
def test_every_program_is_the_loop_of_the_definition(states, kept, noisy, x64):
  mix = closed_form.gaussian([0.4, -0.3], 0.6)
  table = random_table(states, kept, noisy, seed=kept)
  shared = structure.of(table)
  assert shared.states == states and shared.depth == kept
  z = np.random.default_rng(1).normal(size=(3, 2))
  run = lambda t: tableau.sample(mix, t, KEY, z=z)
  keys = noise.keys(KEY, 0, 3)
  rows = len(table.mix)
  draws = [noise.draw(keys, i, (2,), z.dtype) for i in range(rows)]
  want = by_rows(table, mix, draws, z)
  np.testing.assert_allclose(run(table), want, rtol=1e-12)
  np.testing.assert_allclose(jax.jit(run)(table), want, rtol=1e-12)
  padded = compose.pad(table, 14, 13)
  np.testing.assert_allclose(run(padded), want, rtol=1e-12)


def test_a_state_may_be_numpys():
  mix, table = (
    closed_form.gaussian([0.4, -0.3], 0.6),
    solvers.ddim(flow_grid(4)),
  )
  z = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
  want = tableau.sample(mix, table, z=jnp.asarray(z))
  np.testing.assert_array_equal(tableau.sample(mix, table, z=z), want)


def test_noise_may_be_given(x64):
  """An ancestral step as it is written, on another library's draws."""
  mix = closed_form.gaussian([0.4, -0.3], 0.6)
  grid = grids.karras(6)
  rng = np.random.default_rng(2)
  z, draws = rng.normal(size=(3, 2)), rng.normal(size=(7, 3, 2))
  want = z
  for i in range(6):
    s, t = grid.sigma[i], grid.sigma[i + 1]
    x_hat, _ = mix(want, grid[i])
    up = t * np.sqrt(1 - t**2 / s**2)
    down = np.sqrt(t**2 - up**2)
    want = x_hat + (want - x_hat) / s * down + up * draws[i + 1]
  table = solvers.euler_ancestral(grid)
  got = tableau.sample(mix, table, z=z, noise=draws)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  padded = compose.pad(table, 9, 2)
  more = np.concatenate([draws, np.zeros((3, 3, 2))])
  got = tableau.sample(mix, padded, z=z, noise=more)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  for wrong, message in (
    (dict(z=z, noise=draws[1:]), r"shape \(7, 3, 2\), not \(6, 3, 2\)"),
    (dict(shape=(3, 2), noise=draws), "needs z to start from"),
    (dict(key=KEY, z=z, noise=draws), "takes the place of key"),
  ):
    with pytest.raises(ValueError, match=message):
      tableau.sample(mix, table, **wrong)


def test_a_network_that_is_nan_at_pure_noise_is_named():
  """And samples that are NaN for another reason come back."""
  lost = lambda z, lv, cond: 2 * (z * (1.0 + 0.0 * lv.logsnr),)
  always = lambda z, lv, cond: 2 * (z * jnp.nan,)
  table = solvers.ddim(flow_grid(3))
  with pytest.raises(ValueError, match="NaN at pure noise, logsnr = -inf"):
    tableau.sample(lost, table, KEY, (3, 1))
  assert np.isnan(tableau.sample(always, table, KEY, (3, 1))).all()
  late = solvers.ddim(grids.from_logsnr(np.array([-9.0, 0.0, 9.0])))
  assert np.isfinite(tableau.sample(lost, late, KEY, (3, 1))).all()


def test_the_program_of_ddim_is_short():
  """Lines of HLO, ten steps of a small MLP: what is compiled before all."""
  from diffflow_jax.objective import objectives

  params = {"w": 0.3 * jax.random.normal(KEY, (2, 8))}
  z, table = jnp.zeros((64, 2)), solvers.ddim(flow_grid(10))

  def network(params, z, logsnr, cond):
    h = z @ params["w"] + jnp.tanh(logsnr)[:, None]
    for _ in range(2):
      h = jax.nn.silu(h @ params["w"].T @ params["w"])
    return h @ params["w"].T

  @jax.jit
  def by_hand(params, z):
    def step(z, levels):
      y = network(params, z, jnp.full(64, levels[0]), None)
      x_hat, eps_hat = z - levels[1] * y, z + levels[2] * y
      return levels[3] * x_hat + levels[4] * eps_hat, None

    return jax.lax.scan(step, z, jnp.ones((10, 5)))[0]

  @jax.jit
  def ours(params, z):
    predict = objectives.predictor(objectives.flow_matching(), network, params)
    return tableau.sample(predict, table, z=z)

  lines = lambda fn: len(
    fn.lower(params, z).as_text(dialect="hlo").splitlines()
  )
  assert lines(ours) <= 200 and lines(ours) <= 2.5 * lines(by_hand)


@pytest.mark.parametrize(
  "make",
  [
    lambda l: solvers.ddim(l, 0.8),
    solvers.heun,
    lambda l: solvers.edm(l, 4.0),
    lambda l: solvers.unipc(l, 3),
    lambda l: solvers.sde_dpmpp_2m(l, 0.8),
    lambda l: compose.restart(l, solvers.heun, 2, 5, times=2),
  ],
)
@pytest.mark.parametrize("target", ["kept", "x", "v"])
def test_contributions_reproduce_the_sample(make, target, x64):
  """start z + Σ weight ŷ + Σ weight xi is what the loop returns."""
  from diffflow_jax.process import targets

  row = None if target == "kept" else targets.TARGETS[target]
  table = make(grids.from_logsnr(np.linspace(-4, 5, 7)))
  z = jnp.linspace(-2, 2, 5)[:, None]
  keep = lambda z, x_hat, eps_hat, lv: (x_hat, eps_hat)
  got, (x_hat, eps_hat) = tableau.sample(
    mix1d(), table, KEY, z.shape, z=z, trajectory=keep
  )
  parts = introspection.contributions(table, row)
  lv = table.levels
  a, b = table.target.T if row is None else row(lv)
  y = jnp.reshape(a, (-1, 1, 1)) * x_hat + jnp.reshape(b, (-1, 1, 1)) * eps_hat
  want = parts["start"] * z + jnp.tensordot(parts["kept"], y, 1)
  keys = noise.keys(KEY, 0, 5)
  for i, w in enumerate(parts["noise"]):
    want = want + w * noise.draw(keys, i, (1,), z.dtype)
  np.testing.assert_allclose(got, want, atol=1e-11)


@pytest.mark.parametrize("coordinate", [None, "flow", "angle"])
@pytest.mark.parametrize(
  "make", [solvers.heun, solvers.dpmpp_2m, lambda l: solvers.ddim(l, 0.5)]
)
def test_contributions_of_the_velocity(make, coordinate, x64):
  """u = dz/dt of a path, of flow time if none is named, reproduces the sample.

  The states are on the tableau's own scales, u on the path's.
  """
  table = make(flow_grid(6, t_end=0.1))
  z = jnp.linspace(-2, 2, 5)[:, None]
  keep = lambda z, x_hat, eps_hat, lv: (x_hat, eps_hat)
  got, (x_hat, eps_hat) = tableau.sample(
    mix1d(), table, KEY, z.shape, z=z, trajectory=keep
  )
  from diffflow_jax.process import targets

  parts = introspection.contributions(table, targets.u, coordinate)
  phi = np.arctan2(table.levels.sigma, table.levels.alpha)
  a, b = -np.ones_like(phi), np.ones_like(phi)
  if coordinate == "angle":
    a, b = -np.pi / 2 * np.sin(phi), np.pi / 2 * np.cos(phi)
  u = jnp.reshape(a, (-1, 1, 1)) * x_hat + jnp.reshape(b, (-1, 1, 1)) * eps_hat
  want = parts["start"] * z + jnp.tensordot(parts["kept"], u, 1)
  keys = noise.keys(KEY, 0, 5)
  for i, w in enumerate(parts["noise"]):
    want = want + w * noise.draw(keys, i, (1,), z.dtype)
  np.testing.assert_allclose(got, want, atol=1e-11)


def test_ddim_contributions_are_the_closed_form(x64):
  """MATH 5.12: h_i = sigma_0 (e^ell_{i+1} - e^ell_i); with noise, its eta."""
  grid = grids.from_logsnr(np.linspace(-4, 5, 7) ** 1.0)
  ell = grid.logsnr / 2
  for eta in (0.0, 0.7, 1.3):
    kept = introspection.contributions(solvers.sde_dpmpp_1(grid, eta))["kept"]
    want = (
      grid.sigma[-1]
      * np.exp(-(eta**2) * ell[-1])
      * np.diff(np.exp((1 + eta**2) * ell))
    )
    np.testing.assert_allclose(kept, want, rtol=1e-11)


def test_trajectory_keeps_every_kth(x64):
  table = solvers.dpmpp_2m(flow_grid(11))
  z = jnp.linspace(-2, 2, 5)[:, None]
  keep = lambda z, x_hat, eps_hat, lv: dict(x=x_hat, logsnr=lv.logsnr)
  run = lambda **kw: tableau.sample(
    mix1d(), table, KEY, z.shape, z=z, trajectory=keep, **kw
  )
  plain, every = run()
  some, third = run(every=3)
  assert every["x"].shape == (11, 5, 1) and third["x"].shape == (3, 5, 1)
  np.testing.assert_allclose(some, plain, atol=1e-14)
  np.testing.assert_allclose(third["x"], every["x"][4::3], atol=1e-14)
  np.testing.assert_allclose(every["logsnr"], table.levels.logsnr)
  assert run(every=20)[1]["x"].shape == (0, 5, 1)


def wide(params, z, lv, cond=None):
  h = jnp.tanh(z @ params["in"] + lv.alpha)
  for _ in range(4):
    h = jnp.tanh(h @ params["mid"])
  return h @ params["out"], z


def test_gradients_through_the_sampler(x64):
  """Against finite differences; the same with rematerialisation, in less."""
  keys = jax.random.split(KEY, 3)
  draw = lambda k, *s: jax.random.normal(k, s) / np.sqrt(s[0])
  params = dict(
    zip(
      ("in", "mid", "out"),
      (draw(keys[0], 2, 64), draw(keys[1], 64, 64), draw(keys[2], 64, 2)),
      strict=True,
    )
  )
  table = solvers.ddim(grids.from_logsnr(np.linspace(-4, 5, 21)), 0.5)

  def loss(params, remat):
    predict = jax.tree_util.Partial(wide, params)
    x = tableau.sample(predict, table, KEY, (32, 2), remat=remat)
    return jnp.mean(jnp.sin(x))

  plain, again = (jax.grad(loss)(params, r) for r in (False, True))
  for a, b in zip(*map(jax.tree.leaves, (plain, again)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-12)
  h, step = 1e-6, jax.tree.map(jnp.sign, plain)
  ends = [
    loss(jax.tree.map(lambda p, d, s=s: p + s * h * d, params, step), False)
    for s in (1, -1)
  ]
  slope = sum(jnp.sum(jnp.abs(g)) for g in jax.tree.leaves(plain))
  np.testing.assert_allclose((ends[0] - ends[1]) / (2 * h), slope, rtol=1e-6)
  used = [
    jax.jit(jax.grad(lambda p, r=r: loss(p, r)))
    .lower(params)
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
    for r in (False, True)
  ]
  assert used[1] < 0.5 * used[0], used


def test_brownian_path_is_brownian():
  """Variances and independence of increments, 4 standard errors."""
  keys = noise.keys(KEY, 0, 4000)
  cs = jnp.array([0.0, 0.1, 0.35, 0.9, 1.0])
  at = jax.vmap(
    lambda k: jax.vmap(lambda c: noise.brownian(k, c, (1,), jnp.float32))(cs)
  )
  w = np.asarray(jax.jit(at)(keys))[:, :, 0]
  steps = np.diff(w, axis=1)
  cov = steps.T @ steps / len(steps)
  want = np.diag(np.diff(np.asarray(cs)))
  error = 4 * np.sqrt((np.outer(np.diag(want), np.diag(want)) + want**2) / 4000)
  assert np.all(np.abs(cov - want) < error), cov
  assert np.all(w[:, 0] == 0)


def test_the_brownian_clock_is_flow_time_on_any_scale():
  logsnr = np.array([-3.0, -1.0, 0.5, 4.0])
  c = 1.0 / (1.0 + np.exp(logsnr / 2))
  want = [[0.0, 0.0], *zip(c[:-1], c[1:], strict=True), *[[0.0, 0.0]] * 2]
  for scale in (levels.vp, levels.ve):
    grid = grids.from_logsnr(logsnr, scale)
    table = compose.pad(solvers.ddim(grid, 0.5), 5, 1)
    np.testing.assert_allclose(noise.clocks(grid, table), want, rtol=1e-12)


def test_one_brownian_path_for_20_and_40_steps():
  """Strong convergence: with one path the samples agree, else they do not."""
  mix = closed_form.mixture([0.5, 0.5], [[-1.0], [1.0]], [0.4, 0.4])

  def distance(**shared):
    x = []
    for n in (40, 80):
      grid = grids.from_logsnr(np.linspace(-5, 6, n + 1))
      path = {k: grid for k in shared}
      x.append(
        tableau.sample(
          mix, solvers.sde_dpmpp_2m(grid, 1.0), KEY, (256, 1), **path
        )
      )
    return float(jnp.sqrt(jnp.mean((x[0] - x[1]) ** 2)))

  same, fresh = distance(brownian=True), distance()
  assert same < 0.25 * fresh and fresh > 0.5, (same, fresh)
  with pytest.raises(ValueError, match="one-evaluation solver"):
    grid = flow_grid(4)
    tableau.sample(mix, solvers.heun(grid), KEY, (1, 1), brownian=grid)


@pytest.mark.parametrize(
  "make",
  [
    lambda l: solvers.ddim(l, 0.5),
    lambda l: solvers.edm(l, 1e9),  # churn at its cap, before each evaluation
  ],
)
def test_join_is_one_longer_sampler(make, x64):
  grid = grids.from_logsnr(np.linspace(-4, 5, 9))
  whole, both = make(grid), compose.join(make(grid[:4]), make(grid[3:]))
  for a, b in zip(*map(jax.tree.leaves, (whole, both)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-13)


def test_restart_keeps_the_law_and_contracts_errors(x64):
  """arXiv:2306.14878: renoising forgets what went wrong before it."""
  grid = grids.from_logsnr(np.linspace(-6, 6, 61))
  for times in (0, 1, 3):
    table = compose.restart(grid, solvers.heun, 20, 50, times)
    assert table.num_evaluations == 120 + 60 * times
    mean, var = introspection.gaussian_moments(table, 0.4, 0.6)
    end = grid[-1]
    np.testing.assert_allclose(mean, end.alpha * 0.4, rtol=2e-3)
    want = (end.alpha * 0.6) ** 2 + end.sigma**2
    np.testing.assert_allclose(var, want, rtol=5e-3)
  plain = introspection.gaussian_map(solvers.heun(grid), 0.4, 0.6)["gain"]
  assert abs(introspection.gaussian_map(table, 0.4, 0.6)["gain"]) < plain / 10


@pytest.mark.parametrize("scale", [levels.vp, levels.ve])
def test_restart_adds_just_the_noise_that_is_missing(scale, x64):
  """On one data point DDIM is exact, so the variance stays sigma² exactly."""
  grid = grids.from_logsnr(np.linspace(-3, 3, 7), scale)
  for times in (1, 3):
    table = compose.restart(grid, solvers.ddim, 2, 4, times)
    got = introspection.gaussian_moments(table, 0.4, 0.0)
    want = 0.4 * grid.alpha[-1], grid.sigma[-1] ** 2
    np.testing.assert_allclose(got, want, rtol=1e-12)
  one = compose.restart(grid, solvers.ddim, 2, 4)
  drawn = np.flatnonzero(introspection.contributions(one)["noise"])
  assert list(drawn) == [4]  # in the row that jumps back


def test_damping_is_one_for_a_fine_grid_and_shows_an_overshoot(x64):
  grid = grids.from_logsnr(np.linspace(-6, 12, 400))
  stds = [0.01, 0.1, 1.0]
  np.testing.assert_allclose(
    introspection.damping(solvers.dpmpp_2m(grid), stds), 1.0, atol=2e-3
  )
  coarse = grids.karras(8)
  assert introspection.damping(solvers.heun(coarse, "sigma"), 0.01)[0] > 1.8
  # DDIM's gain is a product over its steps, each a known number (MATH 9.5)
  a, s, std = coarse.alpha, coarse.sigma, 0.5
  x = a * std**2 / (a**2 * std**2 + s**2)
  step = a[1:] * x[:-1] + s[1:] * (1 - a[:-1] * x[:-1]) / s[:-1]
  exact = std / np.sqrt(std**2 + s[0] ** 2)
  got = introspection.damping(solvers.ddim(coarse), std)
  np.testing.assert_allclose(got, np.prod(step) / exact, rtol=1e-12)


def test_starting_in_the_middle(x64):
  """SDEdit: noise the data to a level of the grid, and run the rest."""
  grid = grids.from_logsnr(np.linspace(-4, 5, 41))
  middle = grid[20:]
  x = mix1d().sample(KEY, 16)
  eps = jax.random.normal(KEY, x.shape)
  z = levels.add_noise(x, eps, middle[0])
  got = tableau.sample(mix1d(), solvers.heun(middle), KEY, x.shape, z=z)
  want = mix1d().flow(z, middle[0], middle[-1])
  np.testing.assert_allclose(got, want, atol=1e-3)


def test_a_users_own_solver_is_a_function(x64):
  """Euler on z/alpha with the last prediction, written from the attributes."""

  def mine(levels):
    n = len(levels.logsnr) - 1
    mix = np.zeros((n + 1, 2, 4))
    mix[0, 0, 0] = mix[0, 1, 1] = 1.0
    ratio = levels.alpha[1:] / levels.alpha[:-1]
    mix[1:, :, 1] = ratio[:, None]
    mix[1:, :, 2] = (levels.sigma[1:] - ratio * levels.sigma[:-1])[:, None]
    target = np.tile([0.0, 1.0], (n, 1))
    return tableau.Tableau(mix, target, levels[:-1], levels[0], levels[-1])

  grid = grids.from_logsnr(np.linspace(-4, 5, 9))
  z = jnp.linspace(-2, 2, 5)[:, None]
  run = lambda solver: tableau.sample(mix1d(), solver(grid), KEY, z.shape, z=z)
  np.testing.assert_allclose(run(mine), run(solvers.ddim), atol=1e-12)


def test_bad_calls_are_refused():
  table = solvers.ddim(flow_grid(3))
  run = lambda t=table, **kw: tableau.sample(mix1d(), t, KEY, (2, 1), **kw)
  for message, kw in (
    ("z has shape", dict(z=jnp.zeros((3, 1)))),
    ("every must be an integer >= 1", dict(every=0)),
    (
      "a padded tableau keeps no trajectory",
      dict(t=compose.pad(table, 5, 2), trajectory=lambda *a: a),
    ),
  ):
    with pytest.raises(ValueError, match=message):
      run(**kw)
  with pytest.raises(TypeError, match="predict must be callable"):
    tableau.sample(3.0, table, KEY, (2, 1))
  cleaner, noisier = solvers.ddim(flow_grid(4)[:3]), solvers.ddim(flow_grid(4))
  with pytest.raises(ValueError, match="starts at logsnr"):
    compose.join(cleaner, noisier.replace(start=noisier.end))
