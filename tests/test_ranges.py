"""Every number of every public constructor has a range, and says so."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import data, networks
from diffflow_jax.objective import (
  bound,
  densities,
  objectives,
  omegas,
  weightings,
)
from diffflow_jax.process import (
  closed_form,
  gaussians,
  levels,
  ranges,
  schedules,
  targets,
)
from diffflow_jax.sampling import adaptive, grids, guidance, likelihood, solvers

NAN, INF = math.nan, math.inf
KEY = jax.random.key(0)
MODEL = closed_form.gaussian([0.4], 0.6)
GRID = grids.uniform_t(schedules.Flow(), levels.linear, 4)
TABLE = solvers.ddim(GRID)
MLP = networks.MLP(width=8, depth=1)
FLOW = objectives.flow_matching()
PREDICT = dfj.predictor(FLOW, lambda params, z, logsnr, cond: z, {})


@pytest.mark.parametrize(
  "words,inside,outside",
  [
    ("finite", (0, -1e300, np.float32(2)), (NAN, INF, -INF)),
    ("> 0", (1e-300, 5), (0, -1.0, NAN, INF)),
    (">= 0", (0, 0.0, 7), (-1e-9, NAN, INF)),
    ("in [0, 1)", (0, 0.999), (1, -0.1, NAN)),
    ("in (0, 1]", (1, 1e-9), (0, 1.01, NAN)),
    ("in (0, inf]", (INF, 3), (0, NAN, -INF)),
    ("an integer >= 2", (2, np.int64(9)), (1, 2.0, True, NAN, -3)),
    ("< top", (4.9, -7), (5, 5.1, NAN)),
    ([">= 0", "< top"], (0, 4), (-1, 5, NAN)),
    ((lambda v, others: v % 2 == 0, "even"), (2, 4), (3,)),
  ],
)
def test_words_are_tests(words, inside, outside):
  for value in inside:
    ranges.check("x", value, words, {"top": 5})
    ranges.check("x", np.full(3, value), words, {"top": 5})
  for value in outside:
    for one in (value, np.array([inside[0], value])):
      if isinstance(value, bool) and one is not value:
        continue
      with pytest.raises(ValueError, match=r"^x must be .*, not ") as error:
        ranges.check("x", one, words, {"top": 5})
      assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["1", None, [1.0], 1j, object(), False])
def test_what_is_no_number_is_refused(value):
  with pytest.raises(ValueError, match="x must be a number, > 0, not"):
    ranges.check("x", value, "> 0")


def test_what_is_not_known_yet_passes():
  jax.jit(lambda v: ranges.check("x", v, "> 0"))(-1.0)
  jax.vmap(lambda v: ranges.check("x", v, "> 0"))(jnp.array([-1.0]))
  ranges.check("x", jax.ShapeDtypeStruct((), jnp.float32), "> 0")
  ranges.check("x", 1.0, "< top", {"top": "a"})  # refused by top's own range


NODES = [
  levels.Unit(0.5),
  levels.CondOT(1e-4),
  targets.F(0.5),
  schedules.Karras(),
  schedules.Shift(schedules.Flow(), 3.0),
  densities.Normal(),
  weightings.Sigmoid(1.0),
  omegas.P2(),
  guidance.Guided(MODEL, 0, 2.0, rescale=0.5),
  guidance.DynamicallyClipped(MODEL),
  closed_form.mixture([1.0, 2.0], [[0.0], [1.0]], 0.3),
  gaussians.gaussian([0.0, 1.0], np.eye(2)),
  objectives.edm(),
]


@pytest.mark.parametrize("node", NODES, ids=lambda n: type(n).__name__)
def test_gradients_placeholders_and_tracers_take_the_place_of_numbers(node):
  """What JAX makes of leaves is no user's choice: a negative gradient say."""
  floats = lambda tree: [float(jnp.sum(x)) for x in jax.tree.leaves(tree)]
  negative = jax.tree.map(lambda x: -jnp.abs(jnp.asarray(x) * 1.0) - 1.0, node)
  assert max(floats(negative)) < 0 and type(negative) is type(node)
  assert jax.tree.structure(negative) == jax.tree.structure(node)
  jax.tree.map(lambda x: object(), node)
  total = lambda n: sum(-jnp.sum(x) for x in jax.tree.leaves(n))
  grad = jax.grad(total)(jax.tree.map(lambda x: jnp.asarray(x, float), node))
  assert all(x < 0 for x in floats(grad))
  twice = jax.jit(lambda n: jax.tree.map(lambda x: 2.0 * x, n))(node)
  np.testing.assert_allclose(floats(twice), 2 * np.array(floats(node)))
  stack = jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), node)
  assert jax.vmap(total)(stack).shape == (2,)
  paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(node)]
  assert all(isinstance(p[0], jax.tree_util.GetAttrKey) for p in paths)


