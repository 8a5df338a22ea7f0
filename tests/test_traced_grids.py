"""Solvers of grids that are traced: the same tableaus, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax.process import schedules
from diffflow_jax.sampling import grids, introspection, solvers as so
from diffflow_jax.sampling.solvers import coordinates
from tests.test_solvers import ALL, uneven

QUICK = """ddim_1 heun heun_sigma rk4 dpmpp_2s dpmpp_3s dpmpp_2m unipc_2 deis_3
ab_2 ddpm_0.3 sde_dpmpp_2m_1 euler_maruyama_1 langevin dpm_2_ancestral_1
dpmpp_sde_0.5 stochastic_heun_1""".split()
NO_PURE_NOISE = ("sigma", "lms", "dpmpp_3m", "deis_3", "started")


def finite(name):
  """Whether a solver needs a finite start: in sigma, or with a stage in it."""
  return any(part in name for part in NO_PURE_NOISE) and "ramp" not in name


CASES = [
  pytest.param(name, clean, marks=() if name in QUICK else pytest.mark.slow)
  for name in ALL
  for clean in (True, False)
  if not name.startswith(("edm", "churned")) and (clean or name in QUICK)
]


@pytest.mark.parametrize("name,clean", CASES)
def test_a_traced_grid_gives_the_same_sampler_and_slope(name, clean, x64):
  """To sigma = 0 and short of it, which a traced grid does not know.

  On Gaussian data the sample is an affine function of start and noise; both
  tableaus have the same one, though the traced one may have more rows. Its
  slope along the levels is that of differences.
  """
  inner = np.asarray(uneven(3).logsnr)
  front = np.array([] if finite(name) else [-np.inf])
  back = np.array([np.inf] if clean else [])
  along = np.linspace(1.0, -0.5, len(inner))
  levels = lambda l, xp: xp.concatenate([front, l, back])
  made = lambda l, xp=np: ALL[name](grids.from_logsnr(levels(l, xp)))
  got, slope = jax.jvp(lambda l: made(l, jnp), (inner,), (along,))
  want, h = made(inner), 1e-5
  assert got.num_evaluations >= want.num_evaluations
  assert np.all(np.asarray(got.levels.sigma) > 0)  # nothing is asked for there
  affine = lambda t: introspection.gaussian_map(t, 0.4, 0.6)
  one, two = affine(got), affine(want)
  noise = lambda m: np.sum(np.square(m["noise"]))
  for part in ("gain", "offset"):
    np.testing.assert_allclose(one[part], two[part], rtol=1e-8, atol=1e-12)
  np.testing.assert_allclose(noise(one), noise(two), rtol=1e-8, atol=1e-16)
  size = lambda m: m["gain"] + m["offset"] + noise(m)
  moved = jax.tree.map(lambda t, d: t + h * d, got, slope)
  again = affine(moved), affine(made(inner + h * along))
  change = [size(m) - size(one) for m in again]
  assert abs(change[1]) > 1e-10  # rk38 is that exact
  np.testing.assert_allclose(*change, rtol=5e-3)


def test_edm_on_a_traced_grid_is_refused():
  with pytest.raises(TypeError, match="churn needs a concrete grid"):
    jax.jit(lambda l: so.edm(grids.from_logsnr(l)).mix)(jnp.arange(4.0))


def test_checks_do_not_look_at_traced_levels():
  """A repeated traced level passes, as its value is not known."""
  same = jnp.array([0.0, 0.0, 1.0])
  assert jax.jit(lambda l: so.ddim(grids.from_logsnr(l)).mix)(same).shape
  path = (schedules.Flow(), lambda a, s: (a, s))
  assert jax.jit(lambda l: coordinates.times(grids.from_logsnr(l), path))(
    same
  ).shape == (3,)
