"""Rows and conversions: MATH.md 2.1 to 2.6."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules, targets
from tests.tables import SCALES, TARGETS

PAIRS = list(itertools.product(TARGETS, TARGETS))
# the others amplify rounding by design at one end or the other, MATH 2.5
STABLE_PAIRS = list(itertools.product(("v", "u", "F"), repeat=2))


def _case(scale="vp", t=(0.1, 0.35, 0.8)):
  lv = levels.level(schedules.Cosine(), SCALES[scale], jnp.array(t))
  x = jnp.array([[0.3, -1.0], [0.2, 0.9], [-0.7, 0.1]])
  eps = jnp.array([[1.1, 0.4], [-0.3, 0.6], [0.5, -1.5]])
  return lv, x, eps, levels.add_noise(x, eps, lv)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("source,wanted", PAIRS)
def test_every_conversion_is_the_wanted_row_of_x_and_eps(
  source, wanted, scale, x64
):
  lv, x, eps, z = _case(scale)
  y = targets.from_x_eps(TARGETS[source], x, eps, lv)
  got = targets.convert(y, z, lv, TARGETS[source], TARGETS[wanted])
  want = targets.from_x_eps(TARGETS[wanted], x, eps, lv)
  np.testing.assert_allclose(got, want, atol=1e-12, rtol=1e-12)
  back = targets.convert(got, z, lv, TARGETS[wanted], TARGETS[source])
  np.testing.assert_allclose(back, y, atol=1e-12, rtol=1e-12)


def test_the_rows_are_the_papers(x64):
  """MATH 2.1, each written out by hand at one level."""
  lv, x, eps, z = _case()
  a, s = (np.asarray(c)[:, None] for c in (lv.alpha, lv.sigma))
  t = np.array([[0.1], [0.35], [0.8]])
  row = lambda name: targets.from_x_eps(TARGETS[name], x, eps, lv)
  np.testing.assert_allclose(row("v"), a * eps - s * x, atol=1e-14)
  np.testing.assert_allclose(row("score"), -(z - a * x) / s**2, rtol=1e-12)
  w = np.pi / 2
  u = -w * np.sin(w * t) * x + w * np.cos(w * t) * eps
  np.testing.assert_allclose(row("u"), u, rtol=1e-12)
  # EDM, in its own coordinates: x̂ = c_skip y + c_out F, y = z/alpha
  sd, y, sig = 0.5, z / a, s / a
  c_skip = sd**2 / (sig**2 + sd**2)
  c_out = sig * sd / np.sqrt(sig**2 + sd**2)
  np.testing.assert_allclose(row("F"), (x - c_skip * y) / c_out, rtol=1e-11)


def test_f_with_unit_data_is_minus_v(x64):
  lv, x, eps, _ = _case()
  np.testing.assert_allclose(
    targets.from_x_eps(targets.F(1.0), x, eps, lv),
    -targets.from_x_eps(targets.v, x, eps, lv),
    atol=1e-14,
  )


@pytest.mark.parametrize("name", TARGETS)
def test_errors_scale_by_the_determinant(name, x64):
  """MATH 2.4: ‖ŷ - y‖ = |D_y/D_x| ‖x̂ - x‖ at one z."""
  lv, x, eps, z = _case()
  x2 = x + 0.1
  eps2 = (z - lv.alpha[:, None] * x2) / lv.sigma[:, None]
  dy = targets.from_x_eps(TARGETS[name], x2, eps2, lv) - targets.from_x_eps(
    TARGETS[name], x, eps, lv
  )
  d = targets.determinant(TARGETS[name], lv) / lv.sigma
  np.testing.assert_allclose(
    jnp.abs(dy), jnp.abs(d)[:, None] * 0.1 * jnp.ones_like(dy), rtol=1e-10
  )


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("end", ["data", "noise"])
def test_exact_ends_give_finite_x_and_eps(name, end):
  t = jnp.array([0.0 if end == "data" else 1.0])
  lv = levels.level(schedules.Cosine(), levels.vp, t)
  x, eps = jnp.array([[0.3]]), jnp.array([[-0.7]])
  z = levels.add_noise(x, eps, lv)
  y = (
    jnp.array([[0.2]])
    if name == "score"
    else targets.from_x_eps(TARGETS[name], x, eps, lv)
  )
  x_hat, eps_hat = targets.to_x_eps(TARGETS[name], y, z, lv)
  assert np.isfinite(x_hat).all() and np.isfinite(eps_hat).all()
  if end == "data":
    np.testing.assert_allclose(x_hat, x, atol=1e-6)
    knows_eps = name not in ("x", "score")
    np.testing.assert_allclose(eps_hat, eps if knows_eps else 0.0, atol=1e-6)
  elif name not in ("score",):
    np.testing.assert_allclose(eps_hat, eps, atol=1e-6)
    np.testing.assert_allclose(x_hat, x if name != "eps" else 0.0, atol=1e-6)


def test_u_without_a_clock_is_refused():
  lv = levels.at_logsnr(levels.vp, 0.0)
  with pytest.raises(ValueError, match="needs a level with a clock"):
    targets.u(lv)


def _converted(source, wanted, logsnr, dtype):
  lv = levels.at_logsnr(
    levels.vp, jnp.asarray(logsnr, dtype), schedules.Cosine()
  )
  x, eps = jnp.asarray([[0.3]], dtype), jnp.asarray([[-0.7]], dtype)
  z = levels.add_noise(x, eps, lv)
  y = targets.from_x_eps(TARGETS[source], x, eps, lv)
  return targets.convert(y, z, lv, TARGETS[source], TARGETS[wanted])


@pytest.mark.parametrize("logsnr", [-30.0, -12.0, 12.0, 30.0])
@pytest.mark.parametrize("source,wanted", STABLE_PAIRS)
def test_float32_conversions_at_high_and_low_noise(source, wanted, logsnr):
  """|logsnr| = 30: relative error under 1e-5 of the size of the answer."""
  got = _converted(source, wanted, logsnr, jnp.float32)
  with jax.enable_x64(True):
    want = _converted(source, wanted, logsnr, jnp.float64)
  np.testing.assert_allclose(got, want, rtol=1e-5)
