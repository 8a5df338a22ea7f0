"""Known laws and their exact flow maps as networks, for tests of losses.

A law is a mixture of four in one dimension, so that one compiled program takes
any; its expectations are exact: given z the posterior of x is again a mixture,
with three Gauss-Hermite nodes for each of its normals.
"""

import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective import flow_maps as F
from diffflow_jax.objective.objective import plain_mse
from diffflow_jax.process import closed_form, levels, schedules, targets
from diffflow_jax.process.flow_maps import flow_level
from diffflow_jax.process.levels import bcast


@functools.cache
def _options():
  """What compiles large programs of small arrays soonest, where known."""
  for extra in ({"xla_cpu_use_fusion_emitters": False}, {}):
    options = {"xla_backend_optimization_level": 0, **extra}
    try:
      jax.jit(jnp.negative, compiler_options=options)(1.0)
    except Exception:  # another XLA knows other options
      continue
    return options


def quick(f):
  return jax.jit(f, compiler_options=_options())


POINTS = [[-1.6], [-0.2], [0.3], [2.2]]
SCALES = {"vp": levels.vp, "ve": levels.ve, "linear": levels.linear}
NODES, HERMITE = np.polynomial.hermite_e.hermegauss(3)


def law(name):
  """A normal law, a skewed mixture and four points, each of four components."""
  if name == "gaussian":
    return closed_form.mixture(np.ones(4), [[0.4]] * 4, 0.6)
  if name == "points":
    return closed_form.dataset(POINTS)
  return closed_form.mixture(
    [0.3, 0.5, 0.1, 0.1], [[-1.0], [1.2], [1.6], [0.2]], [0.3, 0.5, 0.4, 0.6]
  )


def logsnr(time):
  """Of flow time."""
  return 2.0 * (jnp.log1p(-time) - jnp.log(time))


@struct.dataclass
class AnyRow:
  """The row of a number, which may be traced: of those in `targets.TARGETS`."""

  index: jax.Array

  def __call__(self, lv):
    rows = [target(lv) for target in targets.TARGETS.values()]
    pick = lambda each: sum(
      jnp.where(self.index == i, one, 0.0) for i, one in enumerate(each)
    )
    return tuple(map(pick, zip(*rows, strict=True)))


@struct.dataclass
class AnyScale:
  """The scale of a number, which may be traced: of `SCALES`."""

  index: jax.Array

  def __call__(self, a, s):
    pairs = [scale(a, s) for scale in SCALES.values()]
    pick = lambda each: sum(
      jnp.where(self.index == i, one, 0.0) for i, one in enumerate(each)
    )
    return tuple(map(pick, zip(*pairs, strict=True)))


FLOW = (list(targets.TARGETS).index("flow"), list(SCALES).index("linear"))


def objective(row=FLOW[0], scale=FLOW[1]):
  """Plain flow matching, by a network of any row on any scale."""
  base = plain_mse(schedules.Flow(), targets.flow, levels.linear)
  return base.replace(
    target=AnyRow(jnp.asarray(row)), scale=AnyScale(jnp.asarray(scale))
  )


def directions(z, s, t):
  """Three of them, (3, batch, 1): ū may be wrong along any."""
  tau_s, tau_t = (bcast(flow_level(one).sigma, z) for one in (s, t))
  return jnp.stack(
    [jnp.sin(z), z * (tau_s - 0.3 * tau_t), jnp.cos(2.0 * z + tau_t)]
  )


def network(recipe, effective):
  """apply(theta, ...): an exact map's ū and theta of the directions.

  Args:
    effective: (z, lv, to, cond) -> (X, E) of the exact map.
  """

  def apply(theta, z, logsnr, cond, to):
    own = levels.at_logsnr(recipe.scale, logsnr, recipe.schedule)
    lv = flow_level(logsnr)
    z = bcast(levels.rescale(own, lv), z) * z
    x, eps = effective(z, lv, to, cond)
    u = eps - x + jnp.tensordot(theta, directions(z, logsnr, to), 1)
    x, eps = z - bcast(lv.sigma, z) * u, z + bcast(lv.alpha, z) * u
    return targets.from_x_eps(recipe.target, x, eps, own)

  return apply


