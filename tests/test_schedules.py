"""Schedules: MATH.md 1.4, 1.10, 1.12 and what every schedule must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import schedules
from tests.tables import GOLDEN_LOGSNR, SCHEDULES

ALL = pytest.mark.parametrize("name", SCHEDULES)
T = np.linspace(0.02, 0.98, 49)


@ALL
def test_logsnr_matches_its_closed_form(name, x64):
  got = SCHEDULES[name].logsnr(jnp.array([0.25, 0.5, 0.75]))
  np.testing.assert_allclose(got, GOLDEN_LOGSNR[name], atol=1e-6)


@ALL
def test_decreasing(name):
  logsnr = SCHEDULES[name].logsnr(jnp.linspace(0.0, 1.0, 101))
  assert np.all(np.diff(logsnr) < 0)


@ALL
def test_inverse_round_trip(name, x64):
  s = SCHEDULES[name]
  np.testing.assert_allclose(s.t(s.logsnr(T)), T, atol=1e-11)


@ALL
def test_pair_and_logsnr_agree(name, x64):
  s = SCHEDULES[name]
  a, sigma = s.pair(T)
  np.testing.assert_allclose(2 * np.log(a / sigma), s.logsnr(T), atol=1e-12)


@ALL
def test_derivative_is_the_finite_difference(name, x64):
  s, h = SCHEDULES[name], 1e-5
  _, slope = jax.jvp(s.logsnr, (jnp.array(T),), (jnp.ones(len(T)),))
  want = (s.logsnr(T + h) - s.logsnr(T - h)) / (2 * h)
  np.testing.assert_allclose(slope, want, rtol=1e-6)


@pytest.mark.parametrize("name", ["cosine", "flow"])
def test_ends_are_exact_in_float32(name):
  s = SCHEDULES[name]
  a, sigma = s.pair(jnp.array([0.0, 1.0], jnp.float32))
  assert a[1] == 0.0 and sigma[0] == 0.0
  assert np.array_equal(s.logsnr(jnp.array([0.0, 1.0])), [np.inf, -np.inf])
  assert np.array_equal(s.t(jnp.array([np.inf, -np.inf])), [0.0, 1.0])


def test_a_users_schedule_is_completed(x64):
  @schedules.schedule
  class Quadratic:
    top: float = 10.0

    def logsnr(self, t):
      return self.top * (1.0 - 2.0 * t**2)

  s = Quadratic(8.0)
  np.testing.assert_allclose(s.t(s.logsnr(T)), T, atol=1e-12)
  a, sigma = s.pair(T)
  np.testing.assert_allclose(a**2 + sigma**2, 1.0, atol=1e-14)
  # the bisection carries derivatives: dt/dlogsnr, and to the parameter
  slope = jax.vmap(jax.grad(s.t))(s.logsnr(T))
  np.testing.assert_allclose(slope, -1.0 / (4.0 * 8.0 * T), rtol=1e-9)
  dtop = jax.grad(lambda top: Quadratic(top).t(2.0))(8.0)
  h = 1e-5
  want = (np.sqrt((1 - 2 / (8 + h)) / 2) - np.sqrt((1 - 2 / (8 - h)) / 2)) / (
    2 * h
  )
  np.testing.assert_allclose(dtop, want, rtol=1e-6)


def test_a_schedule_needs_one_of_the_two_forms():
  with pytest.raises(TypeError, match="Empty needs logsnr"):
    schedules.schedule(type("Empty", (), {}))


def test_one_trace_while_a_parameter_varies():
  traces = []

  @jax.jit
  def f(s):
    traces.append(1)
    return s.logsnr(jnp.array(0.3))

  values = {float(f(schedules.Karras(rho=r))) for r in (3.0, 5.0, 7.0)}
  assert len(values) == 3 and len(traces) == 1
