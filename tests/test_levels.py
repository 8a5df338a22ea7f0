"""Levels and scales: MATH.md 1.1, 1.18 and d/dt of alpha and sigma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules
from tests.tables import SCALES, SCHEDULES

T = np.linspace(0.05, 0.95, 19)
ALL = pytest.mark.parametrize("schedule", SCHEDULES)


def _levels(s, t, logsnr, scales):
  """By time and by level."""
  return {
    name: (levels.level(s, c, t), levels.at_logsnr(c, logsnr, s))
    for name, c in scales.items()
  }


def _scales(schedule):
  """All for flow; for others one each in turn, since it costs a second."""
  if schedule == "flow":
    return SCALES
  name = list(SCALES)[list(SCHEDULES).index(schedule) % len(SCALES)]
  return {name: SCALES[name]}


@ALL
def test_levels_of_every_schedule(schedule, x64):
  """The ratio is the schedule's; d/dt is a finite difference; and the level
  at a logsnr is the level at its time (MATH 1.1, 1.18)."""
  s = jax.tree.map(lambda x: np.asarray(x, np.float64), SCHEDULES[schedule])
  h, logsnr = 1e-6, s.logsnr(jnp.asarray(T))
  scales = _scales(schedule)
  mid, up, down = (_levels(s, T + d, logsnr, scales) for d in (0.0, h, -h))
  for name in scales:
    lv, at = mid[name]
    np.testing.assert_allclose(
      2 * np.log(lv.alpha / lv.sigma), logsnr, atol=1e-11, err_msg=name
    )
    for field in ("alpha", "sigma"):
      want = (getattr(up[name][0], field) - getattr(down[name][0], field)) / (
        2 * h
      )
      np.testing.assert_allclose(
        getattr(lv, "d" + field), want, rtol=2e-6, atol=1e-7, err_msg=name
      )
    for field in ("alpha", "sigma", "dalpha", "dsigma"):
      np.testing.assert_allclose(
        getattr(at, field), getattr(lv, field), rtol=1e-8, atol=1e-10
      )


@ALL
def test_no_level_is_nan_at_either_end_in_float32(schedule):
  s = SCHEDULES[schedule]
  ends = jnp.array([0.0, 1.0], jnp.float32)
  scales = {"linear": SCALES["linear"]}  # ve has no alpha = 0
  for name, pair in _levels(
    s, ends, jnp.array([-jnp.inf, jnp.inf]), scales
  ).items():
    for leaf in jax.tree.leaves(pair):
      assert not np.isnan(leaf).any(), name


def test_norms_of_the_scales(x64):
  logsnr = jnp.linspace(-30, 30, 61)
  vp = levels.at_logsnr(levels.vp, logsnr)
  np.testing.assert_allclose(vp.alpha**2 + vp.sigma**2, 1.0, atol=1e-14)
  lin = levels.at_logsnr(levels.linear, logsnr)
  np.testing.assert_allclose(lin.alpha + lin.sigma, 1.0, atol=1e-14)
  ve = levels.at_logsnr(levels.ve, logsnr)
  np.testing.assert_allclose(ve.alpha, 1.0)
  np.testing.assert_allclose(ve.sigma, np.exp(-logsnr / 2), rtol=1e-13)
  sub = levels.at_logsnr(levels.sub_vp, logsnr)
  np.testing.assert_allclose(sub.alpha**2 + sub.sigma, 1.0, atol=1e-14)
  unit = levels.at_logsnr(levels.Unit(0.5), logsnr)
  np.testing.assert_allclose(
    0.25 * unit.alpha**2 + unit.sigma**2, 1.0, atol=1e-14
  )


@pytest.mark.parametrize("scale", ["vp", "linear", "unit", "sub_vp"])
def test_float32_equals_float64_up_to_the_ends(scale):
  logsnr = np.array([-np.inf, -30, -10, -1, 0, 1, 10, 30, np.inf])
  got = levels.at_logsnr(SCALES[scale], jnp.asarray(logsnr, jnp.float32))
  with jax.enable_x64(True):
    want = levels.at_logsnr(SCALES[scale], logsnr)
  np.testing.assert_allclose(got.alpha, want.alpha, rtol=1e-5)
  np.testing.assert_allclose(got.sigma, want.sigma, rtol=1e-5)
  assert got.alpha[0] == 0.0 and got.sigma[-1] == 0.0


@pytest.mark.parametrize("scale", [levels.vp, levels.linear])
def test_the_clock_of_flow_is_finite_at_both_ends(scale):
  lv = levels.level(schedules.Flow(), scale, jnp.array([0.0, 1.0]))
  np.testing.assert_allclose(
    lv.dalpha, [-1.0 if scale is levels.linear else 0.0, -1.0]
  )
  np.testing.assert_allclose(
    lv.dsigma, [1.0, 1.0 if scale is levels.linear else 0.0]
  )


def test_rescale_moves_a_state_between_scales(x64):
  x, eps = jnp.array([[0.3, -1.0]]), jnp.array([[1.1, 0.4]])
  for logsnr in (-np.inf, -3.0, 0.0, 5.0, np.inf):
    a = levels.at_logsnr(levels.vp, logsnr)
    b = levels.at_logsnr(levels.linear, logsnr)
    z = levels.add_noise(x, eps, a) * levels.rescale(a, b)
    np.testing.assert_allclose(z, levels.add_noise(x, eps, b), atol=1e-14)


def test_the_papers_alpha_and_sigma(x64):
  """MATH 1.13b and the sub-VP kernel: the scale that a paper prints."""
  lv = levels.level(schedules.Flow(0.05), levels.CondOT(0.05), T)
  np.testing.assert_allclose(lv.alpha, 1.0 - T, atol=1e-14)
  np.testing.assert_allclose(lv.sigma, 0.05 + 0.95 * T, atol=1e-14)
  np.testing.assert_allclose(lv.dalpha, -1.0, atol=1e-13)
  np.testing.assert_allclose(lv.dsigma, 0.95, atol=1e-13)
  b = 0.1 * T + 0.5 * 19.9 * T * T
  lv = levels.level(schedules.SubVP(), levels.sub_vp, T)
  np.testing.assert_allclose(lv.alpha, np.exp(-b / 2), rtol=1e-12)
  np.testing.assert_allclose(lv.sigma, -np.expm1(-b), rtol=1e-12)
  lv = levels.level(schedules.VPLinear(), levels.vp, T)
  np.testing.assert_allclose(lv.alpha, np.exp(-b / 2), rtol=1e-12)


def test_the_lectures_time_runs_the_other_way(x64):
  """alpha_lec(tau) = alpha(1 - tau), and its d/dtau by finite differences."""
  s, h = schedules.Flow(), 1e-6
  lec = levels.lecture_level(s, levels.vp, T)
  np.testing.assert_allclose(lec.logsnr, 2 * np.log(T / (1 - T)), atol=1e-12)
  up = levels.lecture_level(s, levels.vp, T + h)
  down = levels.lecture_level(s, levels.vp, T - h)
  want = (up.alpha - down.alpha) / (2 * h)
  np.testing.assert_allclose(lec.dalpha, want, rtol=1e-6)
  want = (up.sigma - down.sigma) / (2 * h)
  np.testing.assert_allclose(lec.dsigma, want, rtol=1e-6)
