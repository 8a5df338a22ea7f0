"""What cannot be sampled is refused in one sentence, before it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import networks
from diffflow_jax.process import (
  closed_form,
  levels,
  predictors,
  schedules,
  targets,
)
from diffflow_jax.sampling import (
  compose,
  grids,
  guidance,
  learned,
  solvers as so,
  tableau,
)

KEY = jax.random.key(0)
MODEL = closed_form.gaussian([0.4], 0.6)


def flow_grid(n):
  return grids.uniform_t(schedules.Flow(), levels.linear, n)


TABLE = so.dpmpp_2m(flow_grid(4))


def early(row, column):
  mix = np.array(TABLE.mix)
  mix[row, 1, tableau.H + column] = 0.5
  return TABLE.replace(mix=mix)


@pytest.mark.parametrize(
  "table,message",
  [
    (early(0, 0), "row 0 of the tableau uses prediction h_0, but only 0 were"),
    (early(1, 1), "row 1 of the tableau uses prediction h_1, but only 1 were"),
    (TABLE.replace(mix=TABLE.mix[:-1]), "mix of a tableau must have shape"),
    (TABLE.replace(mix=TABLE.mix[..., :2]), "mix of a tableau must have shape"),
    (TABLE.replace(target=TABLE.target[:, :1]), "target .* must have shape"),
    (TABLE.replace(levels=TABLE.start), "levels.logsnr .* must have shape"),
    (TABLE.replace(end=TABLE.levels), "end.logsnr of a tableau must have"),
    (TABLE.replace(mix=TABLE.mix * np.nan), "mix of a tableau must be finite"),
  ],
)
def test_a_users_tableau_is_checked(table, message):
  with pytest.raises(ValueError, match=message):
    tableau.sample(MODEL, table, KEY, (2, 1))


def test_a_traced_tableau_is_checked_for_shapes_alone():
  run = lambda mix: tableau.sample(MODEL, TABLE.replace(mix=mix), KEY, (2, 1))
  assert np.isnan(jax.jit(run)(TABLE.mix * np.nan)).all()
  with pytest.raises(ValueError, match="must have shape"):
    jax.jit(run)(TABLE.mix[:-1])


@pytest.mark.parametrize("name", so.SOLVERS)
def test_every_solver_passes_that_check_and_no_longer_if_it_looks_ahead(name):
  grid = grids.from_logsnr([-4.0, -1.0, 1.0, 4.0, np.inf])
  table = so.named(name)(grid)
  assert tableau.check(table) is table
  padded = compose.pad(table, 40, 5)
  assert tableau.check(padded) is padded
  ahead = np.array(padded.mix)
  ahead[0, 1, tableau.H] = 0.5
  with pytest.raises(ValueError, match="row 0 .* uses prediction h_0"):
    tableau.check(padded.replace(mix=ahead))


@pytest.mark.parametrize(
  "z,message",
  [
    (np.zeros((2, 1), int), "z must be floats, not int"),
    (np.zeros((2, 1), bool), "z must be floats, not bool"),
    ([[0], [1]], "z must be floats, not int"),
    (np.zeros((3, 1)), r"z has shape \(3, 1\), but shape is \(2, 1\)"),
  ],
)
def test_a_start_that_is_none_is_refused(z, message):
  with pytest.raises(ValueError, match=message):
    tableau.sample(MODEL, TABLE, KEY, (2, 1), z=z)


def test_a_start_in_the_place_of_a_shape_is_named():
  with pytest.raises(ValueError, match=r"an array of shape \(4, 2\): give z="):
    tableau.sample(MODEL, TABLE, KEY, jnp.ones((4, 2)))


def test_a_start_may_be_a_list_and_brings_the_shape():
  """Without noise no key is needed either, in a padded tableau too."""
  want = tableau.sample(MODEL, TABLE, KEY, (2, 1), z=jnp.array([[0.0], [1.0]]))
  for table in (TABLE, compose.pad(TABLE, 9, 3)):
    got = tableau.sample(MODEL, table, z=[[0.0], [1.0]])
    np.testing.assert_allclose(got, want, rtol=1e-6)


NOISY = so.ddim(flow_grid(4), 0.5)
BACK = so.heun(grids.reverse(flow_grid(4)))


@pytest.mark.parametrize(
  "table,kwargs,message",
  [
    (TABLE, dict(key=KEY), "shape must be .* not None"),
    (TABLE, dict(key=KEY, shape=10), "shape must be .* not 10"),
    (TABLE, dict(key=KEY, shape=()), r"shape must be .* not \(\)"),
    (TABLE, dict(shape=(2, 1)), "key is None, but noise is drawn"),
    (NOISY, dict(z=[[0.0]]), "key is None, but noise is drawn"),
    (TABLE, dict(key=0, shape=(2, 1)), "key must be a PRNG key"),
    (TABLE, dict(key=np.int64(3), shape=(2, 1)), "key must be a PRNG key"),
    (BACK, dict(key=KEY, shape=(2, 1)), "starts at data, sigma = 0: z must"),
    (so.ddim, dict(key=KEY, shape=(2, 1)), "what a solver makes .* not func"),
    (flow_grid(4), dict(key=KEY, shape=(2, 1)), "makes of a grid.* not Level"),
  ],
)
def test_what_is_missing_is_said(table, kwargs, message):
  with pytest.raises(ValueError, match=message):
    tableau.sample(MODEL, table, **kwargs)


DRAWS = np.zeros((5, 2, 1))


@pytest.mark.parametrize(
  "noise,message",
  [
    (DRAWS[1:], r"one draw for each row .* \(5, 2, 1\), not \(4, 2, 1\)"),
    (DRAWS * 1j, "noise must be an array of real numbers, not complex128"),
    (DRAWS.tolist(), "noise must be an array of real numbers, not list"),
  ],
)
def test_draws_are_an_array_of_the_tables_rows(noise, message):
  z = jnp.ones((2, 1))
  tableau.sample(MODEL, NOISY, z=z, noise=jnp.asarray(DRAWS, jnp.bfloat16))
  with pytest.raises(ValueError, match=message):
    tableau.sample(MODEL, NOISY, z=z, noise=noise)


@pytest.mark.parametrize(
  "first,second,message",
  [
    (compose.pad(TABLE, 9, 3), TABLE, "a padded tableau has no end"),
    (TABLE, compose.pad(TABLE, 9, 3), "a padded tableau has no end"),
    (TABLE, flow_grid(4), "a tableau is what a solver makes"),
    (BACK, so.heun(flow_grid(4)[1:]), "logsnr .*, cleaner than -inf, where"),
  ],
)
def test_what_cannot_be_joined_is_refused(first, second, message):
  with pytest.raises(ValueError, match=message):
    compose.join(first, second)


def test_a_traced_tableau_needs_a_key():
  """Whether it draws noise is not known; old and new keys are keys."""
  run = lambda mix, **kw: tableau.sample(
    MODEL, TABLE.replace(mix=mix), z=jnp.ones((2, 1)), **kw
  )
  with pytest.raises(ValueError, match="key is None, but noise is drawn"):
    jax.jit(run)(TABLE.mix)
  for key in (KEY, jax.random.PRNGKey(0)):
    assert jax.jit(lambda mix, key=key: run(mix, key=key))(TABLE.mix).shape


@pytest.mark.parametrize(
  "predict,message",
  [
    (lambda z, lv, cond: z, "of shape .2, 1., not"),
    (lambda z, lv, cond: (z[:, 0], z), r"not shapes \[\(2,\), \(2, 1\)\]"),
    (lambda z, lv, cond: (z, z, z), "predict must return"),
  ],
)
def test_a_prediction_that_is_no_pair_is_refused(predict, message):
  with pytest.raises(ValueError, match=message):
    tableau.sample(predict, TABLE, KEY, (2, 1))


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda l: so.edm(l, np.nan), "s_churn must be finite and >= 0, not nan"),
    (lambda l: so.edm(l, 1.0, s_noise=-1.0), "s_noise must be finite"),
    (lambda l: so.edm(l, 1.0, 2.0, 1.0), "s_max must be >= s_min = 2.0, not 1"),
    (lambda l: so.adjusted_ddim(l, -1.0), "v must be finite and >= 0, not -1"),
    (lambda l: so.dpmpp_2s(l, 0.0), r"r must be in \(0, 1\], not 0.0"),
    (lambda l: so.dpmpp_2s(l, 2.0), r"r must be in \(0, 1\], not 2.0"),
    (lambda l: so.ddim(l, np.zeros(3)), "eta must be one number, a function"),
    (lambda l: so.ddim(l, "1"), "eta must be one number, .* not '1'"),
    (lambda l: so.heun(l, 3), "coordinate must be one of .* not 3"),
    (lambda l: so.heun(l, (1,)), "coordinate must be one of"),
    (lambda l: so.ddim(l.logsnr), "a grid is a Level .* not ndarray"),
    (lambda l: so.unipc(5), "a grid is a Level .* not int"),
    (lambda l: so.ddim(l, 2.0), "eta must be between 0 and .* on this grid"),
    (lambda l: so.sde_dpmpp_2m(l, np.inf), "eta must be finite"),
    (lambda l: so.unipc(l, 2.0), "order must be one of 1, 2, 3, not 2.0"),
    (lambda l: so.unip(l, True), "order must be one of 1, 2, 3, not True"),
    (lambda l: so.langevin(l, 1.5), "num_corrections must be an integer"),
    (lambda l: compose.restart(l, so.ddim, 1, 2, -1), "times must be an int"),
    (lambda l: compose.restart(l, so.ddim, 0.5, 2), "high must be an integer"),
    (lambda l: compose.pad(so.ddim(l), 0, 1), "num_evaluations must be an int"),
  ],
)
def test_bad_settings_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make(grids.from_logsnr(np.linspace(-3, 3, 6)))


@pytest.mark.parametrize(
  "name,value", [("num_evaluations", 0), ("num_train", 0), ("num_starts", 1.5)]
)
def test_fits_of_nothing_are_refused(name, value):
  settings = {"num_evaluations": 3, name: value}
  with pytest.raises(ValueError, match=f"{name} must be an integer >= 1"):
    learned.fit_tableau(MODEL, flow_grid(4), key=KEY, shape=(1,), **settings)


def test_a_name_is_no_solver_to_restart():
  with pytest.raises(TypeError, match="as solvers.heun is, not 'heun'"):
    compose.restart(flow_grid(4), "heun", 1, 2)


def test_features_need_a_frequency():
  with pytest.raises(ValueError, match="dim must be an integer >= 2, not 0"):
    networks.logsnr_features(np.zeros(2), 0)


def test_sampling_a_velocity_without_a_clock_says_what_to_take():
  predict = predictors.predictor_of(lambda z, lv, cond: z, targets.u)
  with pytest.raises(ValueError, match="sampler's have not.*take target flow"):
    tableau.sample(predict, so.ddim(flow_grid(2)), KEY, (2, 1))


def test_another_grid_is_no_brownian_clock():
  grid, other = flow_grid(4), grids.karras(4)
  table = so.ddim(grid, 0.5)
  run = lambda t, b: tableau.sample(MODEL, t, KEY, (2, 1), brownian=b)
  with pytest.raises(ValueError, match="the grid that the tableau was made of"):
    run(table, other)
  shorter = so.ddim(grids.from_logsnr(grid.logsnr[:-1]), 0.5)
  with pytest.raises(ValueError, match="4 levels, not 5"):
    run(shorter, grid)
  padded = run(compose.pad(table, 9, 3), grid)
  np.testing.assert_allclose(padded, run(table, grid), atol=1e-6)


@pytest.mark.parametrize(
  "null,cond,missing", [(0, None, "cond"), (None, jnp.array([0, 1]), "null")]
)
def test_guidance_of_nothing_is_refused(null, cond, missing):
  model = guidance.Guided(MODEL, null, 2.0)
  message = f"guidance needs a condition .* {missing} is None"
  with pytest.raises(ValueError, match=message):
    tableau.sample(model, TABLE, KEY, (2, 1), cond=cond)


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda: guidance.Guided(MODEL, 0, rescale=1.5), "rescale must be in"),
    (lambda: guidance.Guided(MODEL, 0, interval=(3, -3)), "interval must be"),
    (lambda: guidance.Clipped(MODEL, 0.0), "limit must be > 0, not 0.0"),
    (lambda: guidance.DynamicallyClipped(MODEL, 99.5, -1), "limit must be > 0"),
    (lambda: guidance.DynamicallyClipped(MODEL, 150), "percentile must be in"),
  ],
)
def test_wrappers_out_of_range_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
