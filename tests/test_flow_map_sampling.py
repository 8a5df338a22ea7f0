"""Flow maps as predictors, networks and tables: MATH 8a and 8g.

Expected values are of Gaussian data N(m, c²), whose flow between two levels is

    z_t = alpha_t m + √(V_t/V_s) (z_s - alpha_s m),     V = alpha² c² + sigma²

written out here, on whatever scale.
"""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax.process import levels, schedules, targets
from diffflow_jax.sampling import grids, solvers, tableau

M, C = 0.7, 0.4
KEY = jax.random.key(0)
ENDS = [-np.inf, -1.0, 0.5, 3.0, np.inf]
MAPS = (
  lambda grid: solvers.flow_map(grid),
  lambda grid: solvers.flow_map(grid, 0.6),
  lambda grid: solvers.flow_map(grid, 1.0),
  lambda grid: solvers.flow_map_ddim(grid, 0.5),
  lambda grid: solvers.flow_map_ddim(grid, 1.0),
  lambda grid: solvers.flow_map_tcd(grid, 0.3, "flow"),
  lambda grid: solvers.flow_map_tcd(grid, 1.0),
)
NAMES = ("0", "ctm", "consistency", "ddim", "ddpm", "tcd", "tcd1")


def pair(logsnr):
  """(alpha, sigma) of unit length."""
  return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


def flowed(z, s, t):
  """Where the flow takes z on the unit circle: s, t (alpha, sigma) pairs."""
  spread = lambda p: np.hypot(p[0] * C, p[1])
  return t[0] * M + spread(t) / spread(s) * (z - s[0] * M)


@struct.dataclass
class Exact:
  """The exact flow map of N(M, C²), and its denoiser at equal levels."""

  destination = True

  def __call__(self, z, lv, cond=None):
    both = lambda logsnr: tuple(map(jnp.sqrt, (
      jax.nn.sigmoid(logsnr), jax.nn.sigmoid(-logsnr)
    )))  # fmt: skip
    to = lv.logsnr if lv.to is None else lv.to
    (a, s), (b, t) = both(lv.logsnr), both(to)
    big, small = jnp.hypot(a * C, s), jnp.hypot(b * C, t)
    w = z * jnp.hypot(a, s) / jnp.hypot(lv.alpha, lv.sigma) - a * M
    ratio = lambda up, down, limit: jnp.where(
      down > 0, up / jnp.where(down > 0, down, 1.0), limit
    )
    cross = s * b + a * t
    x = ratio(cross, s * small + t * big, a / big)
    e = ratio(cross, b * big + a * small, s / big)
    return M + C**2 * x / big * w, e / big * w


def sample(predict, table, z, key=None):
  return np.asarray(tableau.sample(predict, table, key, z=z))


def start(grid, num=5):
  """States on the grid's scale, of any spread."""
  z = M * grid.alpha[0] + np.linspace(-1.3, 1.7, num)[:, None] * grid.sigma[0]
  return jnp.asarray(z)


@pytest.mark.parametrize("scale", ["vp", "linear", "ve"])
@pytest.mark.parametrize("ends", ["inside", "both"])
def test_one_step_and_many_give_the_flow_on_any_grid(x64, scale, ends):
  inner = [[], [1.0], [-1.5, -1.0, 2.5], list(np.linspace(-2.5, 3.5, 12))]
  lo, hi = (-3.0, 4.0) if ends == "inside" or scale == "ve" else (
    -np.inf, np.inf
  )  # fmt: skip
  hi = np.inf if ends == "both" else hi
  for between in inner:
    grid = grids.from_logsnr([lo, *between, hi], levels.make(scale))
    z = start(grid)
    s, t = pair(lo), pair(hi)
    norm = np.hypot(grid.alpha, grid.sigma)
    want = norm[-1] * flowed(np.asarray(z) / norm[0], s, t)
    got = sample(Exact(), solvers.flow_map(grid), z)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def variance(table, told):
  """Of the samples, when each step goes exactly where the network is told.

  Independent of the predictor: the variance of alpha_t x̂ + k sigma_t ε̂ is that
  of the flow's end at `told`, on the scale of t, for ANY step of the flow.
  """
  place = lambda lv: (np.asarray(lv.alpha), np.asarray(lv.sigma))
  a, s = place(table.levels)
  v = (a[0] * C) ** 2 + s[0] ** 2
  ends = [
    *zip(a[1:], s[1:], strict=True),
    (table.end.alpha, table.end.sigma),
  ]
  for i, (alpha, sigma) in enumerate(ends):
    own = np.array([a[i], s[i]]) / np.hypot(a[i], s[i])
    go = pair(told[i])
    # the pair of the flow from own to go, as gains of z - alpha m
    gain = np.hypot(go[0] * C, go[1]) / np.hypot(own[0] * C, own[1])
    x, e = np.linalg.solve([own, go], [1.0, gain])
    keep = table.target[i, 1] / sigma if sigma else 0.0
    step = (alpha * x + keep * sigma * e) / np.hypot(a[i], s[i])
    v = step**2 * v + table.mix[i + 1, 0, -1] ** 2
  return v


