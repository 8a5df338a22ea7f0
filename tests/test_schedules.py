"""Schedules: MATH.md 1.1 to 1.17, and what every schedule must keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import levels, schedules
from tests.tables import LOGSNR, SCHEDULES, nudged

ALL = pytest.mark.parametrize("name", SCHEDULES)
T = np.linspace(0.02, 0.98, 49)
# straight lines between rows: slopes jump at the knots
INTERPOLATED = (
  "ddpm_table",
  "scaled_linear_table",
  "iddpm_table",
  "zero_terminal",
)


@pytest.mark.parametrize("name", LOGSNR)
def test_logsnr_is_as_printed(name, x64):
  """MATH 1.2 to 1.17, each by its paper's formula in NumPy."""
  got = SCHEDULES[name].logsnr(jnp.asarray(T))
  np.testing.assert_allclose(got, LOGSNR[name](T), atol=2e-9)


@jax.jit
def _everything(s, t, levels):
  """All that a schedule says at times t: one compilation a precision."""
  one = (jnp.ones_like(t),)
  logsnr, slope = jax.jvp(s.logsnr, (t,), one)
  pair, dpair = jax.jvp(s.pair, (t,), one)
  back, dt = jax.jvp(s.t, (levels,), one)
  return dict(
    logsnr=logsnr,
    slope=slope,
    pair=pair,
    dpair=dpair,
    t=back,
    dt=dt,
    log_speed=s.log_speed(levels),
  )


def _said(name, t, levels, dtype):
  """Of a schedule and times all in one dtype."""
  s = jax.tree.map(lambda x: np.asarray(x, dtype), SCHEDULES[name])
  return jax.tree.map(
    np.asarray,
    _everything(s, jnp.asarray(t, dtype), jnp.asarray(levels, dtype)),
  )


@ALL
def test_one_schedule(name, x64):
  """MATH 0.1: decreasing; pair, inverse, derivatives and speed agree."""
  s, h = jax.tree.map(np.float64, SCHEDULES[name]), 1e-6
  out, up, down = (
    _said(name, T + d, s.logsnr(jnp.asarray(T)), np.float64) for d in (0, h, -h)
  )
  assert np.all(np.diff(out["logsnr"]) < 0)
  np.testing.assert_allclose(out["t"], T, atol=1e-10)
  a, sigma = out["pair"]
  np.testing.assert_allclose(2 * np.log(a / sigma), out["logsnr"], atol=1e-11)
  want = (up["logsnr"] - down["logsnr"]) / (2 * h)
  np.testing.assert_allclose(out["slope"], want, rtol=2e-6)
  for k in (0, 1):
    want = (up["pair"][k] - down["pair"][k]) / (2 * h)
    np.testing.assert_allclose(out["dpair"][k], want, rtol=2e-6, atol=1e-8)
  np.testing.assert_allclose(out["dt"] * out["slope"], 1.0, rtol=1e-8)
  # |dλ/dt| = 2 speed/(a s) with a² + s² = 1
  product = a * sigma / (a**2 + sigma**2)
  np.testing.assert_allclose(
    2.0 * np.exp(out["log_speed"]) / product, -out["slope"], rtol=1e-8
  )


# the same float32 times in both precisions, exact ends among them
NEAR = np.concatenate(
  [
    np.float32([0.0, 1e-6, 1e-5, 1e-4, 1e-3]),
    np.linspace(0.01, 0.99, 39, dtype=np.float32),
    np.float32([0.999, 0.9999, 0.99999, 0.999999, 1.0]),
  ]
)


@ALL
def test_float32_equals_float64_and_both_ends_are_finite(name):
  logsnr = SCHEDULES[name].logsnr(jnp.asarray(NEAR))
  lam = np.clip(np.asarray(logsnr), -30, 30)
  got = _said(name, NEAR, lam, np.float32)
  with jax.enable_x64(True):
    want = _said(name, NEAR, lam, np.float64)
  for leaf in (*got["pair"], *got["dpair"], got["t"], got["log_speed"]):
    assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
  assert not np.isnan(got["logsnr"]).any()
  assert got["logsnr"][0] > 4.0 and got["logsnr"][-1] < -4.0
  norm = [np.hypot(*o["pair"]) for o in (got, want)]
  for k in (0, 1):
    np.testing.assert_allclose(
      got["pair"][k] / norm[0], want["pair"][k] / norm[1], rtol=1e-5
    )
  # of the size of logsnr, or of 1 where it crosses zero
  np.testing.assert_allclose(
    got["logsnr"], want["logsnr"], rtol=1e-5, atol=1e-5
  )
  # t near 1 and near 0 in a float32 of it
  np.testing.assert_allclose(got["t"], want["t"], rtol=1e-5, atol=2e-7)


