"""Any average of the parameters from snapshots of others, post hoc.

The power-function average weights step τ of n by (γ + 1) τ^γ / n^(γ+1); its
relative width is σ_rel (Karras et al., arXiv:2312.02696 §3.1, eq. 2-4). From
snapshots of two such averages any other one is a least-squares combination
(§3.2, eq. 5-6, app. C): the average's length is chosen after training.
"""

import numpy as np

WIDTHS = (0.05, 0.1)  # that are kept where a config names none


def gamma_of(sigma_rel):
  """γ with relative width σ_rel = √(γ+1) / ((γ+2) √(γ+3)), eq. 3.

  The positive real root of σ² (γ+2)² (γ+3) = γ + 1.

  Raises:
    ValueError: sigma_rel is not in (0, 0.28], where γ >= 0 exists.
  """
  if not 0.0 < sigma_rel <= 12**-0.5:
    raise ValueError(
      f"sigma_rel must be in (0, {12**-0.5:.3f}], not {sigma_rel}"
    )
  s = sigma_rel**-2
  roots = np.roots([1.0, 7.0, 16.0 - s, 12.0 - s])
  return float(roots.real.max())


def _inner(n_a, gamma_a, n_b, gamma_b):
  """∫ p_a p_b of two power-function profiles that end at n_a and n_b.

  With m the shorter one's end: (γ_a+1)(γ_b+1) m^(γ_a+γ_b+1) /
  ((γ_a+γ_b+1) n_a^(γ_a+1) n_b^(γ_b+1)), eq. 6 (app. C.3), in logs.
  """
  m = np.minimum(n_a, n_b)
  total = gamma_a + gamma_b + 1.0
  log = (
    np.log(gamma_a + 1.0)
    + np.log(gamma_b + 1.0)
    - np.log(total)
    + total * np.log(m)
    - (gamma_a + 1.0) * np.log(n_a)
    - (gamma_b + 1.0) * np.log(n_b)
  )
  return np.exp(log)


def post_hoc_weights(steps, gammas, wanted_step, wanted_gamma):
  """Weights of snapshots whose sum is nearest to a wanted average.

  Least squares between profiles, A w = b with the inner products above
  (arXiv:2312.02696 Algorithm 3), among weights that sum to 1: parameters are
  large beside their changes, so that an average of a constant must be exact.

  Args:
    steps, gammas: (num,), the step and γ of every snapshot.
    wanted_step, wanted_gamma: of the average to be rebuilt.
  Returns:
    (num,) float64.
  """
  n, g = np.asarray(steps, np.float64), np.asarray(gammas, np.float64)
  ones = np.ones((1, len(n)))
  inner = _inner(n[:, None], g[:, None], n[None], g[None])
  a = np.block([[inner, ones.T], [ones, np.zeros((1, 1))]])  # Lagrange's system
  b = np.append(_inner(n, g, float(wanted_step), float(wanted_gamma)), 1.0)
  return np.linalg.lstsq(a, b, rcond=1e-12)[0][:-1]