@pytest.mark.parametrize("make", MAPS, ids=NAMES)
@pytest.mark.parametrize("scale", ["vp", "linear"])
def test_marginals_are_exact_at_any_step_told_the_right_level(make, scale):
  for logsnr in ([-2.0, 1.0], [-3.0, -0.5, 0.5, 3.0], ENDS):
    grid = grids.from_logsnr(logsnr, levels.make(scale))
    table = make(grid)
    with np.errstate(over="ignore"):
      got = variance(table, table.levels.to)
      want = (grid.alpha[-1] * C) ** 2 + grid.sigma[-1] ** 2
      np.testing.assert_allclose(got, want, rtol=1e-10)
      noisy = table.mix[1:, 0, -1] > 0
      if noisy.any():  # told t itself, the law is another
        wrong = variance(table, np.asarray(grid.logsnr)[1:])
        assert abs(wrong / want - 1.0) > 1e-3


@pytest.mark.parametrize("make", MAPS, ids=NAMES)
def test_samples_have_these_moments(x64, make):
  """The table as it runs: linear in z and each draw, so a few states tell."""
  grid = grids.from_logsnr([-2.5, -1.0, 1.0], levels.vp)
  table = make(grid)
  run = lambda z, noise: np.asarray(
    tableau.sample(Exact(), table, z=z, noise=noise)
  )
  rows = len(table.mix)
  z = jnp.asarray([[M * grid.alpha[0]], [M * grid.alpha[0] + 1.0]])
  still = run(z, np.zeros((rows, 2, 1)))
  np.testing.assert_allclose(still[0, 0], M * grid.alpha[-1], rtol=1e-12)
  v = (still[1, 0] - still[0, 0]) ** 2 * (
    (grid.alpha[0] * C) ** 2 + grid.sigma[0] ** 2
  )
  for i in range(rows):
    draw = np.zeros((rows, 2, 1))
    draw[i] = 1.0
    v += (run(z, draw)[0, 0] - still[0, 0]) ** 2
  want = (grid.alpha[-1] * C) ** 2 + grid.sigma[-1] ** 2
  np.testing.assert_allclose(v, want, rtol=1e-10)


def test_the_levels_that_the_network_is_told():
  grid = grids.from_logsnr([-2.0, 0.0, 3.0, np.inf], levels.vp)
  told = lambda table: np.asarray(table.levels.to)
  np.testing.assert_array_equal(told(solvers.flow_map(grid)), grid.logsnr[1:])
  np.testing.assert_array_equal(told(solvers.flow_map(grid, 1.0)), np.inf)
  kappa = -0.5 * np.log(1 - 0.6**2)
  np.testing.assert_allclose(
    told(solvers.flow_map(grid, 0.6)), grid.logsnr[1:] + 2 * kappa
  )
  h = 0.5 * np.diff(grid.logsnr)
  np.testing.assert_allclose(
    told(solvers.flow_map_ddim(grid)), grid.logsnr[1:] + 2 * h
  )
  ve = grids.from_sigma([4.0, 1.0, 0.5, 0.0], levels.ve)
  np.testing.assert_allclose(
    told(solvers.flow_map_tcd(ve, 0.3, "sigma")),
    [-2 * np.log(0.7), -2 * np.log(0.35), np.inf],
  )
  flow = grids.uniform_t(schedules.Flow(), levels.linear, 2)
  np.testing.assert_allclose(
    told(solvers.flow_map_tcd(flow, 0.3, "flow")),
    [2 * np.log(0.65 / 0.35), np.inf],
  )
  np.testing.assert_allclose(
    told(solvers.flow_map(grid, [0.0, 0.6, 0.0])),
    [0.0, 3.0 + 2 * kappa, np.inf],
  )