def tails(law, z, lv, sign):
  """Twice the mass of z's marginal on the side of sign: Σ w erfc(±…)."""
  alpha, sigma = bcast(lv.alpha, z), bcast(lv.sigma, z)
  std = jnp.sqrt((alpha * law.stds) ** 2 + sigma**2)
  # a point at the data is a step of F, as steep as it may be
  std = jnp.maximum(std, 1e-15)
  far = sign * (z - alpha * law.means[:, 0]) / (std * np.sqrt(2.0))
  mass = jax.scipy.special.erfc(far) @ jnp.exp(law.log_weights)
  return mass[:, None]


def solved(law, z, start, end):
  """Φ(z) by equal tails, each point in its own: independent of closed_form."""
  sign = jnp.where(tails(law, z, start, 1.0) < 1.0, 1.0, -1.0)
  sign = jax.lax.stop_gradient(sign)
  goal = tails(law, z, start, sign)

  def halve(_, bracket):
    low, high = bracket
    mid = 0.5 * (low + high)
    right = sign * (tails(law, mid, end, sign) - goal) > 0.0
    return jnp.where(right, mid, low), jnp.where(right, high, mid)

  wide = jnp.full_like(z, 300.0)
  phi = sum(jax.lax.fori_loop(0, 66, halve, (-wide, wide))) / 2
  phi = jax.lax.stop_gradient(phi)
  miss, slope = jax.jvp(
    lambda phi: tails(law, phi, end, sign), (phi,), (jnp.ones_like(phi),)
  )
  slope = jax.lax.stop_gradient(slope)
  miss = jnp.where(
    slope == 0.0, 0.0, (miss - goal) / jnp.where(slope == 0.0, 1.0, slope)
  )
  return phi - (miss - jax.lax.stop_gradient(miss))


def mean_velocity(law, z, start, end):
  """ū of the exact map on the linear scale; the law's own u at rest."""
  lapse = bcast(start.sigma - end.sigma, z)
  still = lapse == 0.0
  moved = z - solved(law, z, start, end)
  x, eps = law(z, start)
  return jnp.where(still, eps - x, moved / jnp.where(still, 1.0, lapse))


def exact_network(recipe, law):
  def exact(z, lv, to, cond):
    u = mean_velocity(law, z, lv, flow_level(to))
    return z - bcast(lv.sigma, z) * u, z + bcast(lv.alpha, z) * u

  return network(recipe, exact)


Z = np.linspace(-1.8, 2.1, 7)


def posterior(law, time, z=Z):
  """x, eps (num, 1) and weights (num,) of x given z, z's own weights p(z)."""
  alpha, sigma = 1.0 - time, time
  w, m, s = np.exp(law.log_weights), np.asarray(law.means)[:, 0], law.stds
  s = np.asarray(s)
  var = (alpha * s) ** 2 + sigma**2
  delta = z[:, None] - alpha * m
  parts = w * np.exp(-0.5 * delta**2 / var) / np.sqrt(2 * np.pi * var)
  parts = parts / parts.sum()  # of both, z and the component
  mean, std = m + alpha * s**2 / var * delta, s * sigma / np.sqrt(var)
  x = mean[..., None] + std[..., None] * NODES
  weight = parts[..., None] * HERMITE / HERMITE.sum()
  eps = (z[:, None, None] - alpha * x) / sigma
  return x.reshape(-1, 1), eps.reshape(-1, 1), weight.ravel()


@quick
def solve(law, z, start, end):
  return solved(law, z, start, end)


@quick
def _slopes(law, theta, z, s, t):
  def velocity(z, s):
    level = lambda time: flow_level(jnp.broadcast_to(logsnr(time), z.shape[:1]))
    u = mean_velocity(law, z, level(s), level(t))
    wrong = directions(z, level(s).logsnr, level(t).logsnr)
    return u + jnp.tensordot(theta, wrong, 1)

  u, by_z = jax.jvp(lambda z: velocity(z, s), (z,), (jnp.ones_like(z),))
  _, by_s = jax.jvp(lambda s: velocity(z, s), (s,), (1.0,))
  x, eps = law(z, flow_level(jnp.broadcast_to(logsnr(s), z.shape[:1])))
  here = jnp.broadcast_to(logsnr(s), z.shape[:1])
  rest = eps - x + jnp.tensordot(theta, directions(z, here, here), 1)
  return u, by_z, by_s, rest