@pytest.mark.parametrize(
  "name", ["cosine", "flow", "sd3_shift", "polynomial", "mode", "sigmoid"]
)
def test_ends_are_exact_in_float32(name):
  s = SCHEDULES[name]
  a, sigma = s.pair(jnp.array([0.0, 1.0], jnp.float32))
  assert a[1] == 0.0 and sigma[0] == 0.0
  assert np.array_equal(s.logsnr(jnp.array([0.0, 1.0])), [np.inf, -np.inf])


def test_zero_terminal_snr():
  """MATH 1.17: alpha = 0 at t = 1, the clean end where it was."""
  base = schedules.ddpm_table()
  s = schedules.ZeroTerminal(base)
  a, _ = s.pair(jnp.array([1.0]))
  assert a[0] == 0.0
  np.testing.assert_allclose(s.logsnr(0.0), base.logsnr(0.0), rtol=1e-5)
  # of a base that is no table, its end the same exact zero
  a, _ = schedules.ZeroTerminal(schedules.VPLinear()).pair(jnp.array([1.0]))
  assert a[0] == 0.0


def test_ddpm_table_is_near_vp_linear():
  """MATH 1.2: log alpha_bar + B = O(1/T), halving as T doubles."""
  gaps = []
  for num in (1000, 2000):
    rows = schedules.ddpm_table(num, 0.1 / num, 20.0 / num).rows
    log_alpha_bar = -np.logaddexp(0.0, -rows)
    t = (np.arange(num) + 1) / num
    gaps.append(np.abs(log_alpha_bar + 0.1 * t + 0.5 * 19.9 * t * t).max())
  assert 1.9 < gaps[0] / gaps[1] < 2.1


def test_iddpm_clips_its_last_row_alone():
  """MATH 1.5b, by the unclipped formula."""
  rows = schedules.iddpm_table().rows
  s = schedules.OffsetCosine()
  with jax.enable_x64(True):
    free = np.asarray(s.logsnr((np.arange(1000) + 1) / 1000))
  np.testing.assert_allclose(rows[:-1], free[:-1], atol=1e-9)
  last = 1 / (1 + np.exp(-rows[-2])) * 0.001  # alpha_bar (1 - 0.999)
  np.testing.assert_allclose(rows[-1], np.log(last / (1 - last)), rtol=1e-9)


def test_shifts_compose_and_invert(x64):
  """MATH 1.14b, and SD3's shift is the resolution shift."""
  flow = schedules.Flow()
  twice = schedules.Shift(schedules.Shift(flow, 2.0), 3.0)
  once = schedules.Shift(flow, 6.0)
  np.testing.assert_allclose(twice.logsnr(T), once.logsnr(T), atol=1e-12)
  back = schedules.Shift(once, 1 / 6.0)
  np.testing.assert_allclose(back.logsnr(T), flow.logsnr(T), atol=1e-12)
  # their t' on the flow's own pair, and mu = log k
  mu = np.log(6.0)
  t = np.exp(mu) / (np.exp(mu) + 1 / T - 1)
  np.testing.assert_allclose(once.logsnr(T), flow.logsnr(t), atol=1e-12)
  side = flow.logsnr(T) + 2 * np.log(64 / 384)
  np.testing.assert_allclose(once.logsnr(T), side, atol=1e-12)


def test_karras_tends_to_geometric_as_rho_grows(x64):
  """MATH 1.10b: rho → inf is log-uniform."""
  far = schedules.Karras(0.01, 50.0, 1e7).logsnr(T)
  np.testing.assert_allclose(far, schedules.Geometric().logsnr(T), atol=1e-4)


def test_a_learned_schedule_has_exact_ends_and_is_monotone():
  """MATH 1.16b, whatever the weights."""
  for seed in range(3):
    s = schedules.learned(jax.random.key(seed), 16)
    s = s.replace(raw_out=3.0 * jax.random.normal(jax.random.key(9), (16,)))
    logsnr = s.logsnr(jnp.linspace(0.0, 1.0, 201))
    np.testing.assert_allclose(
      logsnr[jnp.array([0, -1])], [13.3, -5.0], rtol=1e-6
    )
    assert np.all(np.diff(logsnr) < 0)
    # what lies between, as it is printed
    gain, out = (np.logaddexp(0.0, w) for w in (s.raw_gain, s.raw_out))
    t = np.linspace(0.0, 1.0, 201)[:, None]
    g = t[:, 0] + (1 / (1 + np.exp(-gain * t - s.shift))) @ out
    share = (g - g[0]) / (g[-1] - g[0])
    np.testing.assert_allclose(
      logsnr, 13.3 + share * (-5.0 - 13.3), rtol=1e-5, atol=2e-5
    )


