"""The Gaussian with any covariance: everything in closed form.

    x ~ N(m, C),   z ~ N(alpha m, S),   S = alpha² C + sigma² I
    x̂ = m + alpha C S⁻¹ (z - alpha m)      score = -S⁻¹ (z - alpha m)

In C's eigenbasis the coordinates are independent, so all of it is elementwise
there, the flow map and the variational bound of a single point included.
"""

import jax
import jax.numpy as jnp

from diffflow_jax.process import flow_maps, ranges
from diffflow_jax.process.levels import bcast


@ranges.node
class Gaussian:
  """N(m, C) with C = basis diag(variances) basisᵀ.

  Equation (gaussian) of docs/math.

  Attributes:
    mean: (d,); variances: (d,), >= 0; basis: (d, d), columns orthonormal.
  """

  mean: jax.Array
  variances: jax.Array
  basis: jax.Array
  _allowed = {"mean": "finite", "variances": ">= 0", "basis": "finite"}

  def _marginal(self, z, lv):
    """alpha, sigma, S's eigenvalues and z - alpha m in the eigenbasis."""
    alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
    total = alpha**2 * self.variances + sigma**2
    return alpha, sigma, total, (z - alpha * self.mean) @ self.basis

  def __call__(self, z, lv, cond=None):
    """predict(z, lv) -> (x̂, ε̂) for z (batch, d)."""
    alpha, sigma, total, delta = self._marginal(z, lv)
    pull = delta / total
    x_hat = self.mean + (alpha * self.variances * pull) @ self.basis.T
    return x_hat, (sigma * pull) @ self.basis.T

  def score(self, z, lv):
    """∇ log p(z), shape of z."""
    _, _, total, delta = self._marginal(z, lv)
    return -(delta / total) @ self.basis.T

  def log_prob(self, z, lv):
    """log p(z) of the noisy marginal in nats, (batch,)."""
    _, _, total, delta = self._marginal(z, lv)
    return -0.5 * jnp.sum(
      delta**2 / total + jnp.log(2 * jnp.pi * total), axis=-1
    )

  def covariance(self, lv):
    """Cov(x | z) = sigma² C S⁻¹ at one level, (d, d)."""
    total = lv.alpha**2 * self.variances + lv.sigma**2
    spectrum = lv.sigma**2 * self.variances / total
    return (self.basis * spectrum) @ self.basis.T

  def flow(self, z, start, end):
    """z_end = alpha_e m + S_e^½ S_s^-½ (z - alpha_s m), the exact flow map."""
    _, _, total, delta = self._marginal(z, start)
    alpha, sigma = bcast(end.alpha, z), bcast(end.sigma, z)
    total_end = alpha**2 * self.variances + sigma**2
    moved = jnp.sqrt(total_end / total) * delta
    return alpha * self.mean + moved @ self.basis.T

  has_exact_flow = True

  def effective(self, z, start, to):
    """(X, E) of the exact flow from a Level to the logsnr `to`, and x̂, ε̂ there.

    With c the variances and S those of z, in the eigenbasis and for any scale,

        X = m + c (α_t σ_s + α_s σ_t)/(σ_s √S_t + σ_t √S_s) · δ/√S_s
        E =     (α_t σ_s + α_s σ_t)/(α_t √S_s + α_s √S_t) · δ/√S_s

    of δ = z - alpha_s m: Δ is cancelled, so that t = s is no special case.
    """
    end = flow_maps.flow_level(to)
    alpha_s, sigma_s, total, delta = self._marginal(z, start)
    alpha_t, sigma_t = bcast(end.alpha, z), bcast(end.sigma, z)
    root_s = jnp.sqrt(total)
    root_t = jnp.sqrt(alpha_t**2 * self.variances + sigma_t**2)
    both = alpha_t * sigma_s + alpha_s * sigma_t
    by_x = sigma_s * root_t + sigma_t * root_s
    by_eps = alpha_t * root_s + alpha_s * root_t
    over = lambda top, den, end: jnp.where(
      den == 0.0, end, top / jnp.where(den == 0.0, 1.0, den)
    )
    # at the data z is alpha x, in pure noise sigma eps; a point is m elsewhere
    clean = root_s / jnp.maximum(alpha_s, 1e-30)
    clean = jnp.where(sigma_s == 0.0, clean, 0.0)
    gain_x = over(self.variances * both, by_x, clean)
    gain_eps = over(both, by_eps, root_s / jnp.maximum(sigma_s, 1e-30))
    unit = delta / root_s
    x = self.mean + (gain_x * unit) @ self.basis.T
    return x, (gain_eps * unit) @ self.basis.T

  def eps_mse(self, x, logsnr):
    """E‖eps - ε̂‖² over eps, for each single x (batch, d), in closed form.

    With r = e^logsnr, y = x - m in the eigenbasis:
    Σ_j (r² c_j² + r y_j²)/(1 + r c_j)².
    """
    r = bcast(jnp.exp(logsnr), x)
    y = (x - self.mean) @ self.basis
    c = self.variances
    return jnp.sum((r * r * c * c + r * y * y) / (1.0 + r * c) ** 2, axis=-1)

  def path_kl(self, x, logsnr_min, logsnr_max):
    """½ ∫ E‖eps - ε̂‖² dlogsnr between two levels, for each x: (batch,) nats.

    VDM's diffusion loss of the exact denoiser (arXiv:2107.00630 §4):
    ½ Σ_j [log(1 + r c_j) + (1 - y_j²/c_j)/(1 + r c_j)] at the two ends.
    """
    y2 = ((x - self.mean) @ self.basis) ** 2
    c = self.variances
    r_0, r_1 = jnp.exp(logsnr_min), jnp.exp(logsnr_max)
    # 1/(1 + r_1 c) - 1/(1 + r_0 c) without dividing by c
    gone = (r_1 - r_0) / ((1.0 + r_1 * c) * (1.0 + r_0 * c))
    logs = jnp.log1p(r_1 * c) - jnp.log1p(r_0 * c)
    return 0.5 * jnp.sum(logs + gone * (y2 - c), axis=-1)

  def sample(self, key, num_samples):
    """Clean draws x, (num_samples, d)."""
    eps = jax.random.normal(key, (num_samples, self.mean.shape[0]))
    return self.mean + (eps * jnp.sqrt(self.variances)) @ self.basis.T


def isotropic(mean, std):
  """N(mean, std² I): mean (d,), std a number.

  Equation (gaussian) of docs/math.
  """
  d = mean.shape[0]
  return Gaussian(mean, jnp.full((d,), std**2), jnp.eye(d, dtype=mean.dtype))


def gaussian(mean, covariance):
  """N(mean, covariance) from plain numbers (d,) and (d, d).

  Equation (gaussian) of docs/math.

  Raises:
    ValueError: not a symmetric, positive semidefinite matrix of that size.
  """
  mean = jnp.asarray(mean, jnp.result_type(float))
  covariance = jnp.asarray(covariance, mean.dtype)
  ranges.check("covariance", covariance)
  d = mean.shape[0]
  if covariance.shape != (d, d):
    raise ValueError(
      f"covariance must be {(d, d)} for a mean of length {d}, "
      f"not {covariance.shape}"
    )
  if not jnp.allclose(covariance, covariance.T):
    raise ValueError("covariance must be symmetric")
  variances, basis = jnp.linalg.eigh(covariance)
  if variances[0] < -1e-6 * jnp.abs(variances[-1]):
    raise ValueError(
      f"covariance must have no negative eigenvalue, not {variances[0]:g}"
    )
  return Gaussian(mean, jnp.maximum(variances, 0.0), basis)
