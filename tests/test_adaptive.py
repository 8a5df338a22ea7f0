"""Adaptive flow, encoding and likelihood against closed forms: MATH.md 5.16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels
from diffflow_jax.sampling import adaptive, grids, solvers, tableau

KEY = jax.random.key(0)
pytest.importorskip("diffrax")


def mix1d():
  return closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5])


def mix3d():
  means = [[-1.0, 0.2, 0.0], [1.2, -0.5, 0.7]]
  return closed_form.mixture([0.3, 0.7], means, [0.3, 0.5])


PURE = levels.Level(-np.inf, 0.0, 1.0)
DATA = levels.Level(np.inf, 1.0, 0.0)


@pytest.mark.parametrize("per_sample", [True, False])
def test_adaptive_sampling_is_the_exact_flow(per_sample, x64):
  start, end = (levels.at_logsnr(levels.vp, l) for l in (-4.0, 5.0))
  z = jnp.linspace(-2, 2, 9)[:, None]
  got, nfe = adaptive.flow(
    mix1d(), z, start, end, rtol=1e-7, atol=1e-7, per_sample=per_sample
  )
  np.testing.assert_allclose(got, mix1d().flow(z, start, end), atol=1e-5)
  assert np.shape(nfe) == ((9,) if per_sample else ())


@pytest.mark.parametrize("per_sample", [True, False])
def test_reported_nfe_is_the_number_of_calls(per_sample):
  calls = []

  def counted(z, lv, cond):
    jax.debug.callback(lambda _: calls.append(1), lv.logsnr)
    return mix1d()(z, lv)

  z = jnp.array([[0.3]])
  _, nfe = adaptive.flow(counted, z, PURE, DATA, per_sample=per_sample)
  jax.effects_barrier()
  assert int(np.sum(nfe)) == len(calls)


def test_forward_then_back_returns_the_data():
  x = mix3d().sample(KEY, 64)
  z, _ = adaptive.flow(mix3d(), x, DATA, PURE, rtol=1e-6, atol=1e-6)
  assert abs(float(z.std()) - 1.0) < 0.2
  back, _ = adaptive.flow(mix3d(), z, PURE, DATA, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(back, x, atol=1e-4)


@pytest.mark.parametrize("solver", ["heun", "rk4", "midpoint", "dpmpp_3s"])
def test_forward_then_back_by_any_solver(solver, x64):
  """The reversed grid encodes; from sigma_min where the solver needs it."""
  grid = grids.from_logsnr(np.linspace(-8, 12, 801), levels.linear)
  solve = solvers.named(solver)
  x = mix1d().sample(KEY, 16)
  z = tableau.sample(mix1d(), solve(grids.reverse(grid)), KEY, x.shape, z=x)
  want = mix1d().flow(x, grid[-1], grid[0])
  np.testing.assert_allclose(z, want, atol=1e-4)
  back = tableau.sample(mix1d(), solve(grid), KEY, z.shape, z=z)
  np.testing.assert_allclose(back, x, atol=1e-4)


def test_log_likelihood_is_the_mixtures():
  """In float32, at default tolerances, within 1e-4 nats."""
  x = mix3d().sample(KEY, 32)
  got, nfe = adaptive.log_likelihood(mix3d(), x)
  want = mix3d().log_prob(x, levels.Level(jnp.inf, jnp.ones(()), jnp.zeros(())))
  np.testing.assert_allclose(got, want, atol=1e-4)
  assert nfe.shape == (32,) and 20 < nfe.mean() < 400


def test_log_likelihood_from_a_noisy_start_is_that_densitys(x64):
  """sigma > 0: the density of x + (sigma/alpha) eps, log alpha included."""
  start = levels.at_logsnr(levels.vp, 3.0)
  x = mix3d().sample(KEY, 8)
  got, _ = adaptive.log_likelihood(
    mix3d(), x, start=start, rtol=1e-8, atol=1e-8
  )
  on_ve = levels.at_logsnr(levels.ve, 3.0)
  np.testing.assert_allclose(got, mix3d().log_prob(x, on_ve), atol=1e-6)


@pytest.mark.slow
def test_hutchinson_is_unbiased_and_its_noise_falls(x64):
  x = mix3d().sample(KEY, 3)
  exact, _ = adaptive.log_likelihood(mix3d(), x)
  ask = lambda key, n: adaptive.log_likelihood(
    mix3d(), x, key=key, num_probes=n
  )[0]
  few = jax.vmap(lambda k: ask(k, 1))(jax.random.split(KEY, 200))
  spread = few.std(0)
  assert np.all(np.abs(few.mean(0) - exact) < 4 * spread / np.sqrt(200) + 1e-3)
  many = jax.vmap(lambda k: ask(k, 16))(jax.random.split(KEY, 50))
  assert np.all(many.std(0) < 0.5 * spread) and np.all(spread > 1e-3)


@pytest.mark.slow
def test_log_likelihood_is_differentiable(x64):
  """In x: the score of the data; in the model's means: finite differences."""
  x = mix3d().sample(KEY, 4)
  value = lambda m, x: adaptive.log_likelihood(m, x)[0].sum()
  dm, dx = jax.grad(value, argnums=(0, 1))(mix3d(), x)
  clean = levels.Level(jnp.inf, jnp.ones(()), jnp.zeros(()))
  np.testing.assert_allclose(dx, mix3d().score(x, clean), atol=2e-3)
  want = jax.grad(lambda m: m.log_prob(x, clean).sum())(mix3d()).means
  np.testing.assert_allclose(dm.means, want, atol=5e-3)


def test_bits_per_dim():
  """MATH 3.11: the uniform density on 256 bins of [-1, 1] costs 8 bits."""
  size = 5
  log_p = size * np.log(0.5)  # uniform on [-1, 1]^5
  np.testing.assert_allclose(adaptive.bits_per_dim(log_p, size, 128.0), 8.0)


def test_bad_probes_are_refused():
  with pytest.raises(ValueError, match="num_probes must be >= 1"):
    adaptive.log_likelihood(mix1d(), jnp.zeros((1, 1)), num_probes=2)