def test_schedules_by_name_are_the_papers(x64):
  """Those that are made of another schedule or of sides of images."""
  same = lambda a, b: np.testing.assert_allclose(
    a.logsnr(T), LOGSNR[b](T), atol=2e-9
  )
  same(schedules.make("shift", factor=3.0), "sd3_shift")
  same(schedules.make("shifted_cosine", image_size=256), "shifted_cosine")
  sides = dict(image_size=128, noise_low=32, noise_high=256)
  same(schedules.make("interpolated_cosine", **sides), "interpolated")
  same(schedules.make("zero_terminal", base="ddpm_table"), "zero_terminal")
  ends = schedules.make("learned", seed=3, logsnr_max=9.0).logsnr(
    jnp.array([0.0, 1.0])
  )
  np.testing.assert_allclose(ends, [9.0, -5.0], rtol=1e-6)
  seeds = [schedules.make("learned", seed=n).logsnr(0.3) for n in (0, 3)]
  assert seeds[0] != seeds[1]
  # 1.14b: k = √(m/n) for m, n tokens is the ratio of sides
  by_tokens = schedules.shift("flow", np.sqrt(256 * 256 / (64 * 64)))
  by_sides = schedules.Flow().logsnr(T) + 2 * np.log(64 / 256)
  np.testing.assert_allclose(by_tokens.logsnr(T), by_sides, atol=1e-12)


def test_the_table_has_every_name():
  known = {type(s).__name__ for s in SCHEDULES.values()}
  for name, factory in schedules.SCHEDULES.items():
    assert type(factory()).__name__ in known, name


@ALL
def test_one_trace_grad_and_vmap_through_parameters(name, x64):
  """Every number is a leaf: new values do not retrace; grad and vmap work."""
  s, traces = SCHEDULES[name], []

  def value(s):
    traces.append(1)
    l = s.logsnr(jnp.array(0.3)) + s.log_speed(jnp.array(0.7))
    return l + s.t(jnp.array(0.5)) + s.pair(jnp.array(0.6))[0]

  if not jax.tree.leaves(s):
    return
  s = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), s)
  g = jax.jit(jax.vmap(jax.value_and_grad(lambda c: value(nudged(s, c)))))
  many, slope = g(jnp.array([1.0, 1.02, 1.0 + 1e-6, 1.0 - 1e-6]))
  g(jnp.array([1.03, 1.04, 1.05, 1.06]))
  assert len(set(np.asarray(many).tolist())) == 4 and len(traces) == 1
  want = (many[2] - many[3]) / 2e-6
  np.testing.assert_allclose(slope[0], want, rtol=1e-4, atol=1e-5)


def test_a_users_schedule_is_completed(x64):
  @schedules.schedule
  class Quadratic:
    top: float = 10.0

    def logsnr(self, t):
      return self.top * (1.0 - 2.0 * t**2)

  s = schedules.check(Quadratic(8.0))
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


def test_a_users_alpha_and_sigma_are_a_schedule(x64):
  @schedules.schedule
  class Cubic:
    def pair(self, t):
      return 1.0 - t**3, t**3

  s = schedules.check(Cubic())
  np.testing.assert_allclose(s.t(s.logsnr(T)), T, atol=1e-9)
  lv = levels.at_logsnr(levels.linear, s.logsnr(T), s)
  np.testing.assert_allclose(lv.dsigma, 3 * T**2, rtol=1e-6)


def test_a_schedule_needs_one_of_the_two_forms():
  with pytest.raises(TypeError, match="Empty needs logsnr"):
    schedules.schedule(type("Empty", (), {}))


def _user(logsnr):
  return schedules.schedule(type("Mine", (), {"logsnr": logsnr}))()


