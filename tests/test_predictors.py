"""A network of one schedule and scale called from another: MATH.md 1.18."""

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


@pytest.mark.parametrize("own_scale", SCALES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_x_and_eps_carry_over_to_any_scale(schedule, target, own_scale, x64):
  predict = exact_network(
    TARGETS[target], SCHEDULES[schedule], SCALES[own_scale]
  )
  for name, scale in SCALES.items():
    lv = levels.at_logsnr(scale, 1.3)
    for got, want in zip(predict(Z, lv), mix()(Z, lv), strict=True):
      np.testing.assert_allclose(got, want, atol=1e-11, err_msg=name)


def test_levels_outside_the_trained_range_are_clipped(x64):
  """Beyond sigma_max the network is asked at sigma_max, with z rescaled."""
  seen = []

  def apply(params, z, logsnr, cond):
    seen.append((float(logsnr[0]), np.asarray(z)))
    return z

  karras = schedules.Karras(sigma_max=10.0)
  predict = predictors.Predictor(
    {}, karras, apply, targets.F(0.5), levels.Unit(0.5)
  )
  predict(Z, levels.at_logsnr(levels.vp, -50.0))
  logsnr, z = seen[0]
  np.testing.assert_allclose(logsnr, -2 * np.log(10.0))
  # at such noise vp and the network's own scale have z = eps, nearly
  np.testing.assert_allclose(z, Z, rtol=6e-3)
