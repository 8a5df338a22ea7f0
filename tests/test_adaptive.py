"""Adaptive flow, encoding and likelihood against closed forms: MATH.md 5.16."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import closed_form, levels, schedules
from diffflow_jax.sampling import adaptive, grids, likelihood, solvers, tableau
from tests.tables import mix1d

KEY = jax.random.key(0)
pytest.importorskip("diffrax")


def mix3d():
  means = [[-1.0, 0.2, 0.0], [1.2, -0.5, 0.7]]
  return closed_form.mixture([0.3, 0.7], means, [0.3, 0.5])


FLOW = schedules.Flow()
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


def test_whole_numbers_flow_as_floats():
  z, start = np.array([[1], [-2]]), levels.at_logsnr(levels.vp, -1.0)
  got, _ = adaptive.flow(mix1d(), z, start, DATA)
  want, _ = adaptive.flow(mix1d(), z.astype(np.float32), start, DATA)
  np.testing.assert_array_equal(got, want)


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


@pytest.mark.parametrize("per_sample", [True, False])
def test_log_likelihood_is_the_mixtures(per_sample):
  """In float32, at default tolerances, within 1e-4 nats."""
  x = mix3d().sample(KEY, 32)
  got, nfe = adaptive.log_likelihood(mix3d(), x, per_sample=per_sample)
  want = mix3d().log_prob(x, levels.Level(jnp.inf, jnp.ones(()), jnp.zeros(())))
  np.testing.assert_allclose(got, want, atol=1e-4)
  assert nfe.shape == ((32,) if per_sample else ())
  assert 20 < nfe.mean() < 400


@pytest.mark.parametrize("scale", [levels.vp, levels.ve, levels.linear])
def test_log_likelihood_is_of_states_on_the_scale_of_the_start(scale, x64):
  """And the prior's on that of the end: as `flow` takes and gives them."""
  start, end = (levels.at_logsnr(scale, l) for l in (3.0, -2.0))
  x = mix3d().sample(KEY, 8)
  z = levels.add_noise(x, jax.random.normal(KEY, x.shape), start)
  got, _ = adaptive.log_likelihood(
    mix3d(),
    z,
    start=start,
    end=end,
    log_prior=lambda z: mix3d().log_prob(z[None], end)[0],
    rtol=1e-8,
    atol=1e-8,
  )
  np.testing.assert_allclose(got, mix3d().log_prob(z, start), atol=1e-6)


def test_log_likelihood_with_a_prior_at_a_finite_end(x64):
  """Stops at logsnr -3, where the exact marginal is the prior: log p exactly.

  The default prior there is N(0, sigma²), of the end's own sigma.
  """
  x = mix3d().sample(KEY, 8)
  end = levels.at_logsnr(levels.linear, -3.0)
  run = lambda **kw: adaptive.log_likelihood(
    mix3d(), x, end=end, rtol=1e-8, atol=1e-8, **kw
  )[0]
  got = run(log_prior=lambda z: mix3d().log_prob(z[None], end)[0])
  clean = levels.Level(jnp.inf, jnp.ones(()), jnp.zeros(()))
  np.testing.assert_allclose(got, mix3d().log_prob(x, clean), atol=1e-6)
  z, _ = adaptive.flow(mix3d(), x, DATA, end, rtol=1e-8, atol=1e-8)
  normal = jax.scipy.stats.norm.logpdf(z, scale=end.sigma).sum(1)
  np.testing.assert_allclose(
    run() - got, normal - mix3d().log_prob(z, end), atol=1e-5
  )


