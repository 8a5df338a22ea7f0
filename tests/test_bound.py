"""The variational bound: MATH.md 3.9 to 3.11."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import bound
from diffflow_jax.process import closed_form, gaussians, levels, schedules

VALUES = 2 * (np.arange(8) + 0.5) / 8 - 1
P = np.array([1.0, 3, 2, 5, 4, 2, 1, 2]) / 20
ENDS = schedules.LinearLogSNR(-8.0, 8.0)
_X, _W = np.polynomial.hermite_e.hermegauss(60)
_W = _W / np.sqrt(2 * np.pi)


def _data():
  return closed_form.mixture(P, VALUES[:, None], 0.0)


def test_prior_and_decoder_by_quadrature(x64):
  """MATH 3.9 and 3.11: both terms from their definitions, one dimension."""
  lv = levels.at_logsnr(levels.vp, -2.0)
  z = lv.alpha * 0.8 + lv.sigma * _X
  log_q = -0.5 * _X**2 - np.log(lv.sigma)
  want = (log_q + 0.5 * z**2) @ _W
  got = bound.prior_kl(jnp.array([[0.8]]), lv)
  np.testing.assert_allclose(got, want, rtol=1e-12)
  lv = levels.at_logsnr(levels.vp, 3.0)
  z = 0.37
  like = np.exp(-0.5 * ((z - lv.alpha * VALUES) / lv.sigma) ** 2)
  x = jnp.asarray(VALUES)[:, None]
  got = bound.decoder_log_prob(x, jnp.full((8, 1), z), lv, jnp.asarray(VALUES))
  np.testing.assert_allclose(np.exp(got), like / like.sum(), rtol=1e-10)


def test_the_bound_is_tight_for_discrete_data(x64):
  """MATH 3.9 and 3.11: with the exact denoiser the expected bound is -log2 P
  of each symbol, but for KL(p(z_1) ‖ N) and the decoder's gap: both small."""
  n, data = 20000, _data()

  @jax.jit
  def total(x, key):
    b = bound.variational_bound(
      data, ENDS, key, jnp.full((n, 1), x), jnp.asarray(VALUES)
    )
    return b.total.mean(), b.total.std() / np.sqrt(n)

  for k in (0, 3, 7):
    mean, error = total(VALUES[k], jax.random.key(k))
    assert abs(mean + np.log2(P[k])) < 4 * error + 0.01


def test_t_steps_approach_continuous_time_from_above(x64):
  """MATH 3.10: every step's KL, its sum, and the gap falling as 1/T."""
  s, t = levels.at_logsnr(levels.vp, 1.3), levels.at_logsnr(levels.vp, 1.9)
  # KL of two Gaussians whose means differ by the x̂ of one step
  keep = t.sigma**2 * -np.expm1(-(t.logsnr - s.logsnr))
  gain = t.alpha * -np.expm1(-(t.logsnr - s.logsnr))
  kl = (gain * 0.37) ** 2 / (2 * keep)
  two = schedules.LinearLogSNR(1.3, 1.9)
  wrong = lambda z, lv, cond: (
    None,
    (z - levels.bcast(lv.alpha, z) * (0.5 - 0.37)) / levels.bcast(lv.sigma, z),
  )
  one = bound.diffusion_nats(
    wrong, two, jnp.array([0.4]), jnp.array([[0.5]]), jnp.ones((1, 1)), None, 1
  )
  np.testing.assert_allclose(one, kl, rtol=1e-10)
  step = bound.step_nats(
    wrong, two, jnp.array([0]), 1, jnp.array([[0.5]]), jnp.ones((1, 1))
  )
  np.testing.assert_allclose(step, kl, rtol=1e-10)
  # a Gaussian: E‖eps - ε̂‖² is c SNR/(1 + c SNR), integrals in closed form
  g, c = gaussians.gaussian([0.0], [[0.36]]), 0.36
  x = 0.6 * jnp.array([[-1.0], [1.0]])  # the two-point rule: E x² = c
  info = 0.5 * (np.log1p(c * np.exp(8.0)) - np.log1p(c * np.exp(-8.0)))
  eps = jnp.array([[-1.0], [1.0]])
  gaps = []
  for num in (64, 128, 256):
    u = (jnp.arange(num) + 0.5) / num

    def at(u, x, eps, num=num):
      u = jnp.full(1, u)
      return bound.diffusion_nats(g, ENDS, u, x[None], eps[None], None, num)[0]

    every = jax.vmap(
      jax.vmap(jax.vmap(at, (None, None, 0)), (None, 0, None)), (0, None, None)
    )
    gaps.append(float(jax.jit(every)(u, x, eps).mean()) - info)
  assert gaps[0] > gaps[1] > gaps[2] > 0
  slopes = np.log2(np.array(gaps[:-1]) / np.array(gaps[1:]))
  np.testing.assert_allclose(slopes, 1.0, atol=0.15)