def of_target(target, schedule, scale, **kwargs):
  """The exact map as a network that predicts a row, and its Predictor."""

  def apply(params, z, logsnr, cond, to):
    lv = levels.at_logsnr(scale, logsnr, schedule)
    x, e = Exact()(z, lv.replace(to=to[:, None]).replace(
      logsnr=lv.logsnr[:, None], alpha=lv.alpha[:, None],
      sigma=lv.sigma[:, None],
    ))  # fmt: skip
    a, b = target(lv)
    return a[:, None] * x + b[:, None] * e

  kwargs = dict(destination=True) | kwargs
  return dfj.Predictor({}, schedule, apply, target, scale, **kwargs)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_every_row_gives_the_same_map_on_every_scale(x64, target):
  row = targets.TARGETS[target]
  start_is_noise = target not in ("eps", "score")
  lo = -np.inf if start_is_noise else -3.0
  want = {}
  for own in ("vp", "linear"):
    predict = of_target(row, schedules.Cosine(), levels.make(own))
    for scale in ("vp", "linear", "ve"):
      first = -3.0 if scale == "ve" else lo
      grid = grids.from_logsnr([first, 0.0, np.inf], levels.make(scale))
      z = start(grid)
      want = np.hypot(grid.alpha[-1], grid.sigma[-1]) * flowed(
        np.asarray(z) / np.hypot(grid.alpha[0], grid.sigma[0]),
        pair(first), pair(np.inf),
      )  # fmt: skip
      for part in (slice(None), slice(None, None, 2)):
        got = sample(predict, solvers.flow_map(grid[part]), z)
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)
  if not start_is_noise:
    grid = grids.from_logsnr([-np.inf, 0.0, np.inf], levels.vp)
    with pytest.raises(ValueError, match="says nothing of x"):
      sample(predict, solvers.flow_map(grid), start(grid))
    # an ordinary denoiser may start there
    sample(predict, solvers.ddim(grid), start(grid))


def test_at_equal_levels_it_is_a_denoiser(x64):
  """ddim, heun and all others run it; to = logsnr is to = None."""
  predict = of_target(targets.v, schedules.Cosine(), levels.vp)
  ordinary = dfj.closed_form.gaussian([M], C)
  grid = grids.from_logsnr([-3.0, 0.0, 1.0, np.inf], levels.linear)
  for make in (solvers.ddim, solvers.dpmpp_2m):
    np.testing.assert_allclose(
      sample(predict, make(grid), start(grid)),
      sample(ordinary, make(grid), start(grid)),
      rtol=1e-10,
    )
  lv = levels.at_logsnr(levels.vp, 0.3)
  z = jnp.ones((3, 1))
  for to in (lv.logsnr, jnp.full(3, 0.3)):
    for ours, own in zip(
      predict(z, lv.replace(to=to)), predict(z, lv), strict=True
    ):
      np.testing.assert_array_equal(ours, own)


def test_levels_beyond_the_trained_ones_are_the_nearest(x64):
  seen = []

  def apply(params, z, logsnr, cond, to):
    seen.append((np.asarray(logsnr), np.asarray(to)))
    return z

  schedule = schedules.LinearLogSNR(-5.0, 7.0)
  predict = dfj.Predictor(
    {}, schedule, apply, targets.x, levels.vp, destination=True
  )
  lv = levels.at_logsnr(levels.vp, -9.0)
  predict(jnp.ones((2, 1)), lv.replace(to=jnp.inf))
  predict(jnp.ones((2, 1)), lv.replace(to=jnp.asarray([1.0, 9.0])))
  np.testing.assert_allclose(seen[0], [[-5, -5], [7, 7]], rtol=1e-6)
  np.testing.assert_allclose(seen[1], [[-5, -5], [1, 7]], rtol=1e-6)