def slopes(law, theta, z, s, t):
  """ū of a wrong map, ∂ū/∂z, ∂ū/∂s in flow time, and its û at s, t = s."""
  return tuple(
    map(np.asarray, _slopes(law, jnp.asarray(theta), jnp.asarray(z), s, t))
  )


def psi(z, s, t):
  """The directions at z (num, 1), (num, 3), by hand."""
  z = np.asarray(z)
  return np.hstack([np.sin(z), z * (s - 0.3 * t), np.cos(2 * z + t)])


MEANS, VARIANCES = (0.5, -0.2), (0.3, 0.8)  # of class 0, and of all


def gaussian_posterior(label, z, time):
  """Mean and variance of x given z in flow time, of N(m, c)."""
  alpha, m, c = 1.0 - time, MEANS[label], VARIANCES[label]
  total = alpha**2 * c + time**2
  return m + alpha * c / total * (z - alpha * m), c * time**2 / total


def guided_gaussians(strength):
  """apply of the exact map of u_none + w (u_0 - u_none), affine in z.

  Label 0 is guided, label 1 is none. dz/dt = a(t) z + b(t), so Φ = A z + B with
  A and B by quadrature.
  """
  nodes, weights = np.polynomial.legendre.leggauss(60)

  def field(label, time):
    """u = a z + b of a law."""
    alpha, m, c = 1.0 - time, MEANS[label], VARIANCES[label]
    total = alpha**2 * c + time**2
    a = (time - alpha * c) / total
    return a, -m - alpha * m * a

  def coefficients(w, time):
    (a, b), (a_0, b_0) = field(0, time), field(1, time)
    return a_0 + w * (a - a_0), b_0 + w * (b - b_0)

  def moved(w, s, t):
    """(A, B), each integral by Gauss-Legendre, within and without."""
    at = lambda low, high: 0.5 * (high - low) * nodes + 0.5 * (high + low)
    growth = lambda low, high: jnp.exp(
      0.5 * (high - low) * jnp.sum(weights * coefficients(w, at(low, high))[0])
    )
    inner = at(s, t)
    pushed = jax.vmap(lambda one: growth(one, t))(inner)
    b = 0.5 * (t - s) * jnp.sum(weights * coefficients(w, inner)[1] * pushed)
    return growth(s, t), b

  def apply(theta, z, logsnr, cond, to):
    s, t = (jax.nn.sigmoid(-0.5 * one) for one in (logsnr, to))
    w = jnp.where(cond == 0, strength, 0.0)
    a, b = jax.vmap(moved)(w, s, t)
    rest_a, rest_b = coefficients(w, s)
    still = s == t
    gap = jnp.where(still, 1.0, s - t)
    a = jnp.where(still, rest_a, (1.0 - a) / gap)
    b = jnp.where(still, rest_b, -b / gap)
    u = bcast(a, z) * z + bcast(b, z)
    return u + jnp.tensordot(theta, directions(z, logsnr, to), 1)

  return apply


@quick
def _densities(law, z, s, t):
  here, there = flow_level(s), flow_level(t)
  phi = solved(law, z, here, there)
  prob = lambda z, lv: jnp.exp(law.log_prob(z, lv))
  return prob(z, here), phi, prob(phi, there)


def moments(law, s, t, z=Z):
  """p(z) (normalised), J = ∂Φ/∂z and C = Var(eps - x | z), by hand."""
  end = jnp.asarray(jnp.inf if t == 0.0 else logsnr(t))
  p_s, phi, p_t = _densities(law, jnp.asarray(z)[:, None], logsnr(s), end)
  x, eps, weight = posterior(law, s, z)
  by_z = lambda one: one.reshape(len(z), -1)
  share = by_z(weight) / by_z(weight).sum(axis=1, keepdims=True)
  u = by_z(eps - x)
  mean = (share * u).sum(axis=1, keepdims=True)
  return p_s / p_s.sum(), p_s / p_t, (share * (u - mean) ** 2).sum(axis=1)


