"""Full-covariance Gaussians, data sets, posteriors: MATH.md 9.1 to 9.6."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, gaussians, levels
from tests.tables import SCALES

MEAN = np.array([0.4, -0.3, 1.0])
ROOT = np.array([[0.8, 0.0, 0.0], [0.3, 0.5, 0.0], [-0.4, 0.2, 0.3]])
COV = ROOT @ ROOT.T
Z = np.array([[0.3, 1.0, -0.5], [1.4, -0.2, 0.8]])


@pytest.mark.parametrize("scale", SCALES)
def test_gaussian_by_linear_algebra(scale, x64):
  """MATH 9.2 with inverse and determinant of the full matrix."""
  g, lv = gaussians.gaussian(MEAN, COV), levels.at_logsnr(SCALES[scale], 0.7)
  a, s = float(lv.alpha), float(lv.sigma)
  total = a**2 * COV + s**2 * np.eye(3)
  inv, delta = np.linalg.inv(total), Z - a * MEAN
  x_hat, eps_hat = g(Z, lv)
  np.testing.assert_allclose(x_hat, MEAN + a * delta @ inv @ COV, atol=1e-12)
  np.testing.assert_allclose(a * x_hat + s * eps_hat, Z, atol=1e-12)
  np.testing.assert_allclose(g.score(Z, lv), -delta @ inv, atol=1e-12)
  quad = np.sum(delta @ inv * delta, axis=1)
  want = -0.5 * (quad + np.linalg.slogdet(2 * np.pi * total)[1])
  np.testing.assert_allclose(g.log_prob(Z, lv), want, atol=1e-12)
  np.testing.assert_allclose(g.covariance(lv), s**2 * COV @ inv, atol=1e-12)
  grad = jax.grad(lambda z: g.log_prob(z, lv).sum())(jnp.asarray(Z))
  np.testing.assert_allclose(g.score(Z, lv), grad, atol=1e-12)


def test_the_flow_map_follows_the_ode(x64):
  """MATH 9.3: d/dλ of the map is alpha' x̂ + sigma' ε̂ on vp."""
  g = gaussians.gaussian(MEAN, COV)
  start = levels.at_logsnr(levels.vp, -2.0)
  path = lambda l: g.flow(Z, start, levels.at_logsnr(levels.vp, l))
  for l in (-2.0, 0.5, 3.0):
    _, speed = jax.jvp(path, (jnp.asarray(l),), (jnp.ones(()),))
    lv = levels.at_logsnr(levels.vp, l)
    x_hat, eps_hat = g(path(l), lv)
    da, ds = 0.5 * lv.alpha * lv.sigma**2, -0.5 * lv.sigma * lv.alpha**2
    np.testing.assert_allclose(speed, da * x_hat + ds * eps_hat, atol=1e-12)
  np.testing.assert_allclose(path(-2.0), Z, atol=1e-13)


def test_mixture_covariance_is_the_jacobian_of_x_hat(x64):
  """MATH 9.1: ∂x̂/∂z = (alpha/sigma²) Cov(x|z), for mixture and Gaussian."""
  mix = closed_form.mixture(
    [0.3, 0.7], [[-1.0, 0.5, 0.0], [1.2, 0.0, -0.4]], [0.3, 0.5]
  )
  lv = levels.at_logsnr(levels.linear, 0.7)
  for dist, cov in (
    (mix, mix.covariance(Z, lv)),
    (gaussians.gaussian(MEAN, COV), None),
  ):
    one = lambda z, dist=dist: dist(z[None], lv)[0][0]
    jacobian = jax.vmap(jax.jacfwd(one))(jnp.asarray(Z))
    cov = dist.covariance(lv)[None] if cov is None else cov
    want = lv.alpha / lv.sigma**2 * cov
    np.testing.assert_allclose(
      jacobian, np.broadcast_to(want, (2, 3, 3)), atol=1e-12
    )


# Gauss-Hermite nodes for expectations over eps, Gauss-Legendre for logsnr
_X, _W = np.polynomial.hermite_e.hermegauss(80)
_W = _W / np.sqrt(2 * np.pi)


def _eps_mse(dist, x, logsnr):
  """E(eps - ε̂)² for one x, at levels (L,), by quadrature."""
  lv = levels.at_logsnr(levels.vp, np.repeat(logsnr, len(_X)))
  eps = np.tile(_X, len(logsnr))[:, None]
  z = levels.add_noise(np.full_like(eps, x), eps, lv)
  error = np.asarray((eps - dist(z, lv)[1]) ** 2).reshape(len(logsnr), -1)
  return error @ _W


def _integral(fn, lo, hi, panels=24):
  x, w = np.polynomial.legendre.leggauss(12)
  edges = np.linspace(lo, hi, panels + 1)
  half = (edges[1] - edges[0]) / 2
  nodes = ((edges[:-1] + half)[:, None] + half * x).ravel()
  return float(fn(nodes) @ np.tile(half * w, panels))


def _kl_to_marginal(dist, x, logsnr):
  """KL(q(z|x) ‖ p(z)) at a level, by quadrature."""
  lv = levels.at_logsnr(levels.vp, logsnr)
  z = lv.alpha * x + lv.sigma * _X[:, None]
  log_q = -0.5 * _X**2 - 0.5 * np.log(2 * np.pi) - np.log(lv.sigma)
  return float((log_q - np.asarray(dist.log_prob(z, lv))) @ _W)


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_the_bound_is_tight_for_every_single_x(kind, x64):
  """MATH 3.9 and 9.6: the path term is the difference of two KLs, so that
  prior + diffusion + Bayes reconstruction = -log p(x), x by x."""
  dist = {
    "gaussian": gaussians.gaussian([0.4], [[0.36]]),
    "mixture": closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5]),
  }[kind]
  lo, hi = -7.0, 8.0
  clean = levels.at_logsnr(levels.vp, jnp.inf)
  for x in (-1.5, 0.2, 1.0):
    path = 0.5 * _integral(lambda l, x=x: _eps_mse(dist, x, l), lo, hi)
    lv = levels.at_logsnr(levels.vp, hi)
    z = lv.alpha * x + lv.sigma * _X[:, None]
    log_q = -0.5 * _X**2 - 0.5 * np.log(2 * np.pi) - np.log(lv.sigma)
    log_px = float(dist.log_prob(jnp.array([[x]]), clean)[0])
    # Bayes: p(x|z) = q(z|x) p(x)/p(z)
    log_bayes = (log_q + log_px - np.asarray(dist.log_prob(z, lv))) @ _W
    bound = _kl_to_marginal(dist, x, lo) + path - log_bayes
    np.testing.assert_allclose(bound, -log_px, atol=2e-6)
    one, close = jnp.array([[x]]), dict(gaussian=1e-9, mixture=1e-6)[kind]
    np.testing.assert_allclose(dist.path_kl(one, lo, hi)[0], path, rtol=close)
    got = dist.eps_mse(one, jnp.array([0.7]))[0]
    want = _eps_mse(dist, x, np.array([0.7]))[0]
    np.testing.assert_allclose(got, want, rtol=0.1 * close)


def test_path_kl_in_three_dimensions_is_the_difference_of_kls(x64):
  g, x = gaussians.gaussian(MEAN, COV), jnp.asarray(Z)

  def kl(logsnr):
    lv = levels.at_logsnr(levels.vp, logsnr)
    a, v = float(lv.alpha), float(lv.sigma**2)
    total = a**2 * COV + v * np.eye(3)
    inv, y = np.linalg.inv(total), a * (Z - MEAN)
    quad = np.sum(y @ inv * y, axis=1) + v * np.trace(inv)
    return 0.5 * (quad - 3 + np.linalg.slogdet(total / v)[1])

  np.testing.assert_allclose(
    g.path_kl(x, -3.0, 5.0), kl(5.0) - kl(-3.0), rtol=1e-10
  )


def test_mutual_information_is_half_the_integral_of_the_mmse(x64):
  """MATH 3.9, I-MMSE: averaged over x the path term is I(λmax) - I(λmin)."""
  g = gaussians.gaussian(MEAN, COV)
  x, w = np.polynomial.hermite_e.hermegauss(4)
  grid = np.stack(np.meshgrid(x, x, x), -1).reshape(-1, 3)
  weight = np.prod(np.stack(np.meshgrid(w, w, w), -1), -1).reshape(-1)
  data = MEAN + grid @ ROOT.T
  info = lambda l: 0.5 * np.linalg.slogdet(np.eye(3) + np.exp(l) * COV)[1]
  got = g.path_kl(jnp.asarray(data), -3.0, 5.0) @ (weight / weight.sum())
  np.testing.assert_allclose(got, info(5.0) - info(-3.0), rtol=1e-10)


def test_a_data_set_is_denoised_to_its_points():
  """x̂ by brute force, and finite at both exact ends in float32."""
  points = np.array([[0.0, 1.0], [2.0, -1.0], [-1.0, 0.5]], np.float32)
  data = closed_form.dataset(points)
  z = jnp.array([[0.3, 0.8], [-1.0, 0.1]])
  lv = levels.at_logsnr(levels.vp, 1.0)
  logits = (
    -0.5
    * np.sum((np.asarray(z)[:, None] - float(lv.alpha) * points) ** 2, -1)
    / float(lv.sigma) ** 2
  )
  r = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  np.testing.assert_allclose(data(z, lv)[0], r @ points, rtol=1e-5)
  for l in (-np.inf, np.inf):
    x_hat, eps_hat = data(z, levels.at_logsnr(levels.vp, l))
    assert np.isfinite(x_hat).all() and np.isfinite(eps_hat).all()
  np.testing.assert_allclose(x_hat, points[[0, 2]])  # the nearest
  x_hat, _ = data(z, levels.at_logsnr(levels.vp, -np.inf))
  np.testing.assert_allclose(x_hat, np.tile(points.mean(0), (2, 1)), rtol=1e-5)


@pytest.mark.parametrize(
  "cov,message",
  [
    (np.eye(2), r"covariance must be \(3, 3\)"),
    (np.triu(np.ones((3, 3))), "must be symmetric"),
    (np.diag([1.0, -1.0, 1.0]), "no negative eigenvalue"),
  ],
)
def test_bad_covariances_are_refused(cov, message):
  with pytest.raises(ValueError, match=message):
    gaussians.gaussian(MEAN, cov)


def test_samples_have_the_covariance(x64):
  x = gaussians.gaussian(MEAN, COV).sample(jax.random.key(0), 40000)
  np.testing.assert_allclose(np.cov(np.asarray(x).T), COV, atol=0.02)
