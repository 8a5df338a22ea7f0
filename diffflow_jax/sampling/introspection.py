"""What a tableau does, read off its numbers: no network, no sampling.

Mixing is linear, so if the predictions are affine in the state, or are taken as
unknowns, everything that is held is a vector over a fixed basis, and running
the tableau on these vectors is exact.
"""

import numpy as np

from diffflow_jax.process import targets
from diffflow_jax.process.schedule import unit_pair
from diffflow_jax.sampling.checks import is_traced
from diffflow_jax.sampling.grids import on_host
from diffflow_jax.sampling.solvers import coordinates


def _push(tableau, respond, start, drawn):
  """Runs the mixing rows on vectors.

  Args:
    respond: (i, z vector) -> vector of the kept h.
    start: the initial state's vector; drawn: (N+1, width), of the noise draws.
  Returns:
    The sample's vector.
  """
  if is_traced(tableau) or tableau.length is not None:
    raise TypeError("introspection needs a concrete tableau, not padded")
  mix = np.asarray(tableau.mix, np.float64)
  anchor = z = start
  h = [np.zeros_like(start)] * tableau.num_kept
  for i in range(mix.shape[0]):
    anchor, z = mix[i] @ np.stack([anchor, z, *h, drawn[i]])
    if i < mix.shape[0] - 1:
      h = [respond(i, z), *h[:-1]]
  return anchor


def _on_path(levels, coordinate):
  """(levels with a clock on a path's scale, factor to that scale)."""
  path = coordinates.at(coordinate, coordinates.time_of(levels, coordinate))
  return path, coordinates.gain(levels, path)


def contributions(tableau, target=targets.x, coordinate=None):
  """The weight of every prediction and noise draw in the sample.

      sample = start z_0 + Σ_i kept_i y_i + Σ_i noise_i xi_i

  Equation (affine) of docs/math. Equation (contributions) of docs/math.

  Args:
    target: what y is, as `targets.x` or `targets.v`: all of them say the same
      in other weights. None is what the tableau itself keeps.
    coordinate: the path (see `coordinates`) whose scale and clock y is of; None
      is the scale of the tableau's own levels, and "flow" for `targets.u`,
      which needs a clock.
  Returns:
    dict with start (), kept (N,) and noise (N+1,), NumPy arrays.
  """
  n = tableau.num_evaluations
  basis = np.eye(2 * n + 2)  # the start, y_0 … y_{N-1}, xi_0 … xi_N
  if target is None:
    respond = lambda i, z: basis[1 + i]
  else:
    a, b = np.asarray(tableau.target, np.float64).T
    levels, gain = tableau.levels, 1.0
    if coordinate is None and target is targets.u:
      coordinate = "flow"
    if coordinate is not None:
      levels, gain = _on_path(levels, coordinate)
    solve = on_host(lambda lv: targets.solve(target, lv), levels)
    x_z, x_y, eps_z, eps_y = solve
    x_z, eps_z = gain * x_z, gain * eps_z
    respond = lambda i, z: (
      (a[i] * x_z[i] + b[i] * eps_z[i]) * z
      + (a[i] * x_y[i] + b[i] * eps_y[i]) * basis[1 + i]
    )
  out = _push(tableau, respond, basis[0], basis[n + 1 :])
  return dict(start=out[0], kept=out[1 : n + 1], noise=out[n + 1 :])


def _gaussian_gains(lv, std):
  """(of x̂ - m, of ε̂) on z - α m for data N(m, std² I): the exact predictions.

  α s²/V,  σ/V    with V = α² s² + σ²; of a flow map on its way from there
  s² c/(√V (σ √W + τ √V)),  c/(√V (β √V + α √W))      to (β, τ), where
  c = σ β + α τ,  W = β² s² + τ²: then β x̂ + τ ε̂ lies on the flow
  """
  al, si = (np.asarray(f, np.float64) for f in (lv.alpha, lv.sigma))
  var = (al * std) ** 2 + si**2
  here = al * std**2 / var, si / var
  if lv.to is None:
    return here
  to = np.asarray(lv.to, np.float64)
  be, ta = on_host(unit_pair, to)
  big, small = np.sqrt(var), np.hypot(be * std, ta)
  with np.errstate(divide="ignore", invalid="ignore"):
    cross = (si * be + al * ta) / big
    way = (
      cross * std**2 / (si * small + ta * big),
      cross / (be * big + al * small),
    )
  stays = to == np.asarray(lv.logsnr)
  x, e = (np.where(stays, a, b) for a, b in zip(here, way, strict=True))
  return x if std else np.zeros_like(x), e


