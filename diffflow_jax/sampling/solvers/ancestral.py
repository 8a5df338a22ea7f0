"""k-diffusion's solvers of two evaluations a step, without noise and with it.

    dpm_2      the midpoint method in sigma/alpha, its middle the geometric one
    ancestral  a step to e^-kappa of the noise of t, and fresh noise up to it:
               keep = √(1 - eta² f), noise eta sigma_t √f, f = 1 - e^-2h

A step from alpha = 0 or to sigma = 0 has an infinite h and one evaluation,
DDIM's. eta is one number, one for each step, or a function of the level that a
step leaves from, as of `ddim`. k-diffusion's eta of these is ours (in its
SDE-DPM++ 2M and 3M it is our eta²).
"""

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.solvers import coefficients as co, per_step
from diffflow_jax.sampling.solvers.exponential import single, staged
from diffflow_jax.sampling.solvers.sde_solvers import ancestral

FIELDS = ("logsnr", "alpha", "sigma")


def _down(levels, eta):
  """(s, t, keep, noise, the h of the step to where the noise is added)."""
  s, t = co.steps(levels)
  eta = per_step.numbers("eta", eta, levels)
  checks.no_noise_backwards(levels, eta)
  keep, noise = ancestral(s, t, eta)
  xp = co.namespace((levels, eta))
  some = keep > 0
  kappa = xp.where(some, -xp.log(xp.where(some, keep, 1.0)), xp.inf)
  return s, t, keep, noise, co.step_size(s, t) + kappa


def dpm_2(levels):
  """k-diffusion's sample_dpm_2: DPM-Solver-2's midpoint in ε̂; order 2.

      z_m = (alpha_m/alpha_s) z_s + alpha_m (r_m - r_s) ε̂_s,   r = sigma/alpha
      z_t = (alpha_t/alpha_s) z_s + alpha_t (r_t - r_s) ε̂_m,   r_m = √(r_s r_t)

  arXiv:2206.00364's Algorithm 2 with DPM-Solver-2 in place of Heun's method;
  for its churn see `churned`.

  Equation (dpm_2) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); both exact ends are fine.
  Returns:
    Tableau of 2 evaluations for every finite step, or every step of a traced
    grid; keeps 2 predictions.
  """
  return dpm_2_ancestral(levels, 0.0)


def dpm_2_ancestral(levels, eta=1.0):
  """k-diffusion's sample_dpm_2_ancestral: `dpm_2` to less noise, then noise.

      z_t = (alpha_t/alpha_s) z_s + alpha_t (r_d - r_s) ε̂_m + noise xi

  with alpha_t r_d = keep sigma_t and r_m = √(r_s r_d), as above.

  Equation (dpm_2) of docs/math. Equation (ancestral) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); eta: 0 is `dpm_2`.
  Returns:
    Tableau, as `dpm_2`.
  Raises:
    ValueError: as `ddim`.
  """
  s, t, keep, noise, h = _down(levels, eta)
  xp = co.namespace((levels, h))
  mid = co.between(s, h, 0.5)
  some = s.alpha > 0
  ratio = lambda lv: lv.alpha / xp.where(some, s.alpha, 1.0)
  stage = dict(anchor=ratio(mid), h=[mid.sigma - s.sigma * ratio(mid)])
  update = dict(
    anchor=ratio(t), h=[t.sigma * keep - s.sigma * ratio(t)], noise=noise
  )
  a, b = co.exact_step(s, t, keep)
  short = dict(anchor=a, h=[b], noise=noise)
  # an infinite step of a traced grid keeps x̂, and uses that of its first stage
  alone = ~xp.isfinite(h)
  either = lambda one, two: xp.where(alone, one, two)
  if xp is co.jnp:
    update = dict(
      anchor=either(a, update["anchor"]),
      h=[either(0.0, update["h"][0]), either(b, 0.0)],
      noise=noise,
    )
  target = either(1.0, 0.0), either(0.0, 1.0)
  return staged(
    levels, single(levels, h), [mid], [stage, update], short, target
  )


