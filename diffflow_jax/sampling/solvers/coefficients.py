"""What solvers share: step sizes, the exact step, weights, rows of a tableau.

A step goes from level s to the cleaner level t; ell = logsnr/2 and
h = ell_t - ell_s > 0, +inf where alpha_s = 0 or sigma_t = 0. Written for NumPy
(concrete grids, float64) and jax.numpy (traced grids) alike.
"""

import jax.numpy as jnp
import numpy as np

from diffflow_jax.process.levels import Level
from diffflow_jax.process.schedules import unit_pair
from diffflow_jax.sampling import checks
from diffflow_jax.sampling.checks import is_traced
from diffflow_jax.sampling.grids import on_host
from diffflow_jax.sampling.tableau import ANCHOR, Tableau, Z, without_clock

X, EPS = (1.0, 0.0), (0.0, 1.0)  # what is kept: x̂ or ε̂


def namespace(levels):
  """numpy for a concrete grid, jax.numpy for a traced one."""
  return jnp if is_traced(levels) else np


def steps(levels):
  """(s, t): the levels that the N steps leave from and arrive at.

  Raises:
    ValueError: the levels are no grid, in either direction.
  """
  checks.grid(levels, backwards=True)
  return levels[:-1], levels[1:]


def step_size(s, t):
  """h = ell_t - ell_s, half the log-SNR difference; +inf at an exact end."""
  return 0.5 * (t.logsnr - s.logsnr)


def exact_step(s, t, keep=1.0):
  """(A, B) of z_t = A z_s + B x̂, exact for constant x̂.

      A = (sigma_t/sigma_s) keep,   B = alpha_t - alpha_s A

  keep = 1 is DDIM (arXiv:2010.02502 eq. 12), keep = e^-kappa overshoots to
  leave room for noise. Finite at alpha_s = 0 and sigma_t = 0.

  Raises:
    ValueError: sigma_s = 0, where z_s = alpha_s x leaves no ratio to keep.
  """
  if not is_traced(s) and np.any(np.asarray(s.sigma) == 0.0):
    raise ValueError(
      "a step from sigma = 0 needs a solver in flow time, as heun: this one "
      "divides by sigma"
    )
  a = t.sigma / s.sigma * keep
  return a, t.alpha - s.alpha * a


def between(s, h, r):
  """The levels at ell_s + r h, on vp; s itself where h is infinite."""
  xp = namespace((s, h))
  inside = s.logsnr + 2.0 * r * xp.where(xp.isfinite(h), h, 0.0)
  alpha, sigma = unit_pair(inside) if xp is jnp else on_host(unit_pair, inside)
  return Level(inside, alpha, sigma)


def moments(xp, h, num):
  """m_k = ∫₀¹ h e^{-h(1-r)} r^k dr, k = 0 … num-1, (num, N).

      m_0 = 1 - e^-h,   m_k = 1 - (k/h) m_{k-1};   Taylor's series for |h| < 1

  They weigh the powers of the step's own clock r in the variation-of-constants
  formula of exponential integrators (m_1 is φ₂ of arXiv:2211.01095). m_k = 1 at
  h = inf.
  """
  small, finite = xp.abs(h) < 1.0, xp.isfinite(h)
  h_small, h_large = xp.where(small, h, 0.0), xp.where(small | ~finite, 1.0, h)
  recursive = [-xp.expm1(-h_large)]
  for k in range(1, num):
    recursive.append(1.0 - k / h_large * recursive[-1])
  out = []
  for k in range(num):
    series = xp.zeros_like(h_small)
    for j in range(18, -1, -1):  # Σ_j (-h)^j k!/(j+k+1)! by Horner
      series = (1.0 - h_small * series) / (j + k + 1.0)
    # Horner's factors 1/((k+1) … (k+j+1)) are k!/(j+k+1)!
    inner = xp.where(small, h_small * series, recursive[k])
    out.append(xp.where(finite, inner, 1.0))
  return xp.stack(out)


