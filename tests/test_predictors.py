"""A network of one schedule and scale called from another: MATH.md 1.18."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import (
  closed_form,
  levels,
  predictors,
  schedules,
  targets,
)
from tests.tables import SCALES, SCHEDULES, TARGETS

Z = np.array([[0.4, -0.2], [1.5, 0.3]])


def mix():
  return closed_form.mixture([0.3, 0.7], [[-1.0, 0.5], [1.2, 0.0]], [0.3, 0.5])


def exact_network(target, schedule, scale):
  """A 'network' that outputs the exact prediction of a target."""

  def apply(params, z, logsnr, cond):
    lv = levels.at_logsnr(scale, logsnr, schedule)
    return targets.from_x_eps(target, *mix()(z, lv), lv)

  return predictors.Predictor({}, schedule, apply, target, scale)


def _biggest_gap(schedule, target, own_scale):
  """Of x̂ and ε̂ from those of the exact model, called on other scales."""

  @jax.jit
  def both(lv):
    predict = exact_network(target, schedule, own_scale)
    return predict(Z, lv), mix()(Z, lv)

  pairs = [
    both(levels.at_logsnr(SCALES[name], 1.3)) for name in ("vp", "ve", "linear")
  ]
  return max(np.abs(np.subtract(got, want)).max() for got, want in pairs)


@pytest.mark.parametrize("own_scale", SCALES)
@pytest.mark.parametrize("target", TARGETS)
def test_x_and_eps_carry_over_to_any_scale(target, own_scale, x64):
  """MATH 1.18, for every output on every scale."""
  own = SCALES[own_scale]
  assert _biggest_gap(schedules.Cosine(), TARGETS[target], own) < 1e-10


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_x_and_eps_carry_over_from_any_schedule(schedule, x64):
  """MATH 1.18, with the output that needs the schedule's clock."""
  assert _biggest_gap(SCHEDULES[schedule], targets.u, levels.vp) < 1e-10


@pytest.mark.parametrize("target", TARGETS)
def test_levels_outside_the_trained_range_are_clipped(target, x64):
  """Beyond sigma_max the network is asked at sigma_max, with z rescaled."""
  seen = []

  def apply(params, z, logsnr, cond):
    seen.append((float(logsnr[0]), np.asarray(z)))
    return z

  karras = schedules.Karras(sigma_max=10.0)
  own = levels.Unit(0.5)
  predict = predictors.Predictor({}, karras, apply, TARGETS[target], own)
  far = levels.at_logsnr(levels.linear, -50.0)
  x_hat, eps_hat = predict(Z, far)
  logsnr, z = seen[0]
  np.testing.assert_allclose(logsnr, -2 * np.log(10.0))
  # z by the norms: S_own/S, S² = alpha² + sigma²
  lv = levels.at_logsnr(own, -2 * np.log(10.0), karras)
  want = np.hypot(lv.alpha, lv.sigma) / np.hypot(far.alpha, far.sigma)
  np.testing.assert_allclose(z, want * Z, rtol=1e-12)
  # and its output is read at the level that it was asked at
  for got, w in zip(
    (x_hat, eps_hat), targets.to_x_eps(TARGETS[target], z, z, lv), strict=True
  ):
    np.testing.assert_allclose(got, w, rtol=1e-12)


def test_a_bf16_state_is_asked_at_its_level_in_float32():
  """logsnr = 7.77 is 7.78125 in bf16: another level than the state's."""
  seen = []

  def apply(params, z, logsnr, cond):
    seen.append((z.dtype, logsnr))
    return z

  predict = predictors.Predictor(
    {}, schedules.Karras(), apply, targets.F(0.5), levels.Unit(0.5)
  )
  lv = levels.at_logsnr(levels.ve, jnp.float32(7.77))
  x_hat, eps_hat = predict(jnp.asarray(Z, jnp.bfloat16), lv)
  dtype, logsnr = seen[0]
  assert dtype == x_hat.dtype == eps_hat.dtype == jnp.bfloat16
  assert logsnr.dtype == jnp.float32
  np.testing.assert_allclose(logsnr, 7.77, rtol=1e-7)