def gaussian_map(tableau, mean, std):
  """The sample as an affine function of the start, for data N(mean, std² I).

      sample = offset + gain z_0 + Σ_i noise_i xi_i

  x̂ = m + α s²/(α² s² + σ²) (z - α m) is affine, so this is exact. The true flow
  has gain √(V_end/V_start), V = α² s² + σ². Of a flow map's table the pair is
  that of the exact map to where the network is told to go.

  Equation (affine) of docs/math.

  Returns:
    dict with offset (), gain () and noise (N+1,), NumPy arrays.
  """
  n = tableau.num_evaluations
  basis = np.eye(n + 3)  # 1, the start, xi_0 … xi_N
  al = np.asarray(tableau.levels.alpha, np.float64)
  x, e = _gaussian_gains(tableau.levels, std)
  a, b = np.asarray(tableau.target, np.float64).T

  def respond(i, z):
    pull = z - al[i] * mean * basis[0]
    return a[i] * (mean * basis[0] + x[i] * pull) + b[i] * e[i] * pull

  out = _push(tableau, respond, basis[1], basis[2:])
  return dict(offset=out[0], gain=out[1], noise=out[2:])


def gaussian_moments(tableau, mean, std):
  """(mean, variance) of the samples for data N(mean, std²), without sampling.

  The start is drawn from the exact marginal at the tableau's start.

  Equation (affine) of docs/math.
  """
  out = gaussian_map(tableau, mean, std)
  start = tableau.start
  var = (start.alpha * std) ** 2 + start.sigma**2
  return (
    float(out["offset"] + out["gain"] * start.alpha * mean),
    float(out["gain"] ** 2 * var + np.sum(out["noise"] ** 2)),
  )


def damping(tableau, stds):
  """The gain on data N(0, s² I) over the exact one, for each s: 1 is perfect.

  This is the stability plot of a diffusion sampler: its linear test equation is
  the Gaussian, stiff where s is small; |ratio| far above 1 is an instability.
  """
  start, end = tableau.start, tableau.end
  var = lambda lv, s: (lv.alpha * s) ** 2 + lv.sigma**2
  return np.array(
    [
      gaussian_map(tableau, 0.0, s)["gain"]
      / np.sqrt(var(end, s) / var(start, s))
      for s in np.atleast_1d(stds)
    ]
  )


def order_conditions(tableau, degree=3):
  """Relative errors of the sample when x̂ is 1, r, r², … of the log-SNR.

      x̂(ell) = r^k, r = (ell - ell_start)/(ell_end - ell_start), z_start = 0:
      z_end = alpha_end ∫ H e^{-H(1-r)} r^k dr,   H = ell_end - ell_start

  for k = 0 … degree (arXiv:2211.01095 eq. 8). A method of order p has errors of
  order p in the step: the quadrature part of its order conditions.

  Equation (exponential) of docs/math. Equation (moments) of docs/math.

  Returns:
    (degree + 1,) NumPy array. Needs finite start and end.
  Raises:
    ValueError: an end is infinite, or the table is a flow map's, whose steps
      are exact whatever x̂ at a level is.
  """
  if tableau.levels.to is not None:
    raise ValueError(
      "order_conditions are of solvers that are given x̂ at a level: a flow "
      "map's step is exact, and has no order"
    )
  ell = lambda lv: 0.5 * np.asarray(lv.logsnr, np.float64)
  lo, hi = ell(tableau.start), ell(tableau.end)
  if not (np.isfinite(lo) and np.isfinite(hi)):
    raise ValueError("order_conditions needs a finite start and end")
  weight = contributions(tableau, targets.x)["kept"]
  r = (ell(tableau.levels) - lo) / (hi - lo)
  x, w = np.polynomial.legendre.leggauss(64)
  x, w = 0.5 * (x + 1.0), 0.5 * w
  kernel = (hi - lo) * np.exp(-(hi - lo) * (1.0 - x)) * w
  powers = np.arange(degree + 1)[:, None]
  want = tableau.end.alpha * (x**powers) @ kernel
  return (r**powers) @ weight / want - 1.0
