"""What solvers share: step sizes, the exact step, and rows of a tableau.

A step goes from level s to the cleaner level t; ell = logsnr/2 and
h = ell_t - ell_s > 0, +inf where alpha_s = 0 or sigma_t = 0. Written for NumPy
(concrete grids, float64) and jax.numpy (traced grids) alike.
"""

import jax.numpy as jnp
import numpy as np

from diffflow_jax.sampling.grids import is_traced
from diffflow_jax.sampling.tableau import ANCHOR, H, Z


def namespace(levels):
  """numpy for a concrete grid, jax.numpy for a traced one."""
  return jnp if is_traced(levels) else np


def steps(levels):
  """(s, t): the levels that the N steps leave from and arrive at."""
  return levels[:-1], levels[1:]


def step_size(s, t):
  """h = ell_t - ell_s, half the log-SNR difference; +inf at an exact end."""
  return 0.5 * (t.logsnr - s.logsnr)


def exact_step(s, t, keep=1.0):
  """(A, B) of z_t = A z_s + B x̂, exact for constant x̂.

      A = (sigma_t/sigma_s) keep,   B = alpha_t - alpha_s A

  keep = 1 is DDIM (arXiv:2010.02502 eq. 12), keep = e^-kappa overshoots to
  leave room for noise. Finite at alpha_s = 0 and sigma_t = 0.
  """
  a = t.sigma / s.sigma * keep
  return a, t.alpha - s.alpha * a


def finite_ratio(xp, numerator, denominator):
  """numerator/denominator, 0 where either is infinite or missing (first step).

  At an infinite h a correction has no meaning: that step is first order.
  """
  ok = xp.isfinite(numerator) & xp.isfinite(denominator)
  return xp.where(
    ok, xp.where(ok, numerator, 0.0) / xp.where(ok, denominator, 1.0), 0.0
  )


def row(num_kept, *, anchor=0.0, z=0.0, h=(), noise=0.0):
  """One mixing vector (K+3,) from its named entries."""
  xp = namespace([anchor, z, *h, noise])
  zeros = [xp.zeros(())] * (num_kept - len(h))
  return xp.stack([xp.asarray(c) for c in (anchor, z, *h, *zeros, noise)])


def identity_row(num_kept):
  """The row that moves nothing: before the first evaluation."""
  eye = np.zeros((2, num_kept + 3))
  eye[0, ANCHOR] = eye[1, Z] = 1.0
  return eye


def one_evaluation_mix(xp, num_kept, z, h, noise=None):
  """(N+1, 2, K+3) of a solver that evaluates once a step.

  Args:
    z: (N,), weight of the state; h: list of up to K arrays (N,), newest first.
    noise: (N,), or None for a deterministic solver.
  """
  n = z.shape[0]
  columns = [xp.zeros(n)] * (num_kept + 3)
  columns[Z] = z
  columns[H : H + len(h)] = h
  if noise is not None:
    columns[-1] = noise
  step = xp.stack(columns, axis=-1)
  both = xp.stack([step, step], axis=1)
  return xp.concatenate([xp.asarray(identity_row(num_kept))[None], both])
