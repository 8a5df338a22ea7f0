"""Densities: MATH.md 3.3, 3.6 and 3.8."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import (
  densities,
  losses,
  objectives,
  uncertainty,
)
from tests.tables import LOGSNR, SCHEDULES

LAMBDA = np.linspace(-7.0, 9.0, 33)


def _adapted():
  """An adaptive density after some losses."""
  d = densities.adaptive(20, -8.0, 9.0, decay=0.9)
  logsnr = jnp.linspace(-7.9, 8.9, 200)
  loss = 1.0 + 5.0 * jnp.exp(-0.5 * (logsnr - 1.0) ** 2)
  return d.update(losses.Terms(loss, loss, logsnr))


DENSITIES = {
  **{f"uniform_t_{n}": densities.UniformTime(s) for n, s in SCHEDULES.items()},
  "normal": densities.Normal(1.0, 2.0),
  "log_normal": densities.log_normal(),
  "logit_normal": densities.logit_normal(0.5, 1.2),
  "mode": densities.mode(1.29),
  "cosmap": densities.cosmap(),
  "uniform": densities.uniform(-10.0, 10.0),
  "sech": densities.sech(1.0),
  "adaptive": _adapted(),
}
ALL = pytest.mark.parametrize("name", DENSITIES)


@jax.jit
def _both(d, u):
  logsnr, slope = jax.jvp(d.logsnr, (u,), (jnp.ones_like(u),))
  return logsnr, slope, d.log_prob(logsnr)


def _wide(tree, dtype=np.float64):
  return jax.tree.map(lambda x: np.asarray(x, dtype), tree)


@ALL
def test_log_prob_is_the_slope_of_the_quantile(name, x64):
  """p(λ(u)) |dλ/du| = 1, the slope by finite differences."""
  d, h = _wide(DENSITIES[name]), 1e-6
  u = np.linspace(0.0203, 0.9797, 24)
  lam, _, log_p = _both(d, jnp.asarray(u))
  slope = (
    _both(d, jnp.asarray(u + h))[0] - _both(d, jnp.asarray(u - h))[0]
  ) / (2 * h)
  np.testing.assert_allclose(np.exp(log_p) * np.abs(slope), 1.0, rtol=3e-6)
  # the grid of a bounded density ends where it ends: no mass elsewhere
  assert np.all(np.isfinite(lam))


def _normal(x, mean, std):
  return np.exp(-0.5 * ((x - mean) / std) ** 2) / std / np.sqrt(2 * np.pi)


def _sech(y):
  return 1 / np.cosh(y)


def test_densities_are_their_closed_forms(x64):
  """MATH 3.3, row by row."""
  lam, top = LAMBDA, 15.0
  log_prob = jax.jit(lambda d: d.log_prob(jnp.asarray(lam)))
  got = lambda name: np.exp(log_prob(_wide(DENSITIES[name])))
  sech = _sech(lam / 2) / (2 * np.pi)
  angle = lambda l: 2 / np.pi * np.arctan(np.exp(-l / 2))
  softplus = np.logaddexp(0, -lam)
  want = {
    "uniform_t_flow": _sech(lam / 4) ** 2 / 8,
    "uniform_t_sd3_shift": _sech((lam + 2 * np.log(3)) / 4) ** 2 / 8,
    "uniform_t_cosine": sech,
    "uniform_t_truncated_cosine": sech / (angle(-top) - angle(top)),
    "uniform_t_shifted_cosine": _sech((lam + 2 * np.log(4)) / 2)
    / (2 * np.pi)
    / (angle(-top) - angle(top)),
    "uniform_t_vp_linear": 1
    / (1 + np.exp(lam))
    / np.sqrt(0.01 + 2 * 19.9 * softplus),
    "uniform_t_log_normal": _normal(lam, 2.4, 2.4),
    "log_normal": _normal(lam, 2.4, 2.4),
    "logit_normal": _normal(lam, -1.0, 2.4),
    "cosmap": sech,
    "sech": _sech((lam - 1) / 2) / (2 * np.pi),
    "uniform": np.full(33, 0.05),
  }
  for name, value in want.items():
    np.testing.assert_allclose(got(name), value, rtol=1e-9, err_msg=name)
  on = (lam >= -5) & (lam < 13.3)
  np.testing.assert_allclose(
    got("uniform_t_linear_logsnr"), np.where(on, 1 / 18.3, 0.0), rtol=1e-12
  )


def test_laws_of_time_are_the_papers(x64):
  """MATH 3.3: logit-normal, mode and CosMap as Esser et al. print them, their
  u and t from uniform or normal numbers."""
  u = np.linspace(0.02, 0.98, 25)
  lam = lambda t: 2 * np.log((1 - t) / t)
  from scipy.special import ndtri

  t = 1 / (1 + np.exp(-(0.5 + 1.2 * ndtri(u))))
  got = DENSITIES["logit_normal"].logsnr(u)
  np.testing.assert_allclose(got, lam(t), atol=1e-10)
  np.testing.assert_allclose(
    densities.mode(1.29).logsnr(u), LOGSNR["mode"](u), atol=1e-10
  )
  t = 1 - 1 / (np.tan(np.pi / 2 * u) + 1)
  np.testing.assert_allclose(densities.cosmap().logsnr(u), lam(t), atol=1e-10)
  # π(t) of CosMap
  h = 1e-5
  du = 2 / np.pi * np.arctan(t / (1 - t))  # u of t
  step = lambda t: 2 / np.pi * np.arctan(t / (1 - t))
  np.testing.assert_allclose(du, u, atol=1e-12)
  np.testing.assert_allclose(
    (step(t + h) - step(t - h)) / (2 * h),
    2 / (np.pi - 2 * np.pi * t + 2 * np.pi * t**2),
    rtol=1e-8,
  )


@ALL
def test_float32_log_prob_to_high_and_low_noise(name):
  """|logsnr| = 30: log p to 1e-5 of p, or of log p where p is below 1e-10."""
  lam = np.float32([-30.0, -12.0, -3.0, 0.3, 4.0, 12.0, 30.0])
  d = DENSITIES[name]
  got = np.asarray(jax.jit(lambda d: d.log_prob(lam))(_wide(d, np.float32)))
  with jax.enable_x64(True):
    want = np.asarray(
      jax.jit(lambda d: d.log_prob(lam.astype(np.float64)))(_wide(d))
    )
  assert not np.isnan(got).any()
  assert np.array_equal(np.isneginf(got), np.isneginf(want))
  on = np.isfinite(want)
  np.testing.assert_allclose(got[on], want[on], rtol=5e-7, atol=1e-5)


# of one number near 1, for every name in the table; those of schedules move
# with the numbers of the schedule, whose test asks for log_speed too
BY_NUMBER = {
  "log_normal": lambda c: densities.log_normal(-c, c),
  "logit_normal": lambda c: densities.logit_normal(c, c, 3.0 * c),
  "mode": densities.mode,
  "cosmap": None,  # has no number
  "uniform": lambda c: densities.uniform(-9.0 * c, 12.0 * c),
  "sech": densities.sech,
  "uniform_time": lambda c: densities.uniform_time(
    objectives.vp_sde(0.1 * c, 20.0 * c)
  ),
  "adaptive": lambda c: _adapted().replace(
    logsnr_min=-8.0 * c, logsnr_max=9.0 * c
  ),
}
assert set(BY_NUMBER) == set(densities.DENSITIES)


@pytest.mark.parametrize("name", [n for n, make in BY_NUMBER.items() if make])
def test_one_trace_and_gradients_through_densities(name, x64):
  """Every number is a leaf: one trace, grad and vmap, for each density."""
  traces, make = [], BY_NUMBER[name]

  def f(c):
    traces.append(1)
    d = make(c)
    return d.log_prob(jnp.array(0.7)) + d.logsnr(jnp.array(0.3))

  g = jax.jit(jax.vmap(jax.value_and_grad(f)))
  value, slope = g(jnp.array([1.0, 1.0 + 1e-5, 1.0 - 1e-5]))
  g(jnp.array([1.1, 1.05, 0.95]))
  assert len(traces) == 1
  want = (value[1] - value[2]) / 2e-5
  np.testing.assert_allclose(slope[0], want, rtol=1e-3, atol=1e-5)


@ALL
def test_the_mass_is_one(name):
  """∫ p dλ by quadrature: nothing outside of a schedule's range, where an
  inverse that stops at its ends could look as if it were inside."""
  lam = jnp.linspace(-60.0, 60.0, 60001, dtype=jnp.float32)
  p = np.exp(np.float64(_density(DENSITIES[name], lam)))
  step = 120.0 / 60000
  # a jump of p to 0 between two nodes costs at most half a step of it
  np.testing.assert_allclose(p.sum() * step, 1.0, atol=1e-4 + p.max() * step)


@jax.jit
def _density(d, logsnr):
  return d.log_prob(logsnr)


def test_a_density_is_zero_outside_its_schedules_range():
  d = DENSITIES["uniform_t_karras"]
  assert np.all(np.isneginf(d.log_prob(jnp.array([-9.0, 13.0]))))
  d = DENSITIES["adaptive"]
  assert np.all(np.isneginf(d.log_prob(jnp.array([-8.1, 9.1]))))


def test_uniforms_are_uniform_stratified_shuffled_and_never_0_or_1():
  """MATH 3.6."""
  n, orders = 128, []
  draw = jax.jit(densities.uniforms, static_argnums=1)
  for seed in range(20):
    u = np.asarray(draw(jax.random.key(seed), n))
    assert np.array_equal(np.sort(np.floor(u * n)), np.arange(n)), seed
    assert u.min() > 0 and u.max() < 1
    orders.append(np.argsort(u))
  # not in the order of the data: rank and index are uncorrelated
  rank = np.corrcoef(np.stack(orders).ravel(), np.tile(np.arange(n), 20))[0, 1]
  assert abs(rank) < 4 / np.sqrt(20 * n)
  draws = np.array([draw(jax.random.key(s), 4)[1] for s in range(400)])
  assert abs(draws.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 400)


def test_two_examples_levels_lie_to_each_other_as_after_a_shuffle():
  """MATH 3.6. Their distance is uniform over the other strata, near or far."""
  n, num = 96, 6000
  draw = jax.jit(jax.vmap(lambda key: densities.uniforms(key, n)))
  u = np.asarray(draw(jax.random.split(jax.random.key(0), num)))
  strata = np.floor(u * n).astype(int)
  for i, j in ((0, 1), (5, 13), (0, 48), (30, 93)):
    apart = (strata[:, i] - strata[:, j]) % n
    counts = np.bincount(apart, minlength=n)
    assert counts[0] == 0
    # n places, n distances: 1 - 1/e of them are hit, 4 deviations less
    assert np.count_nonzero(counts) > (0.632 - 4 * 0.31 / np.sqrt(n)) * n
    assert counts.max() < 7 * num / n
    # and no distance, as near or far, is preferred
    phase = np.exp(2j * np.pi * apart / n).mean()
    assert abs(phase) < 4.0 / np.sqrt(n), (i, j)


def test_drawing_levels_sorts_nothing():
  text = jax.jit(densities.uniforms, static_argnums=1).lower(
    jax.random.key(0), 64
  )
  assert "stablehlo.sort" not in text.as_text()


@pytest.mark.parametrize("end", [0.0, 1.0 - 2.0**-24])
def test_no_draw_is_exactly_0_or_1(end, monkeypatch):
  """Whatever the one u is: (i + u)/num rounds to 1 in float32."""
  monkeypatch.setattr(
    jax.random, "uniform", lambda key, shape: jnp.full(shape, end, jnp.float32)
  )
  u = densities.uniforms(jax.random.key(0), 128)
  assert u.min() > 0.0 and u.max() < 1.0


def _loss_at(logsnr):
  return 1.0 + 5.0 * jnp.exp(-0.5 * (logsnr - 1.0) ** 2)


def test_the_adaptive_density_tends_to_the_weighted_loss():
  """MATH 3.8: p ∝ w E‖eps - ε̂‖² with its floor, whatever p it starts from."""
  d = densities.adaptive(17, -8.0, 9.0, decay=0.9, floor=0.1)

  @jax.jit
  def step(d, key):
    logsnr = densities.draw(d, key, 256)
    loss = _loss_at(logsnr) / 2.0 * jnp.exp(-d.log_prob(logsnr))
    return d.update(losses.Terms(loss, loss, logsnr))

  for key in jax.random.split(jax.random.key(0), 30):
    d = step(d, key)
  edges = np.linspace(-8.0, 9.0, 18)
  fine = np.linspace(-8.0, 9.0, 17 * 200 + 1)
  mean = np.array(
    [
      _loss_at(fine[(fine >= a) & (fine <= b)]).mean()
      for a, b in zip(edges[:-1], edges[1:], strict=True)
    ]
  )
  want = 0.9 * mean / mean.sum() + 0.1 / 17
  mid = (edges[:-1] + edges[1:]) / 2
  np.testing.assert_allclose(np.exp(d.log_prob(mid)), want, rtol=0.05)
  total = np.exp(d.log_prob(fine)).mean() * 17.0
  np.testing.assert_allclose(total, 1.0, rtol=2e-3)
  draws = np.asarray(densities.draw(d, jax.random.key(3), 20000))
  share, _ = np.histogram(draws, edges)
  np.testing.assert_allclose(share / 20000, np.exp(d.log_prob(mid)), atol=2e-3)


def test_an_unvisited_bin_counts_as_average_and_nothing_is_uniform():
  d = densities.adaptive(10, -5.0, 5.0)
  np.testing.assert_allclose(np.exp(d.log_prob(jnp.array([-4.0, 3.0]))), 0.1)
  one = jnp.array([2.2])
  d = d.update(losses.Terms(jnp.array([7.0]), jnp.array([7.0]), one))
  np.testing.assert_allclose(np.exp(d.log_prob(jnp.array([-4.0, 2.2]))), 0.1)


def test_the_adaptive_density_follows_the_error_not_the_penalty():
  """A learned weighting's penalty u may be negative and outweigh the error; a
  loss that is NaN or inf says nothing, and forgets nothing."""
  d = densities.adaptive(10, -5.0, 5.0, decay=0.5)
  logsnr = jnp.array([-4.5, -4.5, 2.5, 2.5])
  error, u = jnp.array([1.0, 1.0, 3.0, 3.0]), -9.0
  terms = losses.Terms(error + u, error, logsnr, u * jnp.ones(4))
  plain = d.update(losses.Terms(error, error, logsnr))
  for got in (
    d.update(terms),
    plain.update(losses.Terms(jnp.full(4, jnp.nan), error, logsnr)),
    plain.update(losses.Terms(jnp.full(4, jnp.inf), error, logsnr)),
  ):
    np.testing.assert_allclose(got.total, plain.total, rtol=1e-5)
    np.testing.assert_allclose(got.weight, plain.weight, rtol=1e-5)
  # two draws in a bin at decay ½ leave a quarter of what was there
  np.testing.assert_allclose(plain.weight[jnp.array([0, 7])], 0.75)
  p = np.exp(plain.log_prob(jnp.array([-4.5, 2.5])))
  assert p[1] > 2.0 * p[0]


def test_adaptive_and_uncertainty_work_together():
  """Through weighted_mse: the draws go where the error is, though the mean of
  error and penalty is below zero."""
  base = objectives.flow_matching()
  learned = uncertainty.uncertainty(base.weighting, 16)
  learned = learned.replace(weights=-20.0 * jnp.ones(16))
  o = base.replace(weighting=learned, density=densities.adaptive(4, -8.0, 8.0))
  x = jnp.linspace(-1.0, 1.0, 64)[:, None]
  terms = losses.weighted_mse(
    o, lambda p, z, l, c: 0.0 * z, {}, jax.random.key(0), x
  )
  np.testing.assert_allclose(terms.penalty, learned.penalty(terms.logsnr))
  d = o.density.update(terms)
  p = np.exp(d.log_prob(jnp.array([-6.0, -2.0, 2.0, 6.0])))
  assert terms.penalty.min() < 0 and p.max() > 1.5 * p.min()


@pytest.mark.parametrize("name", ["vdm", "flow_matching", "simple_diffusion"])
def test_the_adaptive_density_of_a_recipe_covers_its_schedule(name):
  o = objectives.make(name)
  d = densities.make("adaptive", o, num_bins=8)
  ends = np.sort(np.clip(o.schedule.logsnr(jnp.array([0.0, 1.0])), -99, 99))
  want = np.where(np.abs(ends) > 90, np.sign(ends) * 15.0, ends)
  np.testing.assert_allclose([d.logsnr_min, d.logsnr_max], want, rtol=1e-6)


def test_the_adaptive_density_does_not_move_the_expected_loss(x64):
  """The factor holds 1/p: the loss is E_p[w/2p ‖·‖²] for any state of it."""
  base = objectives.v_diffusion().replace(density=_adapted())
  u = (np.arange(100000) + 0.5) / 100000
  base = base.replace(density=_wide(base.density))
  lam = base.density.logsnr(u)
  error = jnp.exp(-0.1 * (lam - 0.3) ** 2)  # E‖v - v̂‖², any function
  got = float(jnp.mean(jnp.exp(losses.log_factor(base, lam)) * error))
  grid = np.linspace(-8.0, 9.0, 20001)
  # v-MSE on vp: ‖eps - ε̂‖² is alpha² ‖v - v̂‖²
  alpha2 = 1 / (1 + np.exp(-grid))
  w = 2 / np.pi * np.exp(-grid / 2)
  want = np.trapezoid(0.5 * w * alpha2 * np.exp(-0.1 * (grid - 0.3) ** 2), grid)
  np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda: densities.adaptive(0), "num_bins must be an integer >= 1, not 0"),
    (lambda: densities.adaptive(decay=1.0), r"decay must be in \[0, 1\)"),
    (lambda: densities.adaptive(floor=0.0), r"floor must be in \(0, 1\]"),
    (
      lambda: densities.adaptive(logsnr_min=3.0, logsnr_max=-3.0),
      "logsnr_min must be < logsnr_max = -3.0, not 3.0",
    ),
    (lambda: densities.uniform(3.0, -3.0), "must be < logsnr_max = -3.0"),
    (lambda: densities.log_normal(p_std=0.0), "p_std must be > 0, not 0.0"),
    (lambda: densities.logit_normal(shift=-1.0), "shift must be > 0"),
    (
      lambda: densities.mode(2.0),
      "spread must be between -1 and 1.752, not 2.0",
    ),
    (lambda: densities.make("adaptive"), "'adaptive' is one of a recipe"),
    (lambda: densities.make("gauss"), "unknown density 'gauss': known are"),
    (lambda: densities.make("sech", m=1.0), "'sech' takes no 'm'"),
    (
      lambda: densities.make("sech", mean="a"),
      "mean must be a finite number, not 'a'",
    ),
  ],
)
def test_bad_densities_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