def condition_sets():
  """(network, shape, cond, its settings) of each of ours."""
  from diffflow_jax import networks

  label = np.array([0, 2])
  return dict(
    mlp=(networks.MLP, (2,), label, dict(width=16, depth=1, num_classes=3)),
    unet=(
      networks.UNet,
      (4, 4, 1),
      label,
      dict(channels=(8, 8), num_blocks=1, num_classes=3),
    ),
    dit=(
      networks.DiT,
      (4, 4, 1),
      label,
      dict(width=8, depth=2, num_heads=1, num_classes=3),
    ),
  )


def randomised(params):
  """Every number drawn, zeros of the initialisation too."""
  draw = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: jnp.asarray(
      leaf + 0.3 * draw.normal(size=leaf.shape), leaf.dtype
    ),
    params,
  )


@pytest.mark.parametrize("name", ["mlp", "unet", "dit"])
def test_a_denoiser_is_a_flow_map_with_new_parameters(name):
  make, shape, cond, settings = condition_sets()[name]
  old, new = make(**settings), make(**settings, destination=True)
  assert new.destination and not old.destination
  z = jax.random.normal(KEY, (2, *shape))
  logsnr, to = jnp.array([-jnp.inf, 0.5]), jnp.array([1.0, jnp.inf])
  first = jax.jit(old.init)(KEY, z, logsnr, cond)
  both = jax.jit(new.init)(KEY, z, logsnr, cond)

  def flat(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}

  added = flat(both).keys() - flat(first).keys()
  assert flat(first).keys() <= flat(both).keys() and len(added) == 2
  jax.tree.map(
    np.testing.assert_array_equal,
    flat(first),
    {k: v for k, v in flat(both).items() if k not in added},
  )
  # as a trained denoiser's, beside the new ones as they are made
  trained = flat(randomised(first))
  paths, structure = jax.tree_util.tree_flatten_with_path(both)
  joined = structure.unflatten(
    [trained.get(jax.tree_util.keystr(p), leaf) for p, leaf in paths]
  )
  want = jax.jit(old.apply)(randomised(first), z, logsnr, cond)
  assert np.ptp(want) > 0.1
  apply = jax.jit(new.apply)
  for where in (None, logsnr, to):
    got = apply(joined, z, logsnr, cond, where)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
  # trained to go elsewhere, it is still itself at equal levels
  moved = randomised(both)
  at = lambda to: apply(moved, z, logsnr, cond, to)
  np.testing.assert_array_equal(at(logsnr), at(None))
  apart = at(to) - at(None)
  assert np.isfinite(apart).all() and np.abs(apart).max() > 1e-2
  with pytest.raises(ValueError, match="made without destination=True"):
    old.apply(first, z, logsnr, cond, to)


@pytest.mark.parametrize("name", ["mlp", "unet", "dit"])
def test_its_derivatives_in_both_levels_are_differences(x64, name):
  """jvp, forwards and of a gradient, as MeanFlow takes it; attention too."""
  make, shape, cond, settings = condition_sets()[name]
  network = make(**settings, destination=True)
  z = jax.random.normal(KEY, (2, *shape))
  s, t = jnp.array([-1.0, 0.5]), jnp.array([-1.0, 2.0])
  params = randomised(jax.jit(network.init)(KEY, z, s, cond))
  out = lambda c, params=params: network.apply(
    params, z * (1 + c), s + 0.3 * c, cond, t - 0.2 * c
  )
  _, slope = jax.jit(lambda: jax.jvp(out, (0.0,), (1.0,)))()
  step, out = 1e-3, jax.jit(out)  # the softmax is of float32
  want = (out(step) - out(-step)) / (2 * step)
  np.testing.assert_allclose(slope, want, rtol=5e-3, atol=1e-3)
  loss = lambda params: jnp.sum(
    jax.jvp(lambda c: out(c, params), (0.0,), (1.0,))[1] ** 2
  )
  gradient = jax.jit(jax.grad(loss))(params)
  assert all(map(np.any, jax.tree.leaves(gradient["params"]["Conditioning_0"])))