def test_a_node_is_frozen_and_replaced_and_checked_again():
  unit = levels.Unit(0.5)
  with pytest.raises(AttributeError):
    unit.sigma_data = 1.0
  assert unit.replace(sigma_data=0.7) == levels.Unit(0.7)
  with pytest.raises(ValueError, match="Unit: sigma_data must be > 0, not -1"):
    unit.replace(sigma_data=-1)
  made = jax.jit(lambda s: levels.Unit(s)(1.0, 1.0)[0])(0.5)
  np.testing.assert_allclose(made, 1 / math.sqrt(1.25), rtol=1e-6)


def test_a_checked_function_keeps_its_signature_and_pythons_own_errors():
  assert list(inspect.signature(objectives.edm).parameters) == [
    "sigma_data",
    "p_mean",
    "p_std",
  ]
  with pytest.raises(TypeError, match=r"edm\(\) got an unexpected keyword"):
    objectives.edm(sigma=1.0)


def test_a_users_schedule_has_its_numbers_checked():
  @schedules.schedule
  class Mine:
    top: float = 10.0
    logsnr_min: float = -5.0
    logsnr_max: float = 5.0
    _allowed = {"top": "> 0"}

    def logsnr(self, t):
      return self.top * (1 - 2 * t)

  for bad, message in (
    (dict(top=0), "Mine: top must be > 0, not 0"),
    (dict(top=NAN), "top must be > 0, not nan"),
    (dict(logsnr_min=6.0), "logsnr_min must be < logsnr_max = 5.0, not 6.0"),
    (dict(logsnr_max=INF), "logsnr_max must be a finite number, not inf"),
  ):
    with pytest.raises(ValueError, match=message):
      Mine(**bad)


