"""Levels and scales: MATH.md 1.1, 1.18 and d/dt of alpha and sigma."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules
from tests.tables import SCALES, SCHEDULES

T = np.linspace(0.05, 0.95, 19)
BOTH = [(a, b) for a in SCHEDULES for b in SCALES]


@pytest.mark.parametrize("schedule,scale", BOTH)
def test_the_scale_does_not_change_the_level(schedule, scale, x64):
  lv = levels.level(SCHEDULES[schedule], SCALES[scale], T)
  np.testing.assert_allclose(
    2 * np.log(lv.alpha / lv.sigma), lv.logsnr, atol=1e-11
  )


@pytest.mark.parametrize("schedule,scale", BOTH)
def test_derivatives_are_finite_differences(schedule, scale, x64):
  s, c, h = SCHEDULES[schedule], SCALES[scale], 1e-5
  lv = levels.level(s, c, T)
  up, down = levels.level(s, c, T + h), levels.level(s, c, T - h)
  for name in ("alpha", "sigma"):
    want = (getattr(up, name) - getattr(down, name)) / (2 * h)
    np.testing.assert_allclose(
      getattr(lv, "d" + name), want, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("schedule,scale", BOTH)
def test_at_logsnr_is_the_level_at_its_time(schedule, scale, x64):
  s, c = SCHEDULES[schedule], SCALES[scale]
  want = levels.level(s, c, T)
  got = levels.at_logsnr(c, want.logsnr, s)
  for name in ("alpha", "sigma", "dalpha", "dsigma"):
    np.testing.assert_allclose(
      getattr(got, name), getattr(want, name), rtol=1e-9, atol=1e-12
    )


def test_norms_of_the_scales(x64):
  logsnr = jnp.linspace(-30, 30, 61)
  vp = levels.at_logsnr(levels.vp, logsnr)
  np.testing.assert_allclose(vp.alpha**2 + vp.sigma**2, 1.0, atol=1e-14)
  lin = levels.at_logsnr(levels.linear, logsnr)
  np.testing.assert_allclose(lin.alpha + lin.sigma, 1.0, atol=1e-14)
  ve = levels.at_logsnr(levels.ve, logsnr)
  np.testing.assert_allclose(ve.alpha, 1.0)
  np.testing.assert_allclose(ve.sigma, np.exp(-logsnr / 2), rtol=1e-13)
  unit = levels.at_logsnr(levels.Unit(0.5), logsnr)
  np.testing.assert_allclose(
    0.25 * unit.alpha**2 + unit.sigma**2, 1.0, atol=1e-14
  )


@pytest.mark.parametrize("scale", ["vp", "linear", "unit"])
def test_float32_equals_float64_up_to_the_ends(scale):
  import jax

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
