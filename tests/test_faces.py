"""The lecture's losses, and minibatch optimal transport: MATH.md 4.2, 4.6."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.objective import coupling, losses, objectives
from diffflow_jax.objective.objective import plain_mse
from diffflow_jax.process import closed_form, levels, schedules, targets

N = 4096
MIX = closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5])


def _exact(schedule, scale, target):
  """The lecture's marginal field or score as a function of (x, tau)."""

  def field(x, tau):
    lv = levels.lecture_level(schedule, scale, tau)
    return targets.from_x_eps(target, *MIX(x, lv), lv)

  return field


def test_conditional_flow_matching_is_the_lectures(x64):
  """‖u_theta(x, tau) - (z - eps)‖² with x = tau z + (1 - tau) eps, by hand at
  the same draws; its least value is the floor of MATH 4.2."""
  key, z = jax.random.key(0), MIX.sample(jax.random.key(1), N)
  u_theta = lambda x, tau: 0.5 * x + tau[:, None]
  got = jax.jit(lambda z: losses.conditional_flow_matching(u_theta, key, z))(z)
  terms = losses.weighted_mse(  # the same draws
    objectives.flow_matching(), lambda p, z, l, c: 0.0 * z, {}, key, z
  )
  tau = jax.nn.sigmoid(terms.logsnr / 2)
  # its loss is ‖eps - z‖²: eps from the key that weighted_mse uses
  _, noise_key = jax.random.split(key)
  eps = jax.random.normal(noise_key, z.shape, z.dtype)
  np.testing.assert_allclose(terms.loss, ((eps - z) ** 2)[:, 0], rtol=1e-8)
  x = tau[:, None] * z + (1 - tau[:, None]) * eps
  want = (u_theta(x, tau) - (z - eps)) ** 2
  np.testing.assert_allclose(got, want[:, 0], rtol=1e-7, atol=1e-9)


def test_conditional_and_marginal_losses_differ_by_a_constant(x64):
  """MATH 4.2: the excess over the exact field's loss is E‖u_theta - u‖², and
  the floor is (δ/σ)² E Cov(x|z); for scores (α/σ²)² E Cov(x|z)."""
  schedule, scale = schedules.Flow(0.1), levels.vp
  key, z = jax.random.key(0), MIX.sample(jax.random.key(1), 8 * N)
  for target, face in (
    (targets.u, losses.conditional_flow_matching),
    (targets.score, losses.denoising_score_matching),
  ):
    exact = _exact(schedule, scale, target)
    wrong = lambda x, tau, exact=exact: 0.9 * exact(x, tau) + 0.2
    run = jax.jit(
      lambda f, face=face: face(f, key, z, schedule, scale), static_argnums=0
    )
    floor, loss = run(exact), run(wrong)
    # both sides at the same draws of tau and x
    objective = plain_mse(schedule, target, scale)
    terms = losses.weighted_mse(
      objective, lambda p, z, l, c: 0.0 * z, {}, key, z
    )
    _, noise_key = jax.random.split(key)
    lv = levels.at_logsnr(scale, terms.logsnr, schedule)
    x = levels.add_noise(z, jax.random.normal(noise_key, z.shape, z.dtype), lv)
    tau = 1 - schedule.t(terms.logsnr)
    gap = ((wrong(x, tau) - exact(x, tau)) ** 2)[:, 0]
    excess = loss - floor - gap
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(len(excess))
    d = targets.determinant(target, lv)
    cov = MIX.covariance(x, lv)[:, 0, 0]
    rest = floor - (d / lv.sigma) ** 2 * cov
    assert abs(rest.mean()) < 4 * rest.std() / np.sqrt(len(rest))


def test_minibatch_ot_is_the_best_permutation():
  """Against all 720 of them; under jit; a permutation of the same noise."""
  x = jax.random.normal(jax.random.key(0), (6, 2, 3))
  eps = jax.random.normal(jax.random.key(1), (6, 2, 3))
  got = jax.jit(coupling.minibatch_ot)(x, eps)
  cost = lambda e: float(((x - e) ** 2).sum())
  best = min(cost(eps[jnp.array(p)]) for p in itertools.permutations(range(6)))
  np.testing.assert_allclose(cost(got), best, rtol=1e-6)
  np.testing.assert_allclose(np.sort(got[:, 0, 0]), np.sort(eps[:, 0, 0]))


def test_a_coupled_loss_sees_the_coupled_noise():
  """weighted_mse(couple=…) is terms_at of the reordered noise."""
  o, key = objectives.flow_matching(), jax.random.key(0)
  x = jax.random.normal(jax.random.key(1), (32, 2))
  apply = lambda p, z, l, c: 0.0 * z
  plain = losses.weighted_mse(o, apply, {}, key, x)
  got = losses.weighted_mse(o, apply, {}, key, x, couple=coupling.minibatch_ot)
  _, noise_key = jax.random.split(key)
  eps = coupling.minibatch_ot(x, jax.random.normal(noise_key, x.shape))
  want = losses.terms_at(o, apply, {}, x, got.logsnr, eps)
  np.testing.assert_allclose(got.loss, want.loss, rtol=1e-6)
  assert got.loss.mean() < 0.6 * plain.loss.mean()  # shorter paths