BAD = [
  (
    lambda: guidance.Guided(MODEL, 0, strength=NAN),
    "Guided: strength must be a finite number, not nan",
  ),
  (
    lambda: guidance.Guided(MODEL, 0, strength="a"),
    "Guided: strength must be a finite number, not 'a'",
  ),
  (
    lambda: guidance.Guided(MODEL, 0, interval=(NAN, 1)),
    "interval must be (lo, hi), lo < hi, not nan",
  ),
  (
    lambda: guidance.Guided(MODEL, 0, rescale=NAN),
    "Guided: rescale must be in [0, 1], not nan",
  ),
  (lambda: guidance.Clipped(MODEL, NAN), "Clipped: limit must be > 0, not nan"),
  (
    lambda: guidance.Clipped(MODEL, INF),
    "Clipped: limit must be > 0 and finite, not inf",
  ),
  (
    lambda: guidance.DynamicallyClipped(MODEL, NAN),
    "DynamicallyClipped: percentile must be in [0, 100], not nan",
  ),
  (
    lambda: guidance.Measured(MODEL, 0.0, -1.0),
    "Measured: noise_std must be >= 0, not -1.0",
  ),
  (
    lambda: schedules.Shift(schedules.Flow(), NAN),
    "Shift: factor must be > 0, not nan",
  ),
  (
    lambda: schedules.Shift(schedules.Flow(), 0),
    "Shift: factor must be > 0, not 0",
  ),
  (lambda: schedules.Flow(1.0), "Flow: sigma_min must be in [0, 1), not 1.0"),
  (
    lambda: schedules.Mode(3.0),
    "Mode: spread must be between -1 and 1.752, not 3.0",
  ),
  (
    lambda: schedules.Mode(NAN),
    "Mode: spread must be between -1 and 1.752, not nan",
  ),
  (lambda: schedules.Karras(rho=NAN), "Karras: rho must be > 0, not nan"),
  (
    lambda: schedules.Karras(80, 2),
    "Karras: sigma_min must be < sigma_max = 2, not 80",
  ),
  (
    lambda: schedules.LinearLogSNR(NAN),
    "LinearLogSNR: logsnr_min must be a finite number, not nan",
  ),
  (
    lambda: schedules.LinearLogSNR(5, -5),
    "LinearLogSNR: logsnr_min must be < logsnr_max = -5, not 5",
  ),
  (lambda: schedules.Sigmoid(tau=-1), "Sigmoid: tau must be > 0, not -1"),
  (
    lambda: schedules.OffsetCosine(NAN),
    "OffsetCosine: offset must be in [0, 1), not nan",
  ),
  (lambda: schedules.shifted_cosine(NAN), "image_size must be > 0, not nan"),
  (
    lambda: schedules.learned(KEY, 0),
    "num_hidden must be an integer >= 1, not 0",
  ),
  (lambda: schedules.ddpm_table(1), "num must be an integer >= 2, not 1"),
  (
    lambda: schedules.ddpm_table(beta_end=NAN),
    "beta_end must be in (0, 1), not nan",
  ),
  (
    lambda: schedules.iddpm_table(max_beta=2.0),
    "max_beta must be in (0, 1), not 2.0",
  ),
  (
    lambda: schedules.beta_table([0.1, NAN]),
    "betas[1] = nan must be between 0 and 1",
  ),
  (
    lambda: objectives.edm(p_mean=NAN),
    "p_mean must be a finite number, not nan",
  ),
  (lambda: objectives.edm(p_std=0), "p_std must be > 0, not 0"),
  (
    lambda: objectives.flow_matching(NAN),
    "sigma_min must be in [0, 1), not nan",
  ),
  (lambda: objectives.sd3(mean=NAN), "mean must be a finite number, not nan"),
  (
    lambda: objectives.vdm(NAN),
    "LinearLogSNR: logsnr_min must be a finite number, not nan",
  ),
  (lambda: objectives.sid2(bias=NAN), "bias must be a finite number, not nan"),
  (lambda: objectives.simple_diffusion(0), "image_size must be > 0, not 0"),
  (lambda: objectives.ve(-1), "Geometric: sigma_min must be > 0, not -1"),
  (
    lambda: objectives.iddpm(offset=NAN),
    "offset must be a finite number, not nan",
  ),
  (
    lambda: densities.logit_normal(NAN),
    "mean must be a finite number, not nan",
  ),
  (lambda: densities.Normal(0, -1), "Normal: std must be > 0, not -1"),
  (
    lambda: densities.Normal(NAN),
    "Normal: mean must be a finite number, not nan",
  ),
  (lambda: densities.sech(NAN), "mean must be a finite number, not nan"),
  (
    lambda: densities.uniform(3, 1),
    "LinearLogSNR: logsnr_min must be < logsnr_max = 1, not 3",
  ),
  (lambda: densities.adaptive(floor=NAN), "floor must be in (0, 1], not nan"),
  (
    lambda: densities.adaptive(num_bins=2.5),
    "num_bins must be an integer >= 1, not 2.5",
  ),
  (
    lambda: weightings.Sigmoid(NAN),
    "Sigmoid: bias must be a finite number, not nan",
  ),
  (lambda: omegas.MinSNR(-1), "MinSNR: gamma must be > 0, not -1"),
  (lambda: omegas.P2(0), "P2: k must be > 0, not 0"),
  (lambda: omegas.P2(1, NAN), "P2: gamma must be a finite number, not nan"),
  (
    lambda: weightings.uncertainty(weightings.elbo, 0),
    "num_channels must be an integer >= 1, not 0",
  ),
  (
    lambda: weightings.edm(p_mean=NAN),
    "p_mean must be a finite number, not nan",
  ),
  (
    lambda: weightings.make("sigmoid", bias=NAN),
    "bias must be a finite number, not nan",
  ),
  (lambda: levels.Unit(-1), "Unit: sigma_data must be > 0, not -1"),
  (lambda: levels.Unit(NAN), "Unit: sigma_data must be > 0, not nan"),
  (lambda: levels.CondOT(1.5), "CondOT: sigma_min must be in [0, 1), not 1.5"),
  (lambda: targets.F(0), "F: sigma_data must be > 0, not 0"),
  (lambda: targets.F(NAN), "F: sigma_data must be > 0, not nan"),
  (
    lambda: targets.make("F", sigma_data=NAN),
    "F: sigma_data must be > 0, not nan",
  ),
  (
    lambda: closed_form.mixture([1.0, 1.0], [[0.0], [NAN]], 1.0),
    "Mixture: means must be a finite number, not nan",
  ),
  (
    lambda: closed_form.mixture([1.0, -1.0], [[0.0], [1.0]], 1.0),
    "weights must be >= 0, not -1.0",
  ),
  (
    lambda: closed_form.mixture([0.0, 0.0], [[0.0], [1.0]], 1.0),
    "weights must be >= 0 and not all 0, not [0. 0.]",
  ),
  (
    lambda: closed_form.mixture([1.0], [[0.0]], NAN),
    "Mixture: stds must be >= 0, not nan",
  ),
  (
    lambda: closed_form.gaussian([NAN], 1.0),
    "Mixture: means must be a finite number, not nan",
  ),
  (
    lambda: closed_form.gaussian([0.0], -1.0),
    "Mixture: stds must be >= 0, not -1.0",
  ),
  (
    lambda: gaussians.gaussian([0.0, NAN], np.eye(2)),
    "Gaussian: mean must be a finite number, not nan",
  ),
  (
    lambda: gaussians.gaussian([0.0, 0.0], np.eye(2) * NAN),
    "covariance must be a finite number, not nan",
  ),
  (
    lambda: closed_form.dataset([[NAN]]),
    "Mixture: means must be a finite number, not nan",
  ),
  (
    lambda: dfj.sample(MODEL, TABLE, KEY, (-1, 2)),
    "each side of shape must be an integer >= 1, not -1",
  ),
  (
    lambda: dfj.sample(MODEL, TABLE, KEY, (3.0, 2)),
    "each side of shape must be an integer >= 1, not 3.0",
  ),
  (
    lambda: dfj.sample(MODEL, TABLE, KEY, (0, 2)),
    "each side of shape must be an integer >= 1, not 0",
  ),
  (
    lambda: adaptive.sample(MODEL, GRID[0], GRID[-1], KEY, (-1, 1)),
    "each side of shape must be an integer >= 1, not -1",
  ),
  (
    lambda: likelihood.bits_per_dim(1.0, 0),
    "size must be an integer >= 1, not 0",
  ),
  (
    lambda: likelihood.bits_per_dim(1.0, 2.5),
    "size must be an integer >= 1, not 2.5",
  ),
  (
    lambda: likelihood.bits_per_dim(1.0, 2, bins_per_unit=-1),
    "bins_per_unit must be > 0, not -1",
  ),
  (
    lambda: bound.density_bits(1.0, 0),
    "num_dims must be an integer >= 1, not 0",
  ),
  (lambda: bound.density_bits(1.0, 2, width=0.0), "width must be > 0, not 0.0"),
  (
    lambda: adaptive.flow(MODEL, jnp.ones((2, 1)), GRID[0], GRID[-1], rtol=NAN),
    "rtol must be > 0, not nan",
  ),
  (lambda: networks.MLP(width=0), "width must be an integer >= 1, not 0"),
  (
    lambda: networks.MLP(num_classes=-1),
    "num_classes must be an integer >= 0, not -1",
  ),
  (
    lambda: networks.UNet(channels=(-8,)),
    "channels must be an integer >= 1, not -8",
  ),
  (lambda: networks.DiT(depth=0), "depth must be an integer >= 1, not 0"),
  (lambda: data.moons(-1), "noise must be >= 0, not -1"),
  (lambda: data.moons("x"), "noise must be a number, >= 0, not 'x'"),
  (lambda: data.ring(0), "num_modes must be an integer >= 1, not 0"),
  (lambda: data.ring(std=NAN), "std must be >= 0, not nan"),
  (lambda: data.checkerboard(3), "cells must be even and at least 2, not 3"),
  (lambda: data.synthetic(side=0), "side must be an integer >= 1, not 0"),
  (lambda: data.synthetic(num=1.5), "num must be an integer >= 1, not 1.5"),
  (
    lambda: dfj.sample(MLP.apply, TABLE, KEY, (2, 1)),
    "predict must be predict(z, level, cond) -> (x̂, ε̂), not a n",
  ),
  (
    lambda: dfj.sample(MLP, TABLE, KEY, (2, 1)),
    "predict must be predict(z, level, cond) -> (x̂, ε̂), not a n",
  ),
  (
    lambda: PREDICT(jnp.ones((2, 1)), 0.5),
    "a noise level must be a Level, as levels.level(schedule, sca",
  ),
  (lambda: PREDICT([[1.0]], GRID[0]), "z must be an array, not list"),
  (
    lambda: PREDICT(jnp.ones((2, 1), int), GRID[0]),
    "z must be floats, not int32",
  ),
  (
    lambda: PREDICT(jnp.ones((0, 1)), GRID[0]),
    "z must be a batch (num, ...), not shape (0, 1)",
  ),
  (
    lambda: dfj.weighted_mse("edm", MLP.apply, {}, KEY, jnp.ones((2, 1))),
    "objective must be one, as objectives.make('edm') is, not 'ed",
  ),
  (
    lambda: dfj.weighted_mse(FLOW, lambda p, z, l, c: z, {}, KEY, [[1.0]]),
    "x must be an array, not list",
  ),
  (
    lambda: dfj.weighted_mse(
      FLOW, lambda p, z, l, c: z, {}, KEY, jnp.ones((2, 1), int)
    ),
    "x must be floats, not int32",
  ),
  (
    lambda: dfj.weighted_mse(
      FLOW, lambda p, z, l, c: z, {}, KEY, jnp.ones((0, 1))
    ),
    "x must be a batch (num, ...), not shape (0, 1)",
  ),
  (lambda: grids.karras(5, rho=NAN), "rho must be > 0, not nan"),
  (lambda: grids.shifted_flow(3, NAN), "shift must be > 0, not nan"),
  (
    lambda: grids.uniform_t(schedules.Flow(), levels.vp, 0),
    "num_steps must be an integer >= 1, not 0",
  ),
  (
    lambda: dfj.compare(FLOW, FLOW, num=1),
    "num must be an integer >= 2, not 1",
  ),
]


@pytest.mark.parametrize("make,message", BAD, ids=[m for _, m in BAD])
def test_nonsense_is_refused_in_one_sentence(make, message):
  with pytest.raises((ValueError, TypeError)) as error:
    make()
  text = str(error.value)
  assert text.startswith(message) and "\n" not in text and len(text) < 300
