"""Samples and models of data whose law is known in closed form.

`closed_form.mixture` and `gaussians.gaussian` have densities, so a model of
them can be judged without features: by the divergence to it, by the likelihood
of its samples, by the share of every mode.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from diffflow_jax.evaluation import estimates
from diffflow_jax.process import levels


def gaussian_kl(mean_a, cov_a, mean_b, cov_b):
  """KL(N(m_a, C_a) ‖ N(m_b, C_b)) in nats, exact.

      ½ [tr C_b⁻¹ C_a + δᵀ C_b⁻¹ δ - d + log det C_b - log det C_a]

  Args:
    means (d,), covariances (d, d); C_b of full rank. inf where C_a is not.
  """
  mean_a, mean_b = np.atleast_1d(mean_a), np.atleast_1d(mean_b)
  cov_a, cov_b = np.atleast_2d(cov_a), np.atleast_2d(cov_b)
  delta = mean_b - mean_a
  both = np.linalg.solve(cov_b, np.column_stack([cov_a, delta]))
  logs = np.linalg.slogdet(cov_b)[1] - np.linalg.slogdet(cov_a)[1]
  trace, shift = np.trace(both[:, :-1]), delta @ both[:, -1]
  return float(0.5 * (trace + shift - len(delta) + logs))


def kl(log_p, log_q):
  """KL(p ‖ q) = E_p [log p - log q] in nats, from draws of p: an Estimate.

  p may be the data, with log q by `adaptive.log_likelihood`; or the model, with
  draws of its own. May come out below 0, within its error.

  Args:
    log_p, log_q: (num,) log densities at the same draws of p.
  Raises:
    ValueError: unequal shapes, NaN.
  """
  log_p, log_q = (np.asarray(a, np.float64) for a in (log_p, log_q))
  if log_p.shape != log_q.shape or log_p.ndim != 1 or not log_p.size:
    raise ValueError(
      "log_p and log_q must be of one shape (num,), not "
      f"{log_p.shape} and {log_q.shape}"
    )
  if np.isnan(log_p).any() or np.isnan(log_q).any():
    raise ValueError("log_p and log_q must be numbers, but some are NaN")
  return estimates.mean(log_p - log_q)


def log_likelihood(samples, data):
  """E log p(y) of samples under data's density, in nats: an Estimate.

  Less than of the data's own draws means samples where data is rare; more,
  samples that keep to the modes.

  Args:
    samples: (num, d); data: what has log_prob(z, level).
  """
  return estimates.mean(data.log_prob(jnp.asarray(samples), _clean()))


@jax.jit
def _responsibilities(mixture, samples):
  """r_k(y) = ∂ log p(y)/∂ log w_k, (num, K)."""
  log_p = lambda w: mixture.replace(log_weights=w).log_prob(samples, _clean())
  return jax.jacfwd(log_p)(mixture.log_weights)


class ModeShares(NamedTuple):
  """shares: K Estimates; expected: (K,) weights; p_value of the difference."""

  shares: list
  expected: np.ndarray
  p_value: float


def mode_shares(samples, mixture):
  """The share of samples in every component of a mixture.

  A sample counts for component k by its responsibility r_k(y), whose mean over
  the mixture's own draws is w_k exactly, however much components overlap. The
  intervals (Wilson's) and the p-value (Pearson's χ², K - 1 degrees) are those
  of whole counts, and wider than need be where components overlap.

  Args:
    samples: (num, d); mixture: a `closed_form.Mixture` of K components.
  """
  r = np.asarray(_responsibilities(mixture, jnp.asarray(samples)), np.float64)
  expected = np.exp(np.asarray(mixture.log_weights, np.float64))
  num, shares = len(r), r.mean(0)
  statistic = num * ((shares - expected) ** 2 / expected).sum()
  p_value = special.gammaincc((len(expected) - 1) / 2.0, statistic / 2.0)
  return ModeShares(
    [estimates.wilson(share * num, num) for share in shares],
    expected,
    float(p_value),
  )


def _clean():
  """The level of data: alpha = 1, sigma = 0."""
  return levels.from_pair(1.0, 0.0)