def fit_weights(xp, nodes, goal, count):
  """w with Σ_j w_j nodes_j^k = goal_k for k < count; w_j = 0 for j >= count.

  Every multistep method is this: the polynomial through the predictions at the
  nodes, integrated over the step; goal_k is the integral of r^k.

  Args:
    nodes, goal: (p, N), nodes in units of the step; count: (N,), usable nodes.
  Returns:
    (p, N).
  """
  p = nodes.shape[0]
  index = np.arange(p)
  usable = index[:, None] < count[None]
  nodes = xp.where(usable, nodes, 0.0)
  powers = [xp.ones_like(nodes)]
  for _ in range(p - 1):
    powers.append(powers[-1] * nodes)
  system = xp.moveaxis(xp.stack(powers), -1, 0)  # (N, k, j)
  square = xp.moveaxis(usable[:, None] & usable[None, :], -1, 0)
  system = xp.where(square, system, np.eye(p))
  right = xp.where(usable, goal, 0.0).T[..., None]
  return xp.linalg.solve(system, right)[..., 0].T


def history(xp, at, s, t, order, most=None):
  """Nodes r_j = (at_{i-j} - s_i)/(t_i - s_i), and how many of them are usable.

  Args:
    at: (N,) coordinate of evaluation i; s, t: (N,) of the step that follows it.
    most: None, or (N,) integers, how many nodes may be used.
  Returns:
    (nodes (order, N), count (N,)): count is 1 where the step is infinite, and
    stops before the start of the history or an infinite coordinate.
  """
  n = at.shape[0]
  step = t - s
  whole = xp.isfinite(step)
  safe = xp.where(whole, step, 1.0)
  nodes, count, alive = [], xp.zeros(n, int), xp.ones(n, bool)
  for j in range(order):
    past = xp.concatenate([xp.full(min(j, n), -xp.inf), at[: max(n - j, 0)]])
    ok = xp.isfinite(past) & whole
    nodes.append(
      xp.where(ok, xp.where(ok, past, 0.0) - xp.where(ok, s, 0.0), 0.0) / safe
    )
    alive = alive & (ok | (j == 0))
    count = count + alive
  return xp.stack(nodes), count if most is None else xp.minimum(count, most)


def columns(xp, num_kept, *, anchor=0.0, z=0.0, h=(), noise=0.0):
  """Mixing vectors (N, K+3) from their named columns, each () or (N,)."""
  cols = [anchor, z, *h, *[0.0] * (num_kept - len(h)), noise]
  cols = xp.broadcast_arrays(*(xp.asarray(c, float) for c in cols))
  return xp.stack(cols, axis=-1)


def identity_row(num_kept):
  """The row that moves nothing: before the first evaluation."""
  eye = np.zeros((2, num_kept + 3))
  eye[0, ANCHOR] = eye[1, Z] = 1.0
  return eye


def one_evaluation_mix(xp, num_kept, z, h, noise=0.0):
  """(N+1, 2, K+3) of a solver that evaluates once a step.

  Args:
    z: (N,), weight of the state; h: up to K arrays (N,), newest first.
    noise: (N,), or 0 for a deterministic solver.
  """
  step = columns(xp, num_kept, z=z, h=h, noise=noise)
  both = xp.stack([step, step], axis=1)
  return xp.concatenate([xp.asarray(identity_row(num_kept))[None], both])


def tableau(levels, mix, target, at, step=None):
  """The Tableau over a grid that evaluates at the levels `at`.

  Args:
    target: (a, b), each a number or (evaluations,).
    step: (evaluations,), the step of each; None is one evaluation a step.
  """
  xp = namespace((mix, target))
  n = mix.shape[0] - 1
  a, b = (xp.broadcast_to(xp.asarray(c, float), (n,)) for c in target)
  levels = without_clock(levels)
  return Tableau(
    mix=mix,
    target=xp.stack([a, b], axis=-1),
    levels=without_clock(at),
    start=levels[0],
    end=levels[-1],
    step_of_row=np.asarray(range(n) if step is None else step, np.float64),
  )