@struct.dataclass
class ExactOrOwn:
  """The exact flow map of a law, or its denoiser, by a number."""

  law: Any
  exact: Any

  def __call__(self, z, lv, cond=None):
    u = mean_velocity(self.law, z, lv, flow_level(lv.to))
    x, eps = self.law(z, lv)
    u = jnp.where(self.exact > 0.0, u, eps - x)
    return z - bcast(lv.sigma, z) * u, z + bcast(lv.alpha, z) * u


# name -> (objective, apply, theta, x, eps), law, number, s, m, t -> Terms
LOSSES = {
  "reflow": lambda at, law, number, s, m, t: F.reflow_at(*at, s),
  "knowledge_distillation": lambda at, law, number, s, m, t: (
    F.knowledge_distillation_at(*at, s, t)
  ),
  "progressive_distillation": lambda at, law, number, s, m, t: (
    F.progressive_distillation_at(*at, s, m, t, teacher=ExactOrOwn(law, number))
  ),
  "distillation_by_ddim": lambda at, law, number, s, m, t: (
    F.consistency_distillation_at(
      *at, s, m, t, teacher=ExactOrOwn(law, number), order=1
    )
  ),
  "distillation_by_heun": lambda at, law, number, s, m, t: (
    F.consistency_distillation_at(*at, s, m, t, teacher=law)
  ),
  "consistency_training": lambda at, law, number, s, m, t: (
    F.consistency_training_at(*at, s, m, t)
  ),
  "improved_consistency": lambda at, law, number, s, m, t: (
    F.improved_consistency_at(*at, s, m, t, c=number)
  ),
  "sct": lambda at, law, number, s, m, t: F.continuous_consistency_at(
    *at, s, norm=None, warmup=number
  ),
  "sct_normalised": lambda at, law, number, s, m, t: (
    F.continuous_consistency_at(*at, s)
  ),
  "scd": lambda at, law, number, s, m, t: F.continuous_consistency_at(
    *at, s, teacher=law
  ),
  "mean_flow": lambda at, law, number, s, m, t: F.mean_flow_at(
    *at, s, t, power=number
  ),
  "improved_mean_flow": lambda at, law, number, s, m, t: (
    F.improved_mean_flow_at(*at, s, t)
  ),
  "shortcut": lambda at, law, number, s, m, t: F.self_consistency_at(
    *at, s, m, t
  ),
  "progressive_map": lambda at, law, number, s, m, t: F.self_consistency_at(
    *at, s, m, t, stop=False
  ),
  "lagrangian": lambda at, law, number, s, m, t: F.lagrangian_at(
    *at, s, t, teacher=law
  ),
  "self_lagrangian": lambda at, law, number, s, m, t: F.lagrangian_at(
    *at, s, t
  ),
  "eulerian": lambda at, law, number, s, m, t: F.eulerian_at(
    *at, s, t, teacher=law
  ),
  "self_eulerian": lambda at, law, number, s, m, t: F.eulerian_at(*at, s, t),
  "guidance_distillation": lambda at, law, number, s, m, t: (
    F.guidance_distillation_at(*at, s, teacher=law)
  ),
}


@functools.cache
def _program(name):
  @quick
  def run(theta, law, row, scale, number, data, levels):
    recipe = objective(row, scale)
    apply = exact_network(recipe, law)
    x, eps, weight = data

    def mean(theta):
      at = recipe, apply, theta, x, eps
      terms = LOSSES[name](at, law, number, *levels)
      return weight @ terms.loss

    return jax.value_and_grad(mean)(theta)

  return run


def loss_and_gradient(
  name,
  law,
  times=(0.7, 0.55, 0.25),
  theta=(0.0, 0.0, 0.0),
  row=FLOW,
  number=0.0,
  data=None,
):
  """E loss and its gradient in theta, of an exact map gone wrong by theta.

  Args:
    times: s, m, t in flow time; t = 0 is the data.
  """
  data = posterior(law, times[0]) if data is None else data
  with np.errstate(divide="ignore"):
    logs = [jnp.asarray(logsnr(np.float64(time))) for time in times]
  each = [jnp.broadcast_to(one, len(data[0])) for one in logs]
  value, slope = _program(name)(
    jnp.asarray(theta), law, *map(jnp.asarray, (*row, number)),
    tuple(map(jnp.asarray, data)), each,
  )  # fmt: skip
  return float(value), np.asarray(slope)