def test_a_predictor_is_an_argument_of_jit():
  """Its numbers are leaves, bare functions and sigma_data alike."""
  traces = []

  @jax.jit
  def ask(predict, logsnr):
    traces.append(1)
    return predict(jnp.asarray(Z), levels.at_logsnr(levels.vp, logsnr))[0]

  apply = lambda params, z, logsnr, cond: 0.5 * z
  out = [
    ask(
      predictors.Predictor(
        {}, schedules.Karras(), apply, targets.F(sd), levels.Unit(sd)
      ),
      1.3,
    )
    for sd in (0.5, 0.7)
  ]
  assert len(traces) == 1 and not np.allclose(*out)
  own = predictors.Predictor({}, schedules.Cosine(), apply, _half, levels.vp)
  assert np.isfinite(ask(own, 1.3)).all()
  # what holds a function is copied and pickled as what it is
  for again in (
    copy.deepcopy(own.target),
    pickle.loads(pickle.dumps(own.target)),
  ):
    assert again == own.target


def _half(lv):
  return 0.5 * jnp.ones_like(lv.alpha), -0.5 * jnp.ones_like(lv.alpha)


def test_velocity_is_transported_by_the_chain_rule(x64):
  """MATH 1.19: u_B = (ċ/c) z + c ṫ_A u_A(z/c, t_A), by finite differences."""
  flow, cosine, t, h = schedules.Flow(), schedules.Cosine(), 0.3, 1e-6
  x, eps = Z, Z[::-1] * 0.7
  b = levels.level(flow, levels.linear, t)
  z = levels.add_noise(x, eps, b)

  def c_and_time(t):
    lam = flow.logsnr(t)
    own = levels.at_logsnr(levels.vp, lam)
    there = levels.level(flow, levels.linear, t)
    return levels.rescale(own, there), cosine.t(lam)

  c, t_a = c_and_time(t)
  dc, dt_a = (
    (up - down) / (2 * h)
    for up, down in zip(c_and_time(t + h), c_and_time(t - h), strict=True)
  )
  a = levels.level(cosine, levels.vp, t_a)
  u_a = targets.from_x_eps(targets.u, x, eps, a)
  want = dc / c * z + c * dt_a * u_a
  got = targets.from_x_eps(targets.u, x, eps, b)
  np.testing.assert_allclose(got, want, atol=1e-8)


@pytest.mark.parametrize(
  "scale,target",
  [
    (levels.ve, targets.x),
    (levels.vp, targets.eps),
    (None, targets.flow),
  ],
)
def test_a_plain_function_is_a_predictor(scale, target, x64):
  """As x̂(z, sigma), eps(z, t), or on whatever scale it is asked."""

  def fn(z, lv, cond):
    assert lv.sigma.shape == z.shape[:1] and cond is None
    return targets.from_x_eps(target, *mix()(z, lv), lv)

  predict = predictors.predictor_of(fn, target, scale)
  for asked in (levels.vp, levels.linear, levels.ve):
    lv = levels.at_logsnr(asked, 0.7)
    for got, want in zip(predict(Z, lv), mix()(Z, lv), strict=True):
      np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_plain_functions_mistakes_get_one_sentence():
  lv = levels.at_logsnr(levels.vp, 0.0)
  short = predictors.predictor_of(lambda z, lv, cond: z[:, 0])
  with pytest.raises(ValueError, match="one array of z's shape"):
    short(Z, lv)
  with pytest.raises(TypeError, match="predict must be callable, not int"):
    predictors.predictor_of(3)


def test_labels_are_one_for_each_example():
  flow = schedules.Flow()
  lv = levels.level(flow, levels.linear, 0.5)
  own = exact_network(targets.x, flow, levels.linear)
  for cond in (np.arange(3), {"label": np.arange(3)}):
    with pytest.raises(ValueError, match="labels must be one .*, 2, not 3"):
      own(Z, lv, cond)
