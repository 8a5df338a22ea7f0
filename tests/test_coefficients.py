"""Weights that solvers share, against quadrature: MATH.md 5.7 to 5.10."""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.sampling.solvers import coefficients as co

R, W = np.polynomial.legendre.leggauss(80)
R, W = 0.5 * (R + 1.0), 0.5 * W


def test_moments_match_quadrature():
  """Small, large and negative h, on both sides of the series' end."""
  h = np.array([-12.0, -1.01, -0.99, -1e-3, 1e-8, 0.3, 0.99, 1.01, 4.0, 20.0])
  got = co.moments(np, h, 4)
  for k in range(4):
    want = [np.sum(W * s * np.exp(-s * (1.0 - R)) * R**k) for s in h]
    np.testing.assert_allclose(got[k], want, rtol=1e-11)
  ends = co.moments(np, np.array([np.inf]), 4)
  np.testing.assert_array_equal(ends, np.ones((4, 1)))


def test_moments_and_their_slopes_in_float32():
  h = jnp.array([1e-6, 1e-3, 0.5, 0.999, 1.001, 6.0])
  exact = co.moments(np, np.asarray(h, np.float64), 3)
  np.testing.assert_allclose(co.moments(jnp, h, 3), exact, rtol=1e-5)
  slope = jax.vmap(jax.grad(lambda s: co.moments(jnp, s[None], 3)[2, 0]))(h)
  d = 1e-5
  up, down = (
    co.moments(np, np.asarray(h, np.float64) + e, 3)[2] for e in (d, -d)
  )
  np.testing.assert_allclose(slope, (up - down) / (2 * d), atol=1e-4)


def test_fitted_weights_integrate_polynomials():
  """Usable nodes fit as many powers as there are; the others weigh nothing."""
  nodes = np.array([[0.0, 0.0], [-0.7, -0.7], [-1.9, -1.9]])
  goal = np.array([[1.0, 1.0], [0.5, 0.5], [1 / 3, 1 / 3]])
  got = co.fit_weights(np, nodes, goal, np.array([3, 2]))
  for k in range(3):
    np.testing.assert_allclose((got[:, 0] * nodes[:, 0] ** k).sum(), goal[k, 0])
  np.testing.assert_allclose(got[:, 1], [1 + 0.5 / 0.7, -0.5 / 0.7, 0.0])


def test_history_stops_at_infinite_levels():
  at = np.array([-np.inf, -2.0, -1.0, 0.5])
  t = np.append(at[1:], np.inf)
  nodes, count = co.history(np, at, at, t, 3)
  np.testing.assert_array_equal(count, [1, 1, 2, 1])
  np.testing.assert_allclose(nodes[1, 2], -1.0 / 1.5)