def test_the_bound_does_not_depend_on_the_path_between_its_ends(x64):
  """MATH 1.16b: any schedule with these ends, one expectation: by quadrature
  over u of the estimator, for x in two symmetric points."""
  g, want = gaussians.gaussian([0.0], [[0.36]]), None
  x = 0.6 * jnp.array([[-1.0], [1.0]])
  want = g.path_kl(x, -8.0, 8.0)
  for s in (
    ENDS,
    schedules.TruncatedCosine(-8.0, 8.0),
    schedules.learned(jax.random.key(1), 8, -8.0, 8.0),
  ):
    nodes, weights = np.polynomial.legendre.leggauss(200)
    u = jnp.asarray(0.5 * (nodes + 1))
    total = 0.0
    for e in (-1.0, 1.0):  # exact for polynomials of degree 3 in eps
      one = jax.jit(
        lambda i, s=s, e=e, u=u: bound.diffusion_nats(
          g,
          s,
          u,
          jnp.broadcast_to(x[i], (200, 1)),
          jnp.full((200, 1), e),
        )
      )
      total += 0.5 * np.array([one(i) @ (0.5 * weights) for i in (0, 1)])
    np.testing.assert_allclose(total, want, rtol=1e-6)


def test_bits_of_densities():
  """MATH 3.11: +7 for 256 levels on [-1, 1], +8 on [0, 1]; and the mass of a
  bin is its density times its width."""
  assert bound.density_bits(0.0, 3) == 7.0
  assert bound.density_bits(0.0, 3, width=1.0) == 8.0
  from scipy.stats import norm

  lo = -1 + 100 * 2 / 256
  mass = norm.cdf(lo + 2 / 256) - norm.cdf(lo)
  got = bound.density_bits(norm.logpdf(lo + 1 / 256), 1)
  np.testing.assert_allclose(got, -np.log2(mass), atol=1e-4)


def test_bits_are_per_dimension():
  """Images: one number an example, the terms divided by d ln 2."""
  x = jnp.broadcast_to(jnp.asarray(VALUES)[:, None, None], (8, 2, 3))
  zero = lambda z, lv, cond: (z, jnp.zeros_like(z))
  b = bound.variational_bound(
    zero, ENDS, jax.random.key(0), x, jnp.asarray(VALUES)
  )
  assert b.total.shape == (8,)
  lv = levels.at_logsnr(levels.vp, -8.0)
  want = 0.5 * (
    (lv.alpha * VALUES) ** 2 + lv.sigma**2 - 1 - np.log(lv.sigma**2)
  )
  np.testing.assert_allclose(b.prior, want / np.log(2), rtol=1e-3, atol=1e-7)
  with pytest.raises(TypeError):
    bound.variational_bound(zero, ENDS, jax.random.key(0), x)
  with pytest.raises(ValueError, match="logsnr goes from inf to -inf"):
    bound.variational_bound(
      zero, schedules.Flow(), jax.random.key(0), x, jnp.asarray(VALUES)
    )
