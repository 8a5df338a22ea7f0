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
from diffflow_jax import networks
from diffflow_jax.networks import layers
from diffflow_jax.process import forward_mode, levels, schedules, targets
from diffflow_jax.sampling import (
  compose,
  files,
  grids,
  introspection,
  solvers,
  tableau,
)
from diffflow_jax.store.compilation import quick

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
  """MATH 8.33, row by row."""
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


NETWORKS = dict(
  mlp=(networks.MLP, (2,), dict(width=16, depth=1)),
  unet=(networks.UNet, (4, 4, 1), dict(channels=(8,), num_blocks=1)),
  dit=(networks.DiT, (4, 4, 1), dict(width=8, depth=1, num_heads=1)),
)
LABEL = np.array([0, 2])


def made(name, **settings):
  """(network, z) of each of ours."""
  make, shape, small = NETWORKS[name]
  network = make(**small, **settings, num_classes=3)
  return network, jax.random.normal(KEY, (2, *shape))


def randomised(params):
  """Every number moved, zeros of the initialisation too."""
  draw = np.random.default_rng(0)
  moved = lambda leaf: leaf + 0.3 * draw.normal(size=leaf.shape)
  return jax.tree.map(lambda leaf: moved(leaf).astype(leaf.dtype), params)


def flat(tree):
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_denoiser_is_a_flow_map_with_new_parameters(name):
  old, z = made(name)
  new, _ = made(name, destination=True)
  assert new.destination and not old.destination
  logsnr, to = jnp.array([-jnp.inf, 0.5]), jnp.array([1.0, jnp.inf])
  first = quick(old.init)(KEY, z, logsnr, LABEL)
  both = quick(new.init)(KEY, z, logsnr, LABEL)
  added = flat(both).keys() - flat(first).keys()
  assert flat(first).keys() <= flat(both).keys() and len(added) == 2
  for path, leaf in flat(first).items():
    np.testing.assert_array_equal(leaf, flat(both)[path])
  # as a trained denoiser's, beside the new ones as they are made
  trained = flat(randomised(first))
  structure = jax.tree.structure(both)
  joined = structure.unflatten(
    [trained.get(path, leaf) for path, leaf in flat(both).items()]
  )
  before, apply = quick(old.apply), quick(new.apply)
  want = before(randomised(first), z, logsnr, LABEL)
  assert np.ptp(want) > 0.1
  for where in (logsnr, to):
    got = apply(joined, z, logsnr, LABEL, where)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
  # trained to go elsewhere, it is still itself at equal levels
  at = lambda to: apply(randomised(both), z, logsnr, LABEL, to)
  if name == "mlp":  # None is logsnr
    np.testing.assert_array_equal(at(logsnr), at(None))
  moved = randomised(both)
  moved["params"]["Conditioning_0"].pop("destination")
  want = before(moved, z, logsnr, LABEL)
  np.testing.assert_allclose(at(logsnr), want, rtol=2e-5, atol=2e-6)
  apart = at(to) - at(logsnr)
  assert np.isfinite(apart).all() and (np.abs(apart).max((1,)) > 1e-3).all()
  with pytest.raises(ValueError, match="made without destination=True"):
    old.apply(first, z, logsnr, LABEL, to)


@pytest.mark.parametrize("name", ["mlp", "dit"])
def test_its_forward_derivatives_are_differences(x64, name):
  """In the state and both levels at once; dit's through its attention."""
  network, z = made(name, level="angle", destination=True)
  s, t = jnp.array([-1.0, 0.5]), jnp.array([-1.0, 2.0])
  params = randomised(quick(network.init)(KEY, z, s, LABEL))
  out = lambda c, params: network.apply(
    params, z * (1 + c), s + 0.3 * c, LABEL, t - 0.2 * c
  )
  along = lambda params: jax.jvp(lambda c: out(c, params), (0.0,), (1.0,))[1]
  step, run = 1e-3, quick(out)  # the softmax is of float32
  want = (run(step, params) - run(-step, params)) / (2 * step)
  np.testing.assert_allclose(quick(along)(params), want, rtol=5e-3, atol=1e-3)
  if name == "mlp":  # and backwards through it, as some losses do
    loss = lambda params: jnp.sum(along(params) ** 2)
    slopes = flat(quick(jax.grad(loss))(params))
    assert all(np.any(g) for path, g in slopes.items() if "destination" in path)