@pytest.mark.parametrize(
  "make,message",
  [
    (
      lambda: schedules.make("linear_logsnr", logsnr_min=5.0, logsnr_max=-5.0),
      r"LinearLogSNR: logsnr_min must be < logsnr_max = -5.0, not 5.0",
    ),
    (
      lambda: schedules.make("karras", sigma_min=3.0, sigma_max=1.0),
      "sigma_min must be < sigma_max = 1.0, not 3.0",
    ),
    (lambda: schedules.make("karras", rho=0), "rho must be > 0, not 0"),
    (
      lambda: schedules.check(schedules.Karras(rho="a")),
      "Karras: rho must be a number, > 0, not 'a'",
    ),
    (
      lambda: schedules.make("flow", sigma_min=None),
      "sigma_min must be a finite number, not None",
    ),
    (
      lambda: schedules.make("linear_logsnr", logsnr_max=np.inf),
      "logsnr_max must be a finite number, not inf",
    ),
    (
      lambda: schedules.check(schedules.Flow),
      r"must be an object with logsnr\(t\), as Flow\(\) is, not <class",
    ),
    (
      lambda: schedules.make("iddpm_table", offset=-1.0),
      r"offset must be in \[0, 1\), not -1.0",
    ),
    (
      lambda: schedules.check(_user(lambda self, t: -jnp.floor(10 * t))),
      "must decrease .* it is -0 at t = 0 and -0 at t = 0.001",
    ),
    (lambda: schedules.make("sigmoid", tau=0), "tau must be > 0, not 0"),
    (
      lambda: schedules.make("geometric", sigma_min=-1.0),
      "Geometric: sigma_min must be > 0, not -1.0",
    ),
    (
      lambda: schedules.make("vp_linear", beta_min=-1.0),
      "VPLinear: beta_min must be > 0, not -1.0",
    ),
    (
      lambda: schedules.make("flow", sigma_min=1.0),
      r"must be in \[0, 1\), not",
    ),
    (
      lambda: schedules.check(schedules.Shift(schedules.Flow(), -1.0)),
      "Shift: factor must be > 0, not -1.0",
    ),
    (
      lambda: schedules.make("shifted_cosine", image_size=0),
      "image_size must be > 0, not 0",
    ),
    (lambda: schedules.make("shift", base="flw"), "unknown schedule 'flw'"),
    (
      lambda: schedules.make("sigmoid", start=3.0, end=-3.0),
      "start must be < end = -3.0, not 3.0",
    ),
    (
      lambda: schedules.make("scaled_linear_table", beta_start=-1.0),
      r"beta_start must be in \(0, 1\), not -1.0",
    ),
    (
      lambda: schedules.make("cosin"),
      "unknown schedule 'cosin': known are cosine, ddpm_table",
    ),
    (
      lambda: schedules.make("karras", roh=7.0),
      "'karras' takes no 'roh': its arguments are sigma_min, sigma_max, rho",
    ),
    (
      lambda: schedules.check(_user(lambda self, t: 10.0 * t)),
      r"Mine: logsnr\(t\) must decrease .* it is 0 at t = 0 and 0.01",
    ),
    (
      lambda: schedules.check(_user(lambda self, t: jnp.cos(9 * t))),
      "must decrease",
    ),
    (
      lambda: schedules.check(_user(lambda self, t: jnp.log(0.5 - t))),
      "is NaN",
    ),
    (
      lambda: schedules.check(_user(lambda self, t: jnp.sum(-t))),
      "must be elementwise",
    ),
    (
      lambda: schedules.check(schedules.Mode(spread=3.0)),
      "Mode: spread must be between -1 and 1.752, not 3.0",
    ),
    (
      lambda: schedules.beta_table([0.1, 0.2, 1.0]),
      r"betas\[2\] = 1 must be between 0 and 1",
    ),
    (lambda: schedules.beta_table([0.1, -0.2]), r"betas\[1\] = -0.2"),
    (lambda: schedules.beta_table([0.1]), "two numbers or more"),
    (lambda: schedules.Shift(3), "base must be an object with .*, not 3"),
    (lambda: schedules.ZeroTerminal("cosine"), "base must be an .*'cosine'"),
    (
      lambda: schedules.InterpolatedShift(schedules.Cosine),
      "base must be an object with logsnr",
    ),
    (
      lambda: schedules.Cosine().logsnr(1.5),
      r"t must be in \[0, 1\], from data to noise, not 1.5",
    ),
    (
      lambda: schedules.VPLinear().pair(jnp.array([0.2, -0.1])),
      r"t must be in \[0, 1\], from data to noise, not -0.1",
    ),
    (lambda: schedules.LinearLogSNR().logsnr(np.nan), "not nan"),
    (lambda: schedules.ddpm_table(2.5), "num must be an integer >= 2, not 2.5"),
  ],
)
def test_bad_input_gets_one_sentence(make, message):
  with pytest.raises(ValueError, match=message) as error:
    make()
  assert "\n" not in str(error.value)