def test_adaptive_samples_start_from_the_noise_of_the_others():
  """Sample i is that of a fine fixed grid, and of any batch."""
  fine = solvers.heun(grids.uniform_t(FLOW, levels.linear, 200))
  want = tableau.sample(mix1d(), fine, KEY, (6, 1))
  got, nfe = adaptive.sample(mix1d(), PURE, DATA, KEY, (6, 1))
  np.testing.assert_allclose(got, want, atol=2e-3)
  part, _ = adaptive.sample(mix1d(), PURE, DATA, KEY, (2, 1), first=3)
  np.testing.assert_allclose(part, got[3:5], atol=1e-4)
  assert nfe.shape == (6,)
  with pytest.raises(ValueError, match="rtol must be > 0, not 0"):
    adaptive.sample(mix1d(), PURE, DATA, KEY, (1, 1), rtol=0.0)


@pytest.mark.slow
def test_hutchinson_is_unbiased_and_its_noise_falls(x64):
  x = mix3d().sample(KEY, 3)
  x = jnp.concatenate([x, x[:1]])  # twice the same, with probes of its own
  exact, _ = adaptive.log_likelihood(mix3d(), x)
  ask = lambda key, n: adaptive.log_likelihood(
    mix3d(), x, key=key, num_probes=n
  )[0]
  few = jax.vmap(lambda k: ask(k, 1))(jax.random.split(KEY, 200))
  spread = few.std(0)
  assert np.all(np.abs(few.mean(0) - exact) < 4 * spread / np.sqrt(200) + 1e-3)
  assert abs(np.corrcoef(few[:, 0], few[:, 3])[0, 1]) < 4 / np.sqrt(200)
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


def test_bad_probes_and_tolerances_are_refused():
  for settings, message in (
    (dict(num_probes=2), "num_probes needs a key"),
    (dict(num_probes=0, key=KEY), "num_probes must be an integer >= 1, not 0"),
    (dict(rtol=0.0), "rtol must be > 0, not 0"),
    (dict(atol=-1.0), "atol must be > 0, not -1"),
  ):
    with pytest.raises(ValueError, match=message):
      adaptive.log_likelihood(mix1d(), jnp.zeros((1, 1)), **settings)


@pytest.mark.parametrize("per_sample", [True, False])
def test_what_gives_nan_is_given_up_at_once(per_sample):
  """Not after the most steps: from the start, and half of the way."""
  for late in (False, True):
    calls = []

    def lost(z, lv, cond, late=late, calls=calls):
      jax.debug.callback(lambda _: calls.append(1), lv.logsnr)
      bad = jnp.where(lv.logsnr > 0.0, jnp.nan, 0.0) if late else jnp.nan
      x_hat, eps_hat = mix1d()(z, lv)
      return x_hat + bad, eps_hat

    with pytest.raises(Exception, match="minimum step size"):
      jax.block_until_ready(
        adaptive.flow(lost, jnp.ones((1, 1)), PURE, DATA, per_sample=per_sample)
      )
    jax.effects_barrier()
    assert 0 < len(calls) < 1000


def test_a_density_of_discrete_data_is_warned_of():
  white = closed_form.gaussian(jnp.zeros(16), 1.0)
  rng = np.random.default_rng(0)
  discrete = jnp.asarray(rng.integers(0, 17, (8, 16)) / 8.0 - 1.0)
  with pytest.warns(UserWarning, match="z is of 17 values .*uniform_bits") as w:
    adaptive.log_likelihood(white, discrete)
  assert len(w) == 1 and w[0].filename == __file__
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    at = levels.at_logsnr(levels.vp, 4.0)
    adaptive.log_likelihood(white, discrete, start=at)  # noisy already
  odd = jnp.asarray(rng.choice([0.0, 0.3, 1.0], (8, 16)))
  smooth = discrete + jnp.asarray(rng.uniform(0, 1 / 8, discrete.shape))
  grid = np.stack(np.meshgrid(*[np.linspace(-2, 2, 9)] * 2), -1).reshape(-1, 2)
  for z in (odd, smooth, jnp.zeros((8, 16)), jnp.asarray(grid)):
    assert not likelihood.num_values(z)
  assert jax.jit(lambda z: z + likelihood.num_values(z))(discrete).shape