def test_levels_that_are_infinite_have_finite_derivatives():
  network, z = made("mlp", level="angle", destination=True)
  s, t = jnp.array([-jnp.inf, 0.5]), jnp.array([jnp.inf, jnp.inf])
  params = randomised(quick(network.init)(KEY, z, s, LABEL))
  run = lambda s, t: network.apply(params, z, s, LABEL, t)
  ones = jnp.ones(2)
  out, slope = quick(lambda s, t: jax.jvp(run, (s, t), (ones, ones)))(s, t)
  assert np.isfinite(out).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("make", MAPS, ids=NAMES)
def test_a_table_tells_its_moments_and_weights_without_running(make):
  """Of the exact map: the law of the data, on every table."""
  grid = grids.from_logsnr(ENDS, levels.linear)
  table = make(grid)
  mean, var = introspection.gaussian_moments(table, M, C)
  np.testing.assert_allclose([mean, var], [M, C**2], rtol=1e-10)
  np.testing.assert_array_equal(table.step_of_row, [0, 1, 2, 3])
  weights = introspection.contributions(table)
  np.testing.assert_allclose(weights["kept"].sum(), 1.0, rtol=1e-10)
  assert weights["start"] == 0.0  # pure noise says nothing, the data all
  with pytest.raises(ValueError, match="has no order"):
    introspection.order_conditions(table)


def test_an_ordinary_gaussian_is_at_its_old_moments():
  """Written out: DDIM's recursion for N(0, C²), which is not exact."""
  grid = grids.from_logsnr([-2.0, 0.0, 2.0], levels.vp)
  v = (grid.alpha * C) ** 2 + grid.sigma**2
  gain = 1.0
  for i in range(2):
    x, e = grid.alpha[i] * C**2 / v[i], grid.sigma[i] / v[i]
    gain *= grid.alpha[i + 1] * x + grid.sigma[i + 1] * e
  got = introspection.gaussian_moments(solvers.ddim(grid), 0.0, C)[1]
  np.testing.assert_allclose(got, gain**2 * v[0], rtol=1e-12)
  assert abs(got / v[2] - 1.0) > 0.01


def test_tables_of_flow_maps_join_pad_and_go_into_files(x64, tmp_path):
  grid = grids.from_logsnr([-3.0, -1.0, 1.0, np.inf], levels.vp)
  z, want = start(grid), sample(Exact(), solvers.flow_map(grid), start(grid))
  run = lambda table: sample(Exact(), table, z)
  joined = compose.join(solvers.flow_map(grid[:2]), solvers.flow_map(grid[1:]))
  np.testing.assert_allclose(run(joined), want, rtol=1e-10)
  padded = compose.pad(solvers.flow_map(grid), 9, 3)
  np.testing.assert_allclose(run(padded), want, rtol=1e-10)
  files.save(tmp_path / "table.npz", joined)
  read = solvers.named(tmp_path / "table.npz")()
  np.testing.assert_array_equal(read.levels.to, joined.levels.to)
  np.testing.assert_allclose(run(read), want, rtol=1e-10)
  # beside an ordinary table: there it is told to stay, as a denoiser
  both = compose.join(solvers.ddim(grid[:2]), solvers.flow_map(grid[1:]))
  np.testing.assert_array_equal(both.levels.to, [-3.0, 1.0, np.inf])
  half = sample(dfj.closed_form.gaussian([M], C), solvers.ddim(grid[:2]), z)
  rest = sample(Exact(), solvers.flow_map(grid[1:]), jnp.asarray(half))
  np.testing.assert_allclose(run(both), rest, rtol=1e-10)
  # and restarts are exact, too: noise up, and the map down again
  again = compose.restart(grid, solvers.flow_map, 1, 3)
  moments = introspection.gaussian_moments(again, M, C)
  np.testing.assert_allclose(moments, [M, C**2], rtol=1e-10)


GRID = grids.from_logsnr([-2.0, 0.0, np.inf], levels.vp)
MAP = solvers.flow_map(GRID)


def knows(reaches, **kwargs):
  return of_target(
    targets.v, schedules.Cosine(), levels.vp, reaches=reaches, **kwargs
  )


@pytest.mark.parametrize(
  "predict,table,message",
  [
    (dfj.closed_form.gaussian([M], C), MAP, "predict is not told where it goe"),
    (dfj.Guided(dfj.closed_form.gaussian([M], C)), MAP, "is not told where"),
    (lambda z, lv, cond: (z, z), MAP, "is not told where it goes"),
    (knows("other"), solvers.ddim(GRID), "never taught to denoise"),
    (knows("data"), solvers.dpmpp_2m(GRID), "never taught to denoise"),
    (knows("data"), MAP, "to the data only, not to logsnr = 0"),
    (
      dfj.Guided(knows("any"), 3, 2.0),
      MAP,
      "not the guided map: guide what it is trained with",
    ),
  ],
)
def test_what_a_predictor_cannot_do_is_refused(predict, table, message):
  with pytest.raises(ValueError, match=message):
    tableau.sample(predict, table, KEY, (2, 1))


