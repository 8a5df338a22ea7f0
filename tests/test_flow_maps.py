"""Flow maps as rows, exact maps, level pairs, and what training tends to:
MATH.md 8.1 to 8.20, 8.27 and 8.28."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax.objective import densities, flow_maps as F, objectives
from diffflow_jax.objective.flow_maps import pairs
from diffflow_jax.process import (
  closed_form,
  flow_maps as rows,
  gaussians,
  levels,
  schedules,
  targets,
)
from tests import flow_maps as known
from tests.tables import mix1d

FLOW = schedules.Flow()
Z = np.linspace(-1.5, 1.8, 7)[:, None]
SCALES = {"vp": levels.vp, "ve": levels.ve, "linear": levels.linear}
TIMES = (0.7, 0.55, 0.3)


@known.quick
def _flow(law, z, start, end):
  """The exact map of a law, compiled once."""
  return law.flow(z, start, end)


@known.quick
def _told(law, z, lv):
  return closed_form.flow_map(law)(z, lv)


def _levels(scale, times=TIMES):
  return [levels.level(FLOW, scale, time) for time in times]


def _maps(scale, times=TIMES):
  """z at s, the exact Φ at m and t, and the three levels, on a scale."""
  s, m, t = _levels(scale, times)
  z = Z * np.hypot(s.alpha, s.sigma)
  mix = mix1d()
  return z, _flow(mix, z, s, m), _flow(mix, z, s, t), s, m, t


@pytest.mark.parametrize("scale", SCALES)
def test_a_flow_map_is_a_row_with_two_levels(scale, x64):
  """MATH 8.1, 8.2 and 8.5: X and E, and the step of every row."""
  z, _, phi, s, _, t = _maps(SCALES[scale])
  x, eps = rows.effective(z, phi, s, t)
  np.testing.assert_allclose(s.alpha * x + s.sigma * eps, z, atol=1e-12)
  np.testing.assert_allclose(t.alpha * x + t.sigma * eps, phi, atol=1e-12)
  delta = t.alpha * s.sigma - s.alpha * t.sigma
  np.testing.assert_allclose(rows.gap(s, t), delta, rtol=1e-12)
  # X and E are those of every other scale
  flow_z = z / (s.alpha + s.sigma)
  there = rows.flow_level(s.logsnr).replace(to=t.logsnr)
  flow = _told(mix1d(), flow_z, there)
  np.testing.assert_allclose(x, flow[0], atol=1e-10)
  np.testing.assert_allclose(eps, flow[1], atol=1e-10)
  for name, target in targets.TARGETS.items():
    y = targets.from_x_eps(target, x, eps, s)
    back = targets.to_x_eps(target, y, z, s)
    np.testing.assert_allclose(back, (x, eps), atol=1e-10)
    moved = rows.step(target, y, z, s, t)
    np.testing.assert_allclose(moved, phi, atol=1e-11, err_msg=name)
    still = rows.step(target, y, z, s, s)
    np.testing.assert_array_equal(still, z)


def test_consistency_models_row_has_a_destination(x64):
  """MATH 8.17: Song's c_skip and c_out with a destination of noise end."""
  end, data = 0.05, 0.5
  for sigma in (0.06, 0.7, 20.0):
    s, t = levels.from_pair(1.0, sigma), levels.from_pair(1.0, end)
    c_skip = data**2 / ((sigma - end) ** 2 + data**2)
    c_out = data * (sigma - end) / np.sqrt(sigma**2 + data**2)
    scale = np.sqrt(sigma**2 + data**2) / (
      data * ((sigma - end) ** 2 + data**2)
    )
    a, b = scale * (sigma - end), scale * (end * (sigma - end) - data**2)
    row = lambda lv, a=a, b=b: (a, b)
    got = rows.step(row, 0.3, np.float64(1.7), s, t)
    np.testing.assert_allclose(got, c_skip * 1.7 + c_out * 0.3, rtol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_two_legs_are_one(scale, x64):
  """MATH 8.7, with one weight for each row; 8.3's mean of u."""
  z, middle, phi, s, m, t = _maps(SCALES[scale])
  first = rows.effective(z, middle, s, m)
  second = rows.effective(middle, phi, m, t)
  want = rows.effective(z, phi, s, t)
  got = rows.compose(first, second, s, m, t)
  np.testing.assert_allclose(got, want, atol=1e-11)
  w = rows.weights(s.logsnr, m.logsnr, t.logsnr)
  gap = lambda a, b: b.alpha * a.sigma - a.alpha * b.sigma
  plain = gap(s, m) / gap(s, t)
  np.testing.assert_allclose(w[0], t.sigma / m.sigma * plain, rtol=1e-11)
  np.testing.assert_allclose(w[1], t.alpha / m.alpha * plain, rtol=1e-11)
  np.testing.assert_allclose(w[2], (0.7 - 0.55) / (0.7 - 0.3), rtol=1e-11)
  # the mean of dz/dt, which the row u of (X, E) is off the linear scale not
  row = rows.mean_row(FLOW, t)
  mean = targets.from_x_eps(row, *want, s)
  np.testing.assert_allclose(mean, (z - phi) / (0.7 - 0.3), atol=1e-10)
  np.testing.assert_allclose(
    targets.determinant(row, s), rows.gap(s, t) / 0.4, rtol=1e-10
  )
  np.testing.assert_allclose(rows.mean_row(FLOW, s)(s), targets.u(s))
  u = targets.from_x_eps(targets.u, *want, s)
  assert (np.abs(u - mean).max() > 1e-2) == (scale != "linear")


def test_weights_are_finite_at_both_ends():
  """MATH 8.7: w_X = 0 to the data, w_E = 1 from pure noise."""
  inf = jnp.inf
  for s, m, t, want in (
    (-inf, 0.0, inf, (0.0, 1.0, 0.5)),
    (-inf, -inf, inf, (0.0, 0.0, 0.0)),
    (-inf, inf, inf, (1.0, 1.0, 1.0)),
    (-inf, 0.0, 0.0, (1.0, 1.0, 1.0)),
    (0.0, 0.0, 0.0, (1.0, 1.0, 1.0)),
    (inf, inf, inf, (1.0, 1.0, 1.0)),
    (-inf, -inf, -inf, (1.0, 1.0, 1.0)),
  ):
    np.testing.assert_allclose(rows.weights(s, m, t), want, atol=1e-7)


@pytest.mark.parametrize("scale", SCALES)
def test_both_ends_are_exact(scale, x64):
  """MATH 8.6: X is Φ at the data; E is z/sigma from pure noise."""
  mix, data = mix1d(), levels.from_pair(1.0, 0.0)
  s = levels.level(FLOW, SCALES[scale], 0.4)
  x0 = _flow(mix, Z, s, data)
  np.testing.assert_allclose(rows.effective(Z, x0, s, data)[0], x0, atol=1e-12)
  if scale != "ve":
    pure = levels.level(FLOW, SCALES[scale], 1.0)
    phi = _flow(mix, Z, pure, s)
    x, eps = rows.effective(Z, phi, pure, s)
    np.testing.assert_allclose(eps, Z, atol=1e-12)
    np.testing.assert_allclose(x, (phi - s.sigma * Z) / s.alpha, atol=1e-11)
    for name in ("x", "v", "u", "flow", "F"):
      y = targets.from_x_eps(targets.TARGETS[name], x, eps, pure)
      got = rows.step(targets.TARGETS[name], y, Z, pure, s)
      np.testing.assert_allclose(got, phi, atol=1e-11)
    for name in ("eps", "score"):
      with pytest.raises(ValueError, match=f"target {name} cannot start"):
        rows.step(targets.TARGETS[name], Z, Z, pure, s)


def test_the_equations_of_the_map(x64):
  """MATH 8.8, 8.9 and 8.10: ū's slopes in t and in s give the field."""
  mix = mix1d()
  z, (s, t) = jnp.asarray(Z), (FLOW.logsnr(0.7), FLOW.logsnr(0.3))
  each = [jnp.full(7, one) for one in (s, t)]

  def velocity(z, s, t):
    x, eps = mix.effective(z, rows.flow_level(s), t)
    return eps - x

  def field(z, logsnr):
    x, eps = mix(z, rows.flow_level(logsnr))
    return eps - x

  @known.quick
  def both(z, s, t):
    eulerian = rows.eulerian(velocity, z, s, t, field(z, s))
    return *eulerian, *rows.lagrangian(velocity, z, s, t)

  u_bar, along, same, at_end = both(z, *each)
  np.testing.assert_allclose(u_bar, same, atol=1e-14)
  phi = rows.flow_step(u_bar, z, s, t)
  want = _flow(mix, z, rows.flow_level(s), rows.flow_level(t))
  np.testing.assert_allclose(phi, want, atol=1e-12)
  np.testing.assert_allclose(u_bar + along, field(z, s), atol=1e-11)
  np.testing.assert_allclose(u_bar - at_end, field(phi, t), atol=1e-11)


COVARIANCE = np.array([[0.5, 0.2], [0.2, 0.3]])


def test_exact_maps_agree_with_the_ode_and_with_each_other(x64):
  """MATH 8.4, 8.6, 9.3 and 9.4: closed forms, and the ODE of what has none.

  Two components apart along one axis are a mixture there, and a normal law
  across, in two dimensions; E - X is the mean of ε̂ - x̂ along the way.
  """
  z = np.linspace(-1.3, 1.1, 10).reshape(5, 2)
  normal = gaussians.gaussian([0.3, -0.2], COVARIANCE)
  line = closed_form.mixture([0.4, 0.6], [[-1.0], [0.8]], 0.4)
  plane = closed_form.mixture([0.4, 0.6], [[-1.0, 0.0], [0.8, 0.0]], 0.4)
  across = closed_form.gaussian([0.0], 0.4)

  @known.quick
  def solved(z, lv):
    hidden = lambda z, lv, cond=None: normal(z, lv)
    return [closed_form.flow_map(law)(z, lv) for law in (hidden, plane)]

  for start in (-np.inf, -1.2, 0.4):
    for end in (0.4, 0.40001, 3.0, np.inf):
      s, t = (levels.at_logsnr(levels.vp, one) for one in (start, end))
      told = s.replace(to=t.logsnr)
      by_ode, of_plane = solved(z, told)
      got = closed_form.flow_map(normal)(z, told)
      np.testing.assert_allclose(got, by_ode, atol=2e-8)
      phi = t.alpha * got[0] + t.sigma * got[1]
      np.testing.assert_allclose(phi, normal.flow(z, s, t), atol=1e-13)
      parts = [
        _told(law, z[:, i : i + 1], told)
        for i, law in enumerate((line, across))
      ]
      want = [np.hstack(two) for two in zip(*parts, strict=True)]
      np.testing.assert_allclose(of_plane, want, atol=2e-8)
    still = closed_form.flow_map(normal)(z, s)
    np.testing.assert_allclose(still, normal(z, s), atol=1e-13)


def test_exact_maps_keep_the_contract(x64):
  """Equal levels are the law itself, of any scale; arrays of levels."""
  mix = mix1d()
  assert dfj.closed_form.flow_map(mix).destination
  lv = levels.level(FLOW, levels.ve, jnp.asarray([0.2, 0.5, 0.9]))
  z = jnp.asarray([[-0.5], [0.3], [2.0]])
  np.testing.assert_allclose(_told(mix, z, lv), mix(z, lv), atol=1e-13)
  told = lv.replace(to=jnp.asarray([jnp.inf, 2.0, lv.logsnr[2]]))
  x, eps = _told(mix, z, told)
  alpha, sigma = lv.alpha[:, None], lv.sigma[:, None]
  np.testing.assert_allclose(alpha * x + sigma * eps, z, atol=1e-13)
  np.testing.assert_allclose(x[2], mix(z, lv)[0][2], atol=1e-13)
  one = jax.tree.map(lambda leaf: leaf[1], told)  # one level for all
  np.testing.assert_allclose(_told(mix, z, one)[0][1], x[1], atol=1e-12)
  with pytest.raises(TypeError, match="predict must be callable"):
    closed_form.flow_map(3)


# what training tends to, by students that are linear at each level


def _linear(grid):
  """apply of y = A z + B at each level of a grid, by its place in it."""
  times = rows.flow_level(jnp.asarray(grid)).sigma

  def apply(params, z, logsnr, cond, to):
    here = rows.flow_level(logsnr).sigma[:, None]
    at = jnp.argmin(jnp.abs(here - times), axis=1)
    return params[at, :1] * z + params[at, 1:]

  return apply


def _trained(loss, num):
  """The least of a quadratic loss, in one Newton step."""
  start = jnp.zeros((num, 2))

  @known.quick
  def solve():
    slope = jax.grad(loss)(start).ravel()
    curve = jax.hessian(loss)(start).reshape(2 * num, 2 * num)
    return start - jnp.linalg.lstsq(curve, slope)[0].reshape(num, 2)

  return solve()


def _progressive(objective, apply, teacher, x, eps, three, params):
  return F.progressive_distillation_at(
    objective, apply, params, x, eps, *three, teacher=teacher
  ).loss.mean()


@pytest.mark.parametrize("recipe", ["v_diffusion", "flow_matching"])
def test_a_linear_student_is_its_teacher_in_half_the_steps(recipe, x64):
  """MATH 8.14 and 8.16: 8 -> 4 -> 2 -> 1 steps of DDIM, with both ends."""
  objective = objectives.make(recipe)
  law = closed_form.gaussian([0.4], 0.6)

  @known.quick
  def ddim(predict, grid):
    state = jnp.asarray([[-1.0], [0.7], [1.6]])
    for s, t in itertools.pairwise(grid):
      here, there = (levels.at_logsnr(objective.scale, one) for one in (s, t))
      x, eps = predict(state, here.replace(to=t), None)
      state = there.alpha * x + there.sigma * eps
    return state

  grid = pairs.uniform_grid(objective.schedule, 8)
  assert grid[0] == -jnp.inf and grid[-1] == jnp.inf
  teacher, want = law, ddim(law, grid)
  while len(grid) > 2:
    s, m, t = grid[:-2:2], grid[1::2], grid[2::2]
    num = len(s)
    each = lambda one: jnp.repeat(one, 3)
    x = jnp.tile(jnp.asarray([[-0.5], [0.2], [1.1]]), (num, 1))
    eps = jnp.tile(jnp.asarray([[0.3], [-1.2], [0.8]]), (num, 1))
    apply, three = _linear(s), (each(s), each(m), each(t))
    loss = functools.partial(
      _progressive, objective, apply, teacher, x, eps, three
    )
    params = _trained(loss, num)
    assert loss(params) < 1e-20
    grid = grid[::2]
    teacher = dfj.predictor(objective, apply, params, destination=True)
    np.testing.assert_allclose(ddim(teacher, grid), want, atol=1e-10)
  z = jnp.asarray([[-1.0], [0.7], [1.6]])
  exact = law.flow(z, *(levels.at_logsnr(levels.vp, end) for end in grid))
  assert np.abs(want - exact).max() > 1e-3  # the first teacher's own error


def test_one_round_of_reflow_makes_a_gaussian_straight(x64):
  """MATH 8.11 and 8.12: one Euler step from any level is exact, on any row."""
  law = closed_form.gaussian([0.4], 0.6)
  eps = jnp.linspace(-1.5, 1.5, 4)[:, None]
  pure, data = rows.flow_level(-jnp.inf), rows.flow_level(jnp.inf)
  x = law.flow(eps, pure, data)
  both = jnp.tile(x, (2, 1)), jnp.tile(eps, (2, 1))
  for recipe in ("v_diffusion", "flow_matching"):
    objective = objectives.make(recipe)
    grid = objective.schedule.logsnr(jnp.asarray([1.0, 0.6]))
    apply = _linear(grid)
    at = (objective, apply), (*both, jnp.repeat(grid, 4))
    loss = lambda params, at=at: F.reflow_at(*at[0], params, *at[1]).loss.mean()
    params = _trained(loss, 2)
    assert loss(params) < 1e-20
    predict = dfj.predictor(objective, apply, params, destination=True)
    for logsnr in grid:
      lv = levels.at_logsnr(objective.scale, logsnr)
      z = lv.alpha * x + lv.sigma * eps
      np.testing.assert_allclose(predict(z, lv)[0], x, atol=1e-10)


def test_reflow_of_a_mixture_is_straight_and_keeps_its_law(x64):
  """MATH 8.11 and 8.12: the defect falls to 0 in one round, in one dimension.

  S = ∫ E‖(z_1 - z_0) - u‖² dt; the ends' moments are those of the mixture.
  """
  mix = closed_form.mixture([0.4, 0.6], [[-1.0], [0.8]], 0.35)
  nodes = np.linspace(-8.0, 8.0, 4001)
  weight = np.exp(-0.5 * nodes**2)
  weight /= weight.sum()
  eps = jnp.asarray(nodes)[:, None]
  pure, data = rows.flow_level(-jnp.inf), rows.flow_level(jnp.inf)
  x = np.asarray(_flow(mix, eps, pure, data))
  w, m = np.exp(mix.log_weights), np.asarray(mix.means)[:, 0]
  var = np.asarray(mix.stds) ** 2
  mean = lambda values: weight @ np.asarray(values)[:, 0]
  np.testing.assert_allclose(mean(x), w @ m, atol=1e-8)
  np.testing.assert_allclose(mean(x**2), w @ (m**2 + var), atol=1e-8)
  want = w @ (np.exp(-0.5 * var) * np.cos(m))
  np.testing.assert_allclose(mean(np.cos(x)), want, atol=1e-8)
  # before: along the trajectories of the law's own field
  defect = 0.0
  times, share = np.polynomial.legendre.leggauss(8)
  for time, one in zip(0.5 + 0.5 * times, 0.5 * share, strict=True):
    lv = levels.level(FLOW, levels.linear, time)
    x_hat, eps_hat = mix(_flow(mix, eps, pure, lv), lv)
    defect += one * mean((eps - x - (eps_hat - x_hat)) ** 2)
    # after: z says which pair it is of, so that u is eps - x itself
    z = np.asarray((1 - time) * x + time * eps)[:, 0]
    assert np.all(np.diff(z) > 0)
  assert defect > 1e-2
  # and the transport costs less than with eps and x independent
  assert mean((eps - x) ** 2) < 1.0 + mean(x**2)


# laws of level pairs


def test_two_times_are_the_noisier_and_the_cleaner(x64):
  """MATH 8.27: (max, min) of two draws, t = s for the rest."""
  key, num = jax.random.key(3), 20_000
  density = densities.uniform_time(objectives.make("flow_matching"))
  s, t = (
    np.asarray(FLOW.t(one)) for one in pairs.two_times(key, density, num, 1.0)
  )
  assert np.all(s >= t)
  assert abs(np.mean(s - t) - 1 / 3) < 4 * 0.236 / np.sqrt(num)
  assert abs(np.mean(s < 0.5) - 0.25) < 0.02
  s, t = pairs.two_times(key, density, num, 0.25)
  assert abs(np.mean(s < t) - 0.25) < 1e-3
  with pytest.raises(ValueError, match="share must be in"):
    pairs.two_times(key, density, 8, 1.5)
  s, t = pairs.two_times(key, density, num, 1.0)
  m = pairs.between(key, FLOW, s, t)
  assert np.all((s <= m) & (m <= t))
  part = (FLOW.t(s) - FLOW.t(m)) / (FLOW.t(s) - FLOW.t(t))
  assert abs(np.mean(part) - 0.5) < 0.01


def test_neighbours_on_a_growing_grid_are_improved_consistencys(x64):
  """MATH 8.19: P(σ_i) is log-normal mass, and N(k) doubles 11, 21, … 1281."""
  num_levels, num = 11, 40_000
  s, t = pairs.adjacent(jax.random.key(0), num, num_levels)
  low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
  sigma = (low + np.arange(num_levels) / 10 * (high - low)) ** 7
  np.testing.assert_allclose(
    np.exp(-0.5 * pairs.karras_grid(num_levels)), sigma[::-1], rtol=1e-10
  )
  i = np.argmin(np.abs(np.exp(-0.5 * np.asarray(t))[:, None] - sigma), axis=1)
  np.testing.assert_allclose(np.exp(-0.5 * t), sigma[i], rtol=1e-10)
  np.testing.assert_allclose(np.exp(-0.5 * s), sigma[i + 1], rtol=1e-10)
  mass = np.diff(jax.scipy.special.ndtr((np.log(sigma) + 1.1) / 2.0))
  share = np.bincount(i, minlength=10) / num
  np.testing.assert_allclose(share, mass / mass.sum(), atol=1e-4)
  steps = range(0, 400_000, 50_000)
  found = [int(pairs.num_levels_at(k, 400_000)) for k in steps]
  assert found == [11, 21, 41, 81, 161, 321, 641, 1281]
  traced = jax.jit(lambda n: pairs.adjacent(jax.random.key(0), num, n))
  np.testing.assert_allclose(traced(11), (s, t))


def test_the_grid_stays_whole_however_far_a_run_is_extended():
  """N(k) = 1281 from K on: 10 · 2^28 is more than int32 holds."""
  found = [int(pairs.num_levels_at(k, 8)) for k in (8, 28, 30, 10**6)]
  assert found == [1281] * 4


def test_easy_pairs_begin_as_denoising_and_close(x64):
  """MATH 8.20: r = 0 up to σ = ln 7 at stage 0, half the gap a stage."""
  key, num = jax.random.key(1), 1000
  s, t = pairs.easy(key, num, 0)
  sigma = np.exp(-0.5 * np.asarray(s))
  np.testing.assert_array_equal(np.isinf(t), sigma <= np.log(7.0))
  ratio = lambda stage: np.asarray(
    1.0 - np.exp(-0.5 * (pairs.easy(key, num, stage)[1] - s))
  )
  want = 2.0**-5 * (1 + 8 / (1 + np.exp(sigma)))
  np.testing.assert_allclose(ratio(4), want, rtol=1e-9)
  np.testing.assert_allclose(ratio(5), 0.5 * want, rtol=1e-9)


def test_steps_of_students_and_shortcuts(x64):
  """MATH 8.16 and 8.28: the teacher's grid in twos; powers of ½ in twos."""
  grid = pairs.uniform_grid(FLOW, 8)
  s, m, t = (FLOW.t(one) for one in pairs.halves(jax.random.key(0), grid, 400))
  np.testing.assert_allclose(s - m, 1 / 8, atol=1e-12)
  np.testing.assert_allclose(m - t, 1 / 8, atol=1e-12)
  places, counts = np.unique(np.round(np.asarray(s) * 4, 9), return_counts=True)
  np.testing.assert_array_equal(places, [1, 2, 3, 4])
  np.testing.assert_array_equal(counts, 100)
  for steps in (1, 7):
    with pytest.raises(ValueError, match=f"must be even, not {steps}"):
      pairs.halves(jax.random.key(0), pairs.uniform_grid(FLOW, steps), 4)
  drawn = pairs.dyadic(jax.random.key(0), FLOW, 700, finest=128)
  s, m, t = (np.asarray(FLOW.t(one)) for one in drawn)
  np.testing.assert_allclose(s - m, m - t, atol=1e-12)
  sizes, counts = np.unique(np.round(np.log2(s - t), 6), return_counts=True)
  np.testing.assert_array_equal(sizes, np.arange(-6, 1))
  np.testing.assert_array_equal(counts, 100)
  whole = s / (s - t)
  np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
  with pytest.raises(ValueError, match="power of 2"):
    pairs.dyadic(jax.random.key(0), FLOW, 4, finest=100)


def test_strengths_are_log_uniform(x64):
  """MATH 8.27: density ∝ 1/w on [1, 8]."""
  w = np.asarray(pairs.strengths(jax.random.key(0), 1000))
  places = np.sort(np.log(w) / np.log(8.0))
  np.testing.assert_allclose(places, (np.arange(1000) + 0.5) / 1000, atol=1e-3)


def test_weights_of_single_examples_are_gradients_of_their_potentials(x64):
  """MATH 8.27: error/sg(error + c)^p, and 8.22's norm and warm-up."""
  e = 0.37
  for power in (0.0, 0.5, 0.75, 1.0):
    slope = jax.grad(F.stabilisers.adaptive(power))(e)
    np.testing.assert_allclose(slope, (e + 1e-3) ** -power, rtol=1e-12)
  g = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
  rms = np.sqrt(12.5)
  got = F.stabilisers.normalised(g)
  np.testing.assert_allclose(got[0], np.array([3.0, 4.0]) / (rms + 0.1))
  np.testing.assert_array_equal(got[1], 0.0)
  assert [float(F.stabilisers.warmed_up(k)) for k in (0, 5000, 20000)] == [
    0.0, 0.5, 1.0
  ]  # fmt: skip


# every loss with levels and noise of its own


def _small(params, z, logsnr, cond, to):
  tell = jnp.tanh(
    0.1 * jnp.stack([jnp.clip(logsnr, -9, 9), jnp.clip(to, -9, 9)])
  )
  return params["w"] * z + params["b"] * tell.sum(axis=0)[:, None]


X = np.array([[0.3, -1.0], [1.2, 0.4], [0.0, 0.9], [-0.8, 0.1]], np.float32)
KEYWORDS = {
  "reflow": lambda teacher: dict(eps=X[::-1]),
  "knowledge_distillation": lambda teacher: dict(eps=X[::-1]),
  "progressive_distillation": lambda teacher: dict(
    teacher=teacher, grid=pairs.uniform_grid(FLOW, 4)
  ),
  "consistency_training": lambda teacher: dict(
    levels=lambda key, num: pairs.adjacent(key, num, 11)
  ),
  "consistency_distillation": lambda teacher: dict(
    levels=lambda key, num: pairs.adjacent(key, num, 11), teacher=teacher
  ),
  "improved_consistency": lambda teacher: dict(num_levels=11),
  "easy_consistency": lambda teacher: dict(stage=0),
  "continuous_consistency": lambda teacher: dict(teacher=teacher),
  "mean_flow": lambda teacher: dict(share=0.75, power=1.0),
  "improved_mean_flow": lambda teacher: {},
  "shortcut": lambda teacher: dict(share=0.5),
  "split_mean_flow": lambda teacher: {},
  "progressive_map": lambda teacher: dict(teacher=teacher),
  "lagrangian": lambda teacher: dict(teacher=teacher),
  "eulerian": lambda teacher: dict(teacher=teacher),
  "guidance_distillation": lambda teacher: dict(teacher=teacher),
}


@pytest.mark.parametrize("name", KEYWORDS)
def test_losses_draw_their_own_levels(name):
  """(batch,) of finite numbers and a gradient, in float32 and under jit."""
  objective = objectives.make("edm" if "consist" in name else "flow_matching")
  teacher = closed_form.gaussian([0.1, 0.2], 0.7)
  loss, how = getattr(dfj.flow_maps, name), KEYWORDS[name](teacher)
  params = {"w": jnp.float32(0.3), "b": jnp.float32(-0.2)}

  def mean(params):
    terms = loss(objective, _small, params, jax.random.key(0), X, **how)
    return terms.loss.mean(), terms

  (value, terms), slope = jax.jit(jax.value_and_grad(mean, has_aux=True))(
    params
  )
  for one in (terms.loss, terms.eps_mse, terms.logsnr):
    assert one.shape == (4,) and one.dtype == jnp.float32
  for one in (value, terms.eps_mse, *slope.values()):
    assert np.all(np.isfinite(one))
  assert any(abs(float(one)) > 1e-6 for one in slope.values())


def test_pairs_beyond_the_schedules_cleanest_level_say_nothing():
  """A schedule that ends above the grid's least noise: 0 there, and no NaN."""
  objective = objectives.make("ncsn")  # sigma_min = 0.01
  s, m, t = jnp.asarray([[9.2, 3.0], [9.2, 4.0], [9.2, 9.2]])

  def mean(w, loss):
    params = {"w": w, "b": jnp.float32(0.1)}
    terms = loss(objective, _small, params, X[:2], X[2:], s, m, t)
    return terms.loss.sum(), terms.loss

  for loss in (F.improved_consistency_at, F.easy_consistency_at):
    slope, terms = jax.grad(mean, has_aux=True)(jnp.float32(0.3), loss)
    assert np.isfinite(slope) and np.all(np.isfinite(terms))
    assert terms[0] == 0.0 and terms[1] > 0.0


def test_a_dictionary_of_mistakes():
  """One sentence each."""
  objective = objectives.make("flow_matching")
  at = (objective, _small, {"w": 1.0, "b": 0.0})
  key, s, t = jax.random.key(0), jnp.zeros(4), jnp.ones(4)
  with pytest.raises(ValueError, match="noise to data"):
    F.mean_flow_at(*at, X, X, t, s)
  with pytest.raises(ValueError, match="one shape, but x has"):
    F.reflow(*at, key, X, eps=X[:2])
  with pytest.raises(ValueError, match="one shape, but x has"):
    F.knowledge_distillation(*at, key, X, eps=X[:, :1])
  with pytest.raises(ValueError, match="output has shape"):
    F.mean_flow_at(objective, lambda *a: jnp.zeros(3), {}, X, X, s, t)
  with pytest.raises(ValueError, match="order must be 1"):
    F.consistency_distillation_at(
      *at, X, X, s, t, t, teacher=closed_form.gaussian([0.0, 0.0], 1.0), order=3
    )
  with pytest.raises(ValueError, match="target eps cannot start"):
    F.knowledge_distillation(
      objective.replace(target=targets.eps), *at[1:], key, X, eps=X
    )
  with pytest.raises(ValueError, match="share must be in"):
    F.shortcut(*at, key, X, share=2.0)
  with pytest.raises(TypeError, match="objective must be one"):
    F.mean_flow("flow_matching", *at[1:], key, X)
  with pytest.raises(TypeError, match="PRNG key"):
    F.mean_flow(*at, 0, X)


def _asked(cond=None, **how):
  at = objectives.make("flow_matching"), _small, {"w": 1.0, "b": 0.0}
  return F.mean_flow(*at, jax.random.key(0), X, cond, **how)


@pytest.mark.parametrize(
  "call, message",
  [
    (
      lambda: pairs.adjacent(jax.random.key(0), 4, 1),
      "num_levels must be >= 2",
    ),
    (lambda: pairs.karras_grid(1), "num must be an integer >= 2"),
    (lambda: pairs.uniform_grid(FLOW, 0), "num_steps must be an integer >= 1"),
    (lambda: pairs.num_levels_at(3, 0), "num_steps must be > 0"),
    (lambda: pairs.easy(jax.random.key(0), 4, -1), "stage must be >= 0"),
    (lambda: pairs.halves(jax.random.key(0), [0.0, 1.0], 4), "even, not 1"),
    (lambda: pairs.dyadic(jax.random.key(0), FLOW, 4, 8.5), "a power of 2"),
    (lambda: F.guidance.of_strength(1, 0.0), "strength must be > 0"),
    (lambda: _asked(guidance=2.0), "must be a Guidance"),
    (lambda: _asked(guidance=F.guidance.of_strength(1, 2.0)), "needs a cond"),
  ],
)
def test_what_no_loss_can_do_is_refused(call, message):
  with pytest.raises((TypeError, ValueError), match=message):
    call()


def test_levels_and_pairs_of_another_shape_are_refused():
  """In one sentence, and what sCM's tangent cannot be."""
  at = objectives.make("flow_matching"), _small, {"w": 1.0, "b": 0.0}
  s, t = jnp.zeros(4), jnp.ones(4)
  with pytest.raises(ValueError, match="one for each of 4 examples, but have"):
    F.mean_flow_at(*at, X, X, s[:3], t)
  with pytest.raises(ValueError, match="a pair must have one shape"):
    F.mean_flow_at(*at, X, X[:2], s, t)
  with pytest.raises(ValueError, match="warmup must be in"):
    F.continuous_consistency_at(*at, X, X, s, warmup=2.0)
  with pytest.raises(ValueError, match="norm must be > 0"):
    F.continuous_consistency_at(*at, X, X, s, norm=-1.0)


def test_a_flow_map_that_teaches_consistency_takes_its_own_step(x64):
  """Its answer from s to m is the whole step: no Heun with that to the data."""
  law = closed_form.gaussian([0.3, -0.2], 0.7)
  exact, objective = closed_form.flow_map(law), objectives.make("flow_matching")

  def apply(params, z, logsnr, cond, to):
    x, eps = exact(z, rows.flow_level(logsnr).replace(to=to))
    return eps - x

  s, m, t = (jnp.full(4, one) for one in (-2.0, 0.0, jnp.inf))
  terms = F.consistency_distillation_at(
    objective, apply, None, jnp.asarray(X, float), jnp.asarray(X[::-1], float),
    s, m, t, teacher=exact, order=2,
  )  # fmt: skip
  np.testing.assert_allclose(terms.loss, 0.0, atol=1e-20)


def test_consistency_by_hand_with_a_shadow_and_hubers_constant(x64):
  """MATH 8.18, 8.19 with ū = p z at s and q z at m, and the level of 8.29."""
  objective = objectives.make("flow_matching")
  apply = lambda p, z, logsnr, cond, to: p * z
  x, eps, p, q = jnp.asarray([[0.3]]), jnp.asarray([[-1.1]]), 0.4, -0.7
  s, m, t = 0.6, 0.4, 0.1
  each = [jnp.full(1, known.logsnr(time)) for time in (s, m, t)]
  at = lambda time: (1.0 - time) * 0.3 - time * 1.1
  share = (s - m) / (s - t)
  miss = lambda q: p * at(s) - share * -1.4 - (1.0 - share) * q * at(m)
  got = F.consistency_training_at(objective, apply, p, x, eps, *each, shadow=q)
  np.testing.assert_allclose(got.loss, miss(q) ** 2, rtol=1e-9)
  got = F.improved_consistency_at(objective, apply, p, x, eps, *each)
  r, c = (s - t) / (1.0 - t) * miss(p), 0.00054
  want = (np.sqrt(r**2 + c**2) - c) / (s / (1 - s) - m / (1 - m))
  np.testing.assert_allclose(got.loss, want, rtol=1e-9)
  terms = F.lagrangian_at(objective, apply, p, x, eps, each[0], each[2])
  np.testing.assert_array_equal(terms.logsnr, each[2])
