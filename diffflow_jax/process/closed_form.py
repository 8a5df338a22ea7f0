"""Closed forms: distributions whose exact denoiser is known at every level.

A mixture, a finite data set, an isotropic Gaussian; `gaussians` has the full
covariance. For x ~ Σ_k w_k N(m_k, s_k² I) the noisy marginal is a mixture too,

    p(z) = Σ_k w_k N(alpha m_k, V_k I),   V_k = alpha² s_k² + sigma²

and x̂ = E[x|z], ε̂ = E[eps|z], the score and the density follow (responsibilities
r_k, one log-sum-exp). They are the oracle of the tests, and of anyone who wants
to see a sampler's error without a network's.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import flow_maps, gaussians, levels, ranges
from diffflow_jax.process.exact_maps import flow_map
from diffflow_jax.process.levels import bcast
from diffflow_jax.process.nodes import concrete

__all__ = ["Mixture", "dataset", "flow_map", "gaussian", "mixture"]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(100)
_WEIGHTS = _WEIGHTS / np.sqrt(2 * np.pi)


@ranges.node
class Mixture:
  """Σ_k w_k N(m_k, s_k² I) in d dimensions; K = 1 is an isotropic Gaussian.

  Equation (mixture) of docs/math.

  Attributes:
    log_weights: (K,), normalised; means: (K, d); stds: (K,), > 0.
  """

  log_weights: jax.Array
  means: jax.Array
  stds: jax.Array
  _allowed = {
    "log_weights": "in [-inf, inf)",
    "means": "finite",
    "stds": ">= 0",
  }

  def _posterior(self, z, lv):
    """Responsibilities (batch, K), z - alpha m (batch, K, d), V, log p."""
    alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
    var = (alpha * self.stds) ** 2 + sigma**2
    # a point of a finite data set at sigma = 0: nearest neighbour, not 0/0
    var = jnp.maximum(var, 1e-30)
    delta = z[:, None, :] - (alpha[..., None] * self.means)
    d = z.shape[-1]
    logits = self.log_weights - 0.5 * (
      jnp.sum(delta**2, -1) / var + d * jnp.log(2 * jnp.pi * var)
    )
    return jax.nn.softmax(logits), delta, var, jax.nn.logsumexp(logits, -1)

  def __call__(self, z, lv, cond=None):
    """predict(z, lv) -> (x̂, ε̂): x̂ = Σ r_k [m_k + α s_k² (z - α m_k)/V_k]."""
    r, delta, var, _ = self._posterior(z, lv)
    alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
    pull = (r / var)[..., None] * delta
    x_hat = r @ self.means + alpha * jnp.sum(
      self.stds[:, None] ** 2 * pull, axis=1
    )
    return x_hat, sigma * jnp.sum(pull, axis=1)

  def score(self, z, lv):
    """∇ log p(z) = -Σ r_k (z - α m_k)/V_k, shape of z."""
    r, delta, var, _ = self._posterior(z, lv)
    return -jnp.sum((r / var)[..., None] * delta, axis=1)

  def log_prob(self, z, lv):
    """log p(z) of the noisy marginal in nats, (batch,)."""
    return self._posterior(z, lv)[3]

  def covariance(self, z, lv):
    """Cov(x | z), (batch, d, d): Σ r_k (c_k I + x_k x_kᵀ) - x̂ x̂ᵀ."""
    r, delta, var, _ = self._posterior(z, lv)
    alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
    gain = alpha * self.stds**2 / var
    x_k = self.means + gain[..., None] * delta
    x_hat = jnp.sum(r[..., None] * x_k, axis=1)
    left = x_k - x_hat[:, None, :]
    inside = jnp.sum(r * (sigma * self.stds) ** 2 / var, axis=1)
    eye = jnp.eye(z.shape[-1])
    return inside[:, None, None] * eye + jnp.einsum(
      "bk,bki,bkj->bij", r, left, left
    )

  def sample(self, key, num_samples):
    """Clean draws x, (num_samples, d)."""
    pick, noise = jax.random.split(key)
    k = jax.random.categorical(pick, self.log_weights, shape=(num_samples,))
    eps = jax.random.normal(noise, (num_samples, self.means.shape[-1]))
    return self.means[k] + self.stds[k, None] * eps

  def flow(self, z, start, end):
    """The exact probability-flow map from one level to another, for d = 1.

    In one dimension the flow is monotone, so it matches quantiles:
    z_end = F_end⁻¹(F_start(z)), by bisection. With K = 1 it is the affine map
    α_e m + √(V_e/V_s) (z - α_s m), taken in any dimension.
    """
    if self.means.shape[0] == 1:
      square = lambda c: bcast(c, z) ** 2
      v_s = square(start.alpha * self.stds[0]) + square(start.sigma)
      v_e = square(end.alpha * self.stds[0]) + square(end.sigma)
      return bcast(end.alpha, z) * self.means + jnp.sqrt(v_e / v_s) * (
        z - bcast(start.alpha, z) * self.means
      )
    if not self.has_exact_flow:
      raise ValueError(
        "the exact flow is known for one component or one dimension, "
        f"not for means of shape {self.means.shape}: flow_map solves its ODE"
      )
    return self._quantile(self._logit_cdf(z, start), end)

  @property
  def has_exact_flow(self):
    """Whether `flow` is in closed form: one component, or one dimension."""
    return 1 in self.means.shape

  def effective(self, z, start, to):
    """(X, E) of the exact flow from a Level to the logsnr `to`.

    alpha X + sigma E = z at the start, and the same of the flow at the end;
    x̂, ε̂ where they are one.
    """
    if self.means.shape[0] == 1:
      normal = gaussians.isotropic(self.means[0], self.stds[0])
      return normal.effective(z, start, to)
    here, there = map(flow_maps.flow_level, (start.logsnr, to))
    z = bcast(levels.rescale(start, here), z) * z
    lapse = flow_maps.gap(here, there)
    still = lapse == 0.0
    moved = z - self.flow(z, here, there)
    x_hat, eps_hat = self(z, here)
    u_bar = jnp.where(
      bcast(still, z),
      eps_hat - x_hat,
      moved / bcast(jnp.where(still, 1.0, lapse), z),
    )
    return z - bcast(here.sigma, z) * u_bar, z + bcast(here.alpha, z) * u_bar

  def _quantile(self, goal, lv):
    """z with _logit_cdf(z, lv) = goal, by bisection; derivatives are exact."""
    # log F - log(1 - F) is compared, so that both tails keep their digits
    reach = jnp.max(jnp.abs(self.means)) + 12.0 * jnp.max(self.stds)
    width = bcast(lv.alpha, goal) * reach + 12.0 * bcast(lv.sigma, goal)

    def halve(_, bracket):
      lo, hi = bracket
      mid = 0.5 * (lo + hi)
      below = self._logit_cdf(mid, lv) < goal
      return jnp.where(below, mid, lo), jnp.where(below, hi, mid)

    hi = jnp.broadcast_to(width, goal.shape)
    lo, hi = jax.lax.stop_gradient(jax.lax.fori_loop(0, 100, halve, (-hi, hi)))
    z = 0.5 * (lo + hi)
    # a Newton step of value 0, whose derivative is that of the inverse
    cdf = lambda z: self._logit_cdf(z, lv)
    _, slope = jax.jvp(cdf, (z,), (jnp.ones_like(z),))
    slope = jax.lax.stop_gradient(slope)
    found = jnp.isfinite(slope) & (slope > 0.0)  # not where F is a step
    miss = jnp.where(found, cdf(z) - goal, 0.0)
    miss = miss - jax.lax.stop_gradient(miss)
    return z - miss / jnp.where(found, slope, 1.0)

  def _mean_over_eps(self, fn, x, logsnr):
    """E fn(eps, z, lv) over eps for each x (batch, 1), on vp: (batch,)."""
    if self.means.shape[1] != 1:
      raise ValueError(
        "exact expectations of a mixture are known for one dimension, "
        f"not for means of shape {self.means.shape}"
      )
    lv = levels.at_logsnr(levels.vp, jnp.broadcast_to(logsnr, x.shape[:1]))
    one = lambda eps: fn(eps, levels.add_noise(x, eps, lv), lv)
    return _WEIGHTS @ jax.vmap(one)(_NODES)

  def eps_mse(self, x, logsnr):
    """E‖eps - ε̂‖² over eps, for each single x (batch, 1), by quadrature."""
    error = lambda eps, z, lv: (eps - self(z, lv)[1][:, 0]) ** 2
    return self._mean_over_eps(error, x, logsnr)

  def path_kl(self, x, logsnr_min, logsnr_max):
    """½ ∫ E‖eps - ε̂‖² dlogsnr between two levels, for each x: (batch,) nats.

    VDM's diffusion loss of the exact denoiser (arXiv:2107.00630 §4), d = 1:
    what KL(q(z|x) ‖ p(z)) gains from the noisier level to the cleaner one.
    """
    log_ratio = lambda eps, z, lv: (
      -0.5 * eps**2 - 0.5 * jnp.log(2 * jnp.pi * lv.sigma**2)
      - self.log_prob(z, lv)
    )  # fmt: skip
    kl = lambda logsnr: self._mean_over_eps(log_ratio, x, logsnr)
    return kl(logsnr_max) - kl(logsnr_min)

  def _logit_cdf(self, z, lv):
    alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
    std = jnp.sqrt(jnp.maximum((alpha * self.stds) ** 2 + sigma**2, 1e-30))
    q = (z - alpha * self.means[:, 0]) / std
    log_cdf = jax.nn.logsumexp(
      self.log_weights + jax.scipy.special.log_ndtr(q), -1, keepdims=True
    )
    log_sf = jax.nn.logsumexp(
      self.log_weights + jax.scipy.special.log_ndtr(-q), -1, keepdims=True
    )
    return log_cdf - log_sf


def mixture(weights, means, stds):
  """A Mixture from plain numbers: weights (K,), means (K, d), stds (K,).

  Equation (mixture) of docs/math.

  Raises:
    ValueError: means of another shape, negative weights or stds, NaN.
  """
  weights = jnp.asarray(weights, jnp.result_type(float))
  means = jnp.asarray(means, weights.dtype)
  stds = jnp.broadcast_to(jnp.asarray(stds, weights.dtype), weights.shape)
  if means.ndim != 2 or means.shape[0] != weights.shape[0]:
    raise ValueError(
      f"means must be (K, d) with K = {weights.shape[0]} weights, "
      f"not {means.shape}"
    )
  ranges.check("weights", weights, ">= 0")
  if concrete(weights):
    if not jnp.sum(weights) > 0:
      raise ValueError(f"weights must be >= 0 and not all 0, not {weights}")
  return Mixture(jnp.log(weights / jnp.sum(weights)), means, stds)


def dataset(points):
  """The finite data set of points (K, d): x̂ is their weighted mean.

      x̂ = Σ r_k x_k,   r_k ∝ exp(-‖z - alpha x_k‖²/(2 sigma²))

  What a network that fits its training data perfectly would say.

  Equation (mixture) of docs/math.
  """
  points = jnp.asarray(points, jnp.result_type(float))
  return mixture(jnp.ones(points.shape[0]), points, 0.0)


def gaussian(mean, std):
  """N(mean, std² I) as a Mixture of one: mean (d,), std a number.

  Equation (mixture) of docs/math.
  """
  return mixture([1.0], jnp.asarray(mean)[None], [std])