def test_what_it_can_do_is_not(x64):
  z = start(GRID)
  for predict, table in (
    (knows("other"), MAP),
    (knows("data"), solvers.flow_map(GRID, 1.0)),
    (knows("data"), solvers.flow_map(GRID[::2])),
    (dfj.guidance.Clipped(knows("any"), 9.0), MAP),
  ):
    assert np.isfinite(sample(predict, table, z, KEY)).all()
  lv = levels.at_logsnr(levels.vp, 0.0)
  for guided in (dfj.Guided, dfj.guidance.Measured):
    with pytest.raises(ValueError, match="guidance is of predictions at one"):
      guided(knows("any"), 0.0, 2.0)(z, lv.replace(to=jnp.asarray(1.0)))
    predict = guided(knows("any"), 0, 1.0)
    assert predict.prepare(lv.replace(to=lv.logsnr))


@pytest.mark.parametrize(
  "make,message",
  [
    (
      lambda: solvers.flow_map(GRID, 1.5),
      r"gamma must be in \[0, 1\], not 1.5",
    ),
    (lambda: solvers.flow_map(GRID, [0.1, -1]), "gamma of step 1 must be in"),
    (lambda: solvers.flow_map_tcd(GRID, -0.1), r"gamma must be in \[0, 1\]"),
    (lambda: solvers.flow_map_ddim(GRID, 3.0), "eta must be between 0 and"),
    (lambda: solvers.flow_map(grids.reverse(GRID)), "from noise to data"),
    (lambda: knows("everything"), "reaches must be one of any, other, data"),
    (
      lambda: tableau.check(MAP.replace(levels=MAP.levels.replace(to=0.0))),
      r"levels.to of a tableau must have shape \(2,\)",
    ),
    (
      lambda: tableau.check(
        MAP.replace(levels=MAP.levels.replace(to=np.array([0.0, np.nan])))
      ),
      "levels.to of a tableau must not be NaN",
    ),
  ],
)
def test_bad_numbers_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_attention_falls_back_where_a_forward_derivative_is_taken(
  monkeypatch, caplog
):
  """cuDNN's is asked for elsewhere, and is none of a CPU's."""
  monkeypatch.setattr(layers, "has_flash_attention", lambda *_: True)
  layers._say_that_it_is_left_out.cache_clear()
  q = jax.random.normal(KEY, (1, 4, 2, 8))
  asked = []
  real = jax.nn.dot_product_attention
  monkeypatch.setattr(
    jax.nn,
    "dot_product_attention",
    lambda *args, implementation, **kwargs: (
      asked.append(implementation) or real(*args, **kwargs)
    ),
  )
  attend = lambda q: layers.attend(q, q, q)
  for _ in range(2):
    _, slope = forward_mode.jvp(attend, (q,), (q,))
  attend(q)
  jax.grad(lambda q: attend(q).sum())(q)
  assert asked == ["xla", "xla", "cudnn", "cudnn"]
  want = (attend(q * 1.001) - attend(q * 0.999)) / 0.002
  np.testing.assert_allclose(slope, want, atol=1e-3)
  said = [r.message for r in caplog.records if "forward-mode" in r.message]
  assert len(said) == 1


@pytest.mark.parametrize("name", ["mean_flow", "lagrangian", "continuous_con"])
def test_losses_say_that_they_take_one(monkeypatch, name):
  """Traced only: the fused kernel is asked for where nothing goes forwards."""
  asked = []
  monkeypatch.setattr(layers, "has_flash_attention", lambda *_: True)
  monkeypatch.setattr(
    jax.nn,
    "dot_product_attention",
    lambda q, k, v, implementation, **_: asked.append(implementation) or v,
  )
  network, x = made("dit", destination=True)
  objective = dfj.objectives.flow_matching()
  s, t = jnp.array([-1.0, 0.5]), jnp.array([1.0, 0.5])
  loss, at = {
    "mean_flow": (dfj.flow_maps.mean_flow_at, (s, t)),
    "lagrangian": (dfj.flow_maps.lagrangian_at, (s, t)),
    "continuous_con": (dfj.flow_maps.continuous_consistency_at, (s,)),
  }[name]
  params = jax.eval_shape(network.init, KEY, x, s, LABEL)
  asked.clear()
  jax.eval_shape(
    lambda params: (
      loss(objective, network.apply, params, x, x, *at, LABEL).loss
    ),
    params,
  )
  assert "xla" in asked
  asked.clear()
  jax.eval_shape(network.apply, params, x, s, LABEL, t)
  assert set(asked) == {"cudnn"}
