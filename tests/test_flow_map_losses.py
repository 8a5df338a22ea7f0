"""Losses of flow maps at the exact map: MATH.md 8.11 to 8.31."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.objective import flow_maps as F, losses, objectives
from diffflow_jax.process import closed_form, flow_maps as rows, targets
from diffflow_jax.process.conditions import Given
from tests import flow_maps as known

NAMES = "gaussian", "mixture", "points"
INSIDE, WHOLE = (0.7, 0.55, 0.25), (1.0, 0.6, 0.0)
WRONG = (0.3, -0.2, 0.1)


def _noise(law, times):
  p, _, c = known.moments(law, times[0], times[2])
  return p @ c


def _moved_noise(law, times):
  p, jacobian, c = known.moments(law, times[0], times[2])
  return p @ (jacobian**2 * c)


def _nothing(law, times):
  return 0.0


def _trig_flow(law, times, sigma_data=0.5):
  """E cos²φ J² Var(z'|z) of F, in units of ū: by hand."""
  s = times[0]
  p, jacobian, c = known.moments(law, s, 0.0)
  ratio = s / (1.0 - s) / sigma_data if s < 1.0 else np.inf
  phi = np.arctan(ratio)
  norm = np.cos(phi) + sigma_data * np.sin(phi)  # z_trig = norm z
  var_speed = c * s**2 / np.sin(phi) ** 2
  f_units = np.cos(phi) ** 2 * (jacobian / norm) ** 2 * var_speed
  return p @ f_units * (sigma_data * np.sin(phi) / s) ** 2


# name -> (value at the exact map, number)
STATIONARY = {
  "reflow": (_noise, 0.0),
  "progressive_distillation": (_nothing, 1.0),
  "distillation_by_ddim": (_nothing, 1.0),
  "sct": (_trig_flow, 1.0),
  "scd": (_nothing, 0.0),
  "mean_flow": (_moved_noise, 0.0),
  "improved_mean_flow": (_noise, 0.0),
  "shortcut": (_nothing, 0.0),
  "progressive_map": (_nothing, 0.0),
  "lagrangian": (_nothing, 0.0),
  "self_lagrangian": (_nothing, 0.0),
  "eulerian": (_nothing, 0.0),
  "self_eulerian": (_nothing, 0.0),
  "guidance_distillation": (_nothing, 0.0),
}


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize("law", NAMES)
def test_the_exact_map_is_stationary_and_the_loss_is_as_stated(name, law, x64):
  """MATH 8.31, 8.14, 8.21, 8.23, 8.25, 8.28 to 8.30, in every direction.

  8.11 at t = s without a coupling, 8.32 of a teacher that is the law.
  """
  value, number = STATIONARY[name]
  for times in (INSIDE, WHOLE):
    if law == "points" and times == WHOLE:
      continue  # the map to the data is a step there
    got, slope = known.loss_and_gradient(
      name, known.law(law), times=times, number=number
    )
    want = value(known.law(law), times)
    np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(slope, 0.0, atol=1e-8)


@pytest.mark.parametrize("law", NAMES)
def test_one_step_learned_from_solved_pairs(law, x64):
  """MATH 8.13: value 0 and gradient 0 on pairs of the exact map, 1 -> 0."""
  eps = jnp.linspace(-1.9, 1.7, 9)[:, None]
  pure, data = rows.flow_level(-jnp.inf), rows.flow_level(jnp.inf)
  x = known.solve(known.law(law), eps, pure, data)
  pairs = x, eps, np.full(9, 1 / 9)
  got, slope = known.loss_and_gradient(
    "knowledge_distillation", known.law(law), WHOLE, data=pairs
  )
  np.testing.assert_allclose([got, *slope], 0.0, atol=1e-12)
  # and of pairs that are no solutions it is their error
  wrong = x + 0.3, eps, np.full(9, 1 / 9)
  got, _ = known.loss_and_gradient(
    "knowledge_distillation", known.law(law), WHOLE, data=wrong
  )
  np.testing.assert_allclose(got, 0.09, rtol=1e-9)


@pytest.mark.parametrize(
  "name, order, squared",
  [
    ("consistency_training", 2, None),
    ("distillation_by_ddim", 2, 4),
    ("distillation_by_heun", 3, 6),
  ],
)
def test_a_finite_gap_moves_consistency(name, order, squared, x64):
  """MATH 8.18 and 8.31: the gradient at the exact map is O(gap^order), not 0.

  Distillation by a step of order p leaves O(gap^{p+1}), and a loss of its
  square; training O(gap²), and noise.
  """
  gaps = np.array([0.08, 0.04, 0.02])
  found = [
    known.loss_and_gradient(name, known.law("points"), (0.6, 0.6 - gap, 0.25))
    for gap in gaps
  ]
  fall = lambda values: np.polyfit(np.log(gaps), np.log(np.abs(values)), 1)[0]
  for direction in range(3):
    slopes = [slope[direction] for _, slope in found]
    assert abs(fall(slopes) - order) < 0.3
  if squared:
    assert abs(fall([value for value, _ in found]) - squared) < 0.4


@pytest.mark.parametrize(
  "name, number, times",
  [
    ("mean_flow", 1.0, INSIDE),
    ("sct_normalised", 0.0, WHOLE),
  ],
)
def test_weights_of_single_examples_move_a_skewed_fixed_point(
  name, number, times, x64
):
  """MATH 8.22 and 8.27: not where the posterior is symmetric, as a normal's."""
  at = lambda law: known.loss_and_gradient(
    name, known.law(law), (0.7, *times[1:]), number=number
  )[1]
  assert np.abs(at("mixture")).max() > 3e-3
  np.testing.assert_allclose(at("gaussian"), 0.0, atol=1e-9)


def test_warming_up_begins_as_diffusion_training(x64):
  """MATH 8.22: with r = 0 the one-level prediction is stationary, F = û.

  Of a point mass, whose map and whose denoiser are one, at any r.
  """
  point = closed_form.dataset([[0.7]] * 4)
  for r in (0.0, 0.4, 1.0):
    got = known.loss_and_gradient("sct", point, number=r)
    np.testing.assert_allclose([got[0], *got[1]], 0.0, atol=1e-10)
  # of any other law r = 0 and the exact map disagree
  _, slope = known.loss_and_gradient("sct", known.law("gaussian"), number=0.0)
  assert np.abs(slope).max() > 1e-3


@pytest.mark.parametrize("name", known.LOSSES)
def test_losses_do_not_depend_on_target_or_scale(name, x64):
  """MATH 8.5 and 8.10: value and gradient of a wrong map, in all rows."""
  number = STATIONARY.get(name, (0, 0.3))[1]
  law = known.law("mixture")
  at = lambda row: known.loss_and_gradient(
    name, law, theta=WRONG, row=row, number=number
  )
  want = at(known.FLOW)
  assert want[0] > 1e-5
  for row in range(len(targets.TARGETS)):
    for scale in range(len(known.SCALES)):
      got = at((row, scale))
      np.testing.assert_allclose(got[0], want[0], rtol=1e-10)
      np.testing.assert_allclose(got[1], want[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
  "name",
  [
    "mean_flow",
    "improved_mean_flow",
    "consistency_training",
    "shortcut",
    "improved_consistency",
  ],
)
def test_right_hand_sides_are_held_fixed(name, x64):
  """MATH 8.9, 8.18, 8.19, 8.25 and 8.28, of a wrong map by hand.

  R = ū - sg[...] with derivatives in flow time; the gradient is E 2 R ψ.
  """
  law = known.law("mixture")
  x, eps, weight = (np.asarray(one) for one in known.posterior(law, 0.7))
  s, m, t = INSIDE
  z, u_c = (1 - s) * x + s * eps, eps - x
  u, by_z, by_s, rest = known.slopes(law, WRONG, z, s, t)
  leg, *_ = known.slopes(law, WRONG, z, s, m)
  w = (s - m) / (s - t)
  second = lambda v: known.slopes(law, WRONG, z - (s - m) * v, m, t)[0]
  along = lambda v: (s - t) * (by_z * v + by_s)
  residual = {
    "mean_flow": lambda: u + along(u_c) - u_c,
    "improved_mean_flow": lambda: u + along(rest) - u_c,
    "consistency_training": lambda: u - w * u_c - (1 - w) * second(u_c),
    "shortcut": lambda: u - w * leg - (1 - w) * second(leg),
  }
  residual["improved_consistency"] = residual["consistency_training"]
  r = residual[name]()
  psi = known.psi(z, s, t)
  c = 0.2
  got, slope = known.loss_and_gradient(
    name, law, theta=WRONG, number=c if name == "improved_consistency" else 0.0
  )
  if name == "improved_consistency":
    reach = (s - t) / (1 - t)
    root = np.sqrt((reach * r) ** 2 + c**2)
    apart = s / (1 - s) - m / (1 - m)
    want = weight @ (root - c)[:, 0] / apart
    want_slope = (weight * (reach**2 * r / root)[:, 0]) @ psi / apart
  else:
    want, want_slope = weight @ r[:, 0] ** 2, 2 * (weight * r[:, 0]) @ psi
  np.testing.assert_allclose(got, want, rtol=1e-9)
  np.testing.assert_allclose(slope, want_slope, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["progressive_map", "lagrangian", "eulerian"])
def test_gradients_pass_through_the_map_equations(name, x64):
  """MATH 8.29: what has no stop-gradient has the slope of its value."""
  law, h = known.law("mixture"), 1e-4
  at = lambda theta: known.loss_and_gradient(name, law, theta=theta)
  slope = at(WRONG)[1]
  for k, one in enumerate(np.eye(3)):
    up, down = (at(WRONG + sign * h * one)[0] for sign in (1, -1))
    np.testing.assert_allclose((up - down) / (2 * h), slope[k], rtol=1e-5)


def test_the_eulerian_loss_with_one_noise_shrinks_the_jacobian(x64):
  """MATH 8.29's trap: 2 (s - t) E J C ∂ψ, where MeanFlow has gradient 0.

  MATH's is for Φ + θ (s - t) ψ, and ours for ū + θ ψ.
  """
  law, (s, _, t) = known.law("mixture"), INSIDE
  x, eps, _ = known.posterior(law, s)

  class Noise:
    def __call__(self, z, lv, cond=None):
      return jnp.asarray(x), jnp.asarray(eps)

  recipe = known.objective()
  apply = known.exact_network(recipe, law)
  weight = known.posterior(law, s)[2]
  each = [jnp.full(len(x), known.logsnr(time)) for time in (s, t)]

  def mean(theta):
    return weight @ F.eulerian_at(
      recipe, apply, theta, jnp.asarray(x), jnp.asarray(eps), *each,
      teacher=Noise(),
    ).loss  # fmt: skip

  got = known.quick(jax.grad(mean))(jnp.zeros(3))
  p, jacobian, c = known.moments(law, s, t)
  z = known.Z
  by_z = [np.cos(z), np.full_like(z, s - 0.3 * t), -2 * np.sin(2 * z + t)]
  want = [-2 * (s - t) * p @ (jacobian * c * one) for one in by_z]
  np.testing.assert_allclose(got, want, rtol=1e-8)


@pytest.mark.parametrize("recipe", ["flow_matching", "edm", "v_diffusion"])
def test_at_rest_it_is_the_objectives_own_loss(recipe, x64):
  """MATH 8.31's first row: t = s is `weighted_mse`, factor and all."""
  objective = objectives.make(recipe)
  apply = lambda p, z, logsnr, cond, to: p * jnp.sin(z) + 0.1 * to[:, None]
  x = jnp.asarray([[0.3, -1.0], [1.2, 0.4], [0.0, 0.9]])
  eps = jnp.asarray([[-0.5, 0.2], [0.7, -1.4], [1.1, 0.3]])
  s = jnp.asarray([-1.0, 0.4, 3.0])
  four = lambda p, z, logsnr, cond: apply(p, z, logsnr, cond, logsnr)
  want = losses.terms_at(objective, four, 0.8, x, s, eps)
  at = (objective, apply, 0.8, x, eps)
  for got in (
    F.mean_flow_at(*at, s, s),
    F.improved_mean_flow_at(*at, s, s),
    F.eulerian_at(*at, s, s),
    F.lagrangian_at(*at, s, s),
    F.self_consistency_at(*at, s, s, s, num=0),
    F.reflow_at(*at, s),
  ):
    np.testing.assert_allclose(got.loss, want.loss, rtol=1e-9)
    np.testing.assert_allclose(got.eps_mse, want.eps_mse, rtol=1e-9)
    np.testing.assert_allclose(got.logsnr, s)


def test_guided_mean_flow_learns_the_map_of_the_guided_field(x64):
  """MATH 8.26 and 8.24: target and tangent guided, dropped examples not.

  Guided by omega and kappa the exact map of the guided field is stationary, in
  closed form of normal laws: x ~ N(m, c) of the class, N(0, c₀) of all.
  """
  s, t, omega, kappa = 0.7, 0.25, 1.4, 0.3
  strength = omega / (1 - kappa)
  apply = known.guided_gaussians(strength)
  objective = objectives.make("flow_matching")
  z = jnp.repeat(jnp.linspace(-1.5, 1.5, 5), 3)[:, None]
  nodes = jnp.tile(jnp.asarray(known.NODES), 5)[:, None]
  weight = jnp.tile(jnp.asarray(known.HERMITE / known.HERMITE.sum()), 5) / 5
  each = [jnp.full(15, known.logsnr(time)) for time in (s, t)]

  def slope(loss, guidance, label):
    mean, var = known.gaussian_posterior(label, z, s)
    x = mean + jnp.sqrt(var) * nodes
    data = x, (z - (1 - s) * x) / s, *each, jnp.full(15, label)
    at = lambda theta: loss(objective, apply, theta, *data, guidance=guidance)
    mean = lambda theta: weight @ at(theta).loss
    return known.quick(jax.value_and_grad(mean))(jnp.zeros(3))

  ours = F.guidance.Guidance(1, omega, kappa)
  assert ours.strength == pytest.approx(strength)
  for label in (0, 1):
    for loss, guidance in (
      (F.mean_flow_at, ours),
      (F.improved_mean_flow_at, F.guidance.of_strength(1, strength)),
    ):
      value, got = slope(loss, guidance, label)
      np.testing.assert_allclose(got, 0.0, atol=1e-9)
      if label == 1:  # not even more noise
        plain, _ = slope(loss, None, label)
        np.testing.assert_allclose(value, plain, rtol=1e-9)
  with pytest.raises(ValueError, match="Guidance: kappa must be < 1, not 1.0"):
    F.guidance.Guidance(1, omega, 1.0)
  # outside its interval nothing is guided, and the guided map is wrong
  away = F.guidance.Guidance(1, omega, kappa, (2.0, 9.0))
  assert np.abs(slope(F.mean_flow_at, away, 0)[1]).max() > 1e-2


def test_guidance_holds_at_pure_noise_as_where_it_is_sampled():
  """The interval is [lo, hi), that of `dfj.Guided`: -inf is inside of all."""
  s = jnp.asarray([-jnp.inf, -2.0, 0.0, 3.0])
  z, label = jnp.ones((4, 1)), jnp.zeros(4, int)
  velocity_of = lambda cond: lambda z, s, t: 0.0 * z + cond[:, None]
  guided = lambda *interval: F.guidance.guided(
    F.guidance.Guidance(1, 2.0, 0.0, *interval), velocity_of, 3 * z, z, s, label
  )
  # 2 u_c - û_none = 5, and u_c = 3 outside
  np.testing.assert_array_equal(guided()[:, 0], [5, 5, 5, 5])
  np.testing.assert_array_equal(guided((-2.0, 3.0))[:, 0], [3, 5, 5, 3])


def test_guidance_is_told_of_conditions_of_any_kind():
  """Dropped examples are known by their null, a mask or a class."""
  cond = {
    "label": jnp.asarray([0, 3, 3]),
    "text": Given(jnp.ones((3, 2)), jnp.asarray([False, False, True])),
  }
  null = {"label": np.int32(3), "text": Given(np.float32(0), np.False_)}
  says = F.guidance._says_nothing(cond, null)
  np.testing.assert_array_equal(says, [False, True, False])
  only = F.guidance._says_nothing(cond, {"label": np.int32(3)})
  np.testing.assert_array_equal(only, [False, True, True])
  like = F.guidance._like(cond, {"label": np.int32(3)})
  np.testing.assert_array_equal(like["label"], [3, 3, 3])
  assert like["text"] is cond["text"]