def dpmpp_2s_ancestral(levels, eta=1.0, r=0.5):
  """k-diffusion's sample_dpmpp_2s_ancestral: `dpmpp_2s`, then noise.

      x̂_m at ell_s + r (h + kappa), by DDIM
      z_t = A z_s + B [(1 - 1/2r) x̂_s + x̂_m/2r] + noise xi
      A = keep sigma_t/sigma_s,   B = alpha_t - alpha_s A,   kappa = -log keep

  Equation (dpmpp_2s) of docs/math. Equation (ancestral) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); eta: 0 is `dpmpp_2s`.
    r: where the second evaluation is, in (0, 1].
  Returns:
    Tableau, as `dpmpp_2s`.
  Raises:
    ValueError: as `ddim`, or r is outside (0, 1].
  """
  checks.number("r", r, "in (0, 1]", lambda r: 0 < r <= 1)
  s, t, keep, noise, h = _down(levels, eta)
  xp = co.namespace((levels, h))
  mid = co.between(s, h, r)
  a_m, b_m = co.exact_step(s, mid)
  a, b = co.exact_step(s, t, keep)
  w = 0.5 / r * xp.isfinite(h)
  stage = dict(anchor=a_m, h=[b_m])
  update = dict(anchor=a, h=[b * w, b * (1.0 - w)], noise=noise)
  short = dict(anchor=a, h=[b], noise=noise)
  return staged(levels, single(levels, h), [mid], [stage, update], short)


def dpmpp_sde(levels, eta=1.0, r=0.5):
  """k-diffusion's sample_dpmpp_sde: two stages, with noise in both.

      z_m = A_m z_s + B_m x̂_s + noise_m xi_1       at ell_s + r h, DDIM(eta)
      z_t = A z_s + B [(1 - 1/2r) x̂_s + x̂_m/2r] + noise (ρ xi_1 + √(1-ρ²) xi_2)

  with A, B of `dpmpp_2s_ancestral`. Both noises are those of one Brownian path
  in sigma/alpha, as there: ρ² = (r_s - r_m)/(r_s - r_t), r = sigma/alpha.

  Equation (dpmpp_2s) of docs/math. Equation (two_noises) of docs/math.

  Args:
    levels: grid from noise to data, (N+1,); eta: 0 is `dpmpp_2s`.
    r: where the second evaluation is, in (0, 1).
  Returns:
    Tableau, as `dpmpp_2s`.
  Raises:
    ValueError: as `ddim`, or r is outside (0, 1).
  """
  checks.number("r", r, "in (0, 1)", lambda r: 0 < r < 1)
  eta = per_step.numbers("eta", eta, levels)
  s, t, keep, noise, _ = _down(levels, eta)
  h = co.step_size(s, t)
  xp = co.namespace((levels, noise))
  finite = xp.isfinite(h)
  mid = co.between(s, h, r)
  parts = ((getattr(lv, f) for lv in (mid, t)) for f in FIELDS)
  inside = co.Level(*(xp.where(finite, *pair) for pair in parts))
  keep_m, noise_m = ancestral(s, inside, eta)
  a_m, b_m = co.exact_step(s, mid, keep_m)
  a, b = co.exact_step(s, t, keep)
  rho = _correlation(xp, s, mid, t, finite)
  drawn = noise_m > 0
  again = xp.where(drawn, rho * noise / xp.where(drawn, noise_m, 1.0), 0.0)
  w = 0.5 / r * finite
  stage = dict(anchor=a_m, h=[b_m], noise=noise_m)
  # xi_1 = (z_m - A_m z_s - B_m x̂_s)/noise_m
  update = dict(
    anchor=a - again * a_m,
    z=again,
    h=[b * w, b * (1.0 - w) - again * b_m],
    noise=noise * xp.sqrt(1.0 - rho**2),
  )
  short = dict(anchor=a, h=[b], noise=noise)
  return staged(levels, single(levels), [mid], [stage, update], short)


def _correlation(xp, s, mid, t, finite):
  """Of a Brownian path's increments s -> mid and s -> t, in sigma/alpha."""
  ratio = lambda lv: lv.sigma / xp.where(finite, lv.alpha, 1.0)
  part, whole = ratio(s) - ratio(mid), ratio(s) - ratio(t)
  square = xp.where(finite, part / xp.where(finite, whole, 1.0), 1.0)
  return xp.where(finite, xp.sqrt(square), 0.0)
