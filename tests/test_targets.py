"""Rows and conversions: MATH.md 2.1 to 2.6."""

import itertools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules, targets
from tests.tables import SCALES, SCHEDULES, TARGETS

PAIRS = list(itertools.product(TARGETS, TARGETS))


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
  """MATH 2.2 and 2.3, all pairs, the identity too."""
  lv, x, eps, z = _case(scale)
  y = targets.from_x_eps(TARGETS[source], x, eps, lv)
  # not `convert`, which leaves a target that is the wanted one as it is
  both = targets.to_x_eps(TARGETS[source], y, z, lv)
  got = targets.from_x_eps(TARGETS[wanted], *both, lv)
  want = targets.from_x_eps(TARGETS[wanted], x, eps, lv)
  np.testing.assert_allclose(got, want, atol=1e-12, rtol=1e-12)
  back = targets.convert(got, z, lv, TARGETS[wanted], TARGETS[source])
  np.testing.assert_allclose(back, y, atol=1e-12, rtol=1e-12)


def test_the_rows_are_the_papers(x64):
  """MATH 2.1 and 2.6, each written out by hand at one level."""
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


def test_conversions_are_affine_with_the_printed_slope_and_offset(x64):
  """MATH 2.2: y₂ = (D₂/D₁) y₁ + ((a₂ b₁ - a₁ b₂)/D₁) z, by jvp: the slope is
  the same at every prediction, and the gains of 2.5 are its size."""
  lv, _, _, z = _case()
  for one, two in (("eps", "u"), ("u", "eps"), ("eps", "x"), ("v", "score")):
    first, second = TARGETS[one], TARGETS[two]
    (a1, b1), (a2, b2) = first(lv), second(lv)
    d1, d2 = (targets.determinant(y, lv) for y in (first, second))
    move = lambda y, first=first, second=second: targets.convert(
      y, z, lv, first, second
    )
    for y in (z, 0.0 * z, -3.0 * z + 1.0):
      got, slope = jax.jvp(move, (y,), (jnp.ones_like(y),))
      np.testing.assert_allclose(slope, np.tile((d2 / d1)[:, None], 2))
      offset = (a2 * b1 - a1 * b2) / d1
      want = (d2 / d1)[:, None] * y + offset[:, None] * z
      np.testing.assert_allclose(got, want, atol=1e-12)


def test_gains_at_both_ends(x64):
  """MATH 2.5: |D₂/D₁| of eps to x is sigma/alpha, of x to eps its inverse, of
  score to eps sigma; from v, F and flow's u to x and eps it stays O(1)."""
  lam = np.array([-20.0, 0.0, 20.0])
  at = lambda scale, schedule: levels.at_logsnr(scale, lam, schedule)
  lv, line = (
    at(levels.vp, schedules.Cosine()),
    at(levels.linear, schedules.Flow()),
  )
  gain = lambda one, two, lv: np.abs(
    targets.determinant(TARGETS[two], lv)
    / targets.determinant(TARGETS[one], lv)
  )
  np.testing.assert_allclose(gain("eps", "x", lv), np.exp(-lam / 2), rtol=1e-12)
  np.testing.assert_allclose(gain("x", "eps", lv), np.exp(lam / 2), rtol=1e-12)
  np.testing.assert_allclose(gain("score", "eps", lv), lv.sigma, rtol=1e-12)
  for wanted in ("x", "eps"):
    assert gain("v", wanted, lv).max() <= 1.0
    assert gain("u", wanted, line).max() <= 1.0
    assert gain("F", wanted, lv).max() <= 2.0  # 1/sigma_data


@struct.dataclass
class _Clock:
  """What a level asks of its schedule, as an array: one program for all."""

  speed: Any

  def log_speed(self, logsnr):
    return self.speed


@jax.jit
def _all_conversions(logsnr, speed):
  """solve's four coefficients and the row, every scale and target."""
  out = {}
  for c, scale in SCALES.items():
    lv = levels.at_logsnr(scale, logsnr, _Clock(speed))
    for y, target in TARGETS.items():
      out[f"{c} {y}"] = (*targets.solve(target, lv), *target(lv))
  return out


def test_float32_coefficients_on_every_schedule_and_scale():
  """Every conversion's numbers to |logsnr| = 30, relative error under 1e-5."""
  lam = np.float32([-30.0, -12.0, -3.0, 0.3, 3.0, 12.0, 30.0])
  levels_of, speeds = [], {np.float32: [], np.float64: []}
  for s in SCHEDULES.values():
    wide = lambda d, s=s: jax.tree.map(lambda x: np.asarray(x, d), s)
    with jax.enable_x64(True):
      ends = np.sort(wide(np.float64).logsnr(jnp.array([0.0, 1.0])))
      own = lam[(lam > ends[0]) & (lam < ends[1])]
      own = np.pad(own, (0, 7 - len(own)), mode="edge")
      speeds[np.float64].append(
        wide(np.float64).log_speed(jnp.asarray(own, np.float64))
      )
    speeds[np.float32].append(wide(np.float32).log_speed(jnp.asarray(own)))
    levels_of.append(own)
  lam = np.stack(levels_of)
  got = _all_conversions(jnp.asarray(lam), np.stack(speeds[np.float32]))
  with jax.enable_x64(True):
    want = _all_conversions(
      jnp.asarray(lam, np.float64), np.stack(speeds[np.float64])
    )
  for name, numbers in got.items():
    for g, w in zip(numbers, want[name], strict=True):
      assert not np.isnan(g).any(), name
      np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-30, err_msg=name)


def test_nothing_is_nan_at_exact_ends():
  """Every conversion at alpha = 0 and sigma = 0, an x̂ to a score among them."""
  for lam in (-np.inf, np.inf):
    lv = levels.at_logsnr(levels.vp, jnp.float32(lam), schedules.Flow())
    z = jnp.array([0.3, -0.7])
    for source, wanted in PAIRS:
      got = targets.convert(z, z, lv, TARGETS[source], TARGETS[wanted])
      assert not np.isnan(got).any(), (source, wanted, lam)


def test_targets_and_scales_by_name():
  """With their numbers, or one sentence."""
  assert targets.make("v") is targets.v and levels.make("vp") is levels.vp
  assert targets.make("F", sigma_data=0.7) == targets.F(0.7)
  assert levels.make("unit", sigma_data=0.7) == levels.Unit(0.7)
  for make, message in (
    (
      lambda: targets.make("epsilon"),
      "unknown target 'epsilon': known are F, e",
    ),
    (lambda: targets.make("v", sigma=1.0), "target 'v' takes no 'sigma': its"),
    (lambda: levels.make("vq"), "unknown scale 'vq': known are cond_ot, lin"),
    (lambda: levels.make("unit", sigma_data=-1.0), "must be > 0, not -1.0"),
  ):
    with pytest.raises(ValueError, match=message):
      make()
