"""The library's other doors: levels, states, labels, densities, configs."""

import importlib.util
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffflow_jax as dfj
from diffflow_jax import data, networks
from diffflow_jax.cli import Refusal
from diffflow_jax.evaluation import eps_mse_by_logsnr
from diffflow_jax.objective import losses, objectives, weightings
from diffflow_jax.objective.exchange import exchange
from diffflow_jax.process import levels, targets
from diffflow_jax.sampling import grids, solvers
from diffflow_jax.training import first_look, loop
from diffflow_jax.training.resolve import resolve
from tests import commands
from tests.test_data_files import refused

FLOW = objectives.flow_matching()


# levels


def test_a_level_from_a_pair_knows_its_logsnr():
  lv = levels.from_pair([0.0, 0.6, 1.0], [1.0, 0.8, 0.0])
  want = [-np.inf, 2 * np.log(0.75), np.inf]
  np.testing.assert_allclose(lv.logsnr, want, rtol=1e-12)
  traced = jax.jit(levels.from_pair)(0.6, 0.8)
  np.testing.assert_allclose(traced.logsnr, want[1], rtol=1e-5)
  assert solvers.ddim(lv).num_evaluations == 2  # it is a grid
  refused(lambda: levels.from_pair(-0.1, 1.0), "finite and >= 0, not -0.1")
  refused(lambda: levels.from_pair(np.nan, 1.0), "finite and >= 0")
  refused(lambda: levels.from_pair(0.0, 0.0), "both 0, which is no noise level")


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m", "sde_dpmpp_1"])
def test_a_level_that_contradicts_itself_is_refused_by_solvers(solver):
  good = grids.uniform_t(FLOW.schedule, FLOW.scale, 4)
  solve = solvers.SOLVERS[solver]
  solve(good)
  bad = good.replace(logsnr=good.logsnr + 0.3)
  refused(lambda: solve(bad), "logsnr = .*: levels.from_pair.alpha, sigma. mak")


def test_times_outside_0_to_1_are_refused():
  make = lambda t: levels.level(FLOW.schedule, FLOW.scale, t)
  for t in (0.0, 1, np.linspace(0, 1, 5), jnp.array([1.0])):
    make(t)
  for t, shown in ((1.5, "1.5"), (-0.01, "-0.01"), (np.array([0.5, 3]), "3")):
    refused(lambda t=t: make(t), rf"t must be in \[0, 1\], .* not {shown}")
  refused(lambda: make(np.nan), "not nan")
  refused(
    lambda: levels.lecture_level(FLOW.schedule, FLOW.scale, 2.0), "not -1"
  )
  assert np.isfinite(jax.jit(make)(0.5).alpha)


# one thing in the place of another

NET = networks.MLP(width=4, depth=1)
HELD = NET.init(jax.random.key(0), jnp.zeros((1, 2)), jnp.zeros(1))
FOUR = jnp.zeros((4, 2))
TABLE = solvers.ddim(grids.uniform_t(FLOW.schedule, FLOW.scale, 2))


def _loss(objective=FLOW, apply=NET.apply, key=jax.random.key(0)):
  return dfj.weighted_mse(objective, apply, HELD, key, FOUR)


MISTAKES = {
  "the network, lost": (lambda: _loss(apply=NET), "network.apply, not MLP"),
  "the network": (lambda: dfj.predictor(FLOW, NET, HELD), "apply, not MLP"),
  "swapped": (lambda: dfj.predictor(FLOW, HELD, NET.apply), "not dict"),
  "a name": (lambda: dfj.predictor("edm", NET.apply, HELD), "not 'edm'"),
  "a seed": (lambda: _loss(key=0), r"as jax.random.key\(0\), not 0"),
  "parameters": (lambda: _loss(key=HELD), "key must be a PRNG key"),
  "a clock's name": (
    lambda: grids.uniform_t("flow", levels.linear, 5),
    "schedule must be one, as .* not 'flow'",
  ),
  "a scale's name": (
    lambda: grids.uniform_t(FLOW.schedule, "linear", 5),
    "scale must be a function .* not 'linear'",
  ),
  "a scale's name alone": (
    lambda: levels.at_logsnr("vp", 0.0),
    "scale must be a function .* not 'vp'",
  ),
  "a recipe": (
    lambda: grids.uniform_t(FLOW, FLOW.scale, 5),
    "schedule must be one, as .* not Objective",
  ),
  "a run, guided": (
    lambda: dfj.sample(dfj.Guided(HasPredict(), 0, 2.0), TABLE, KEY, (4, 2)),
    "predict must be callable, not HasPredict: take its predict",
  ),
}
KEY = jax.random.key(0)


class HasPredict:
  predict = None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_thing_in_the_place_of_another_is_named(mistake):
  call, message = MISTAKES[mistake]
  with pytest.raises(TypeError, match=message) as caught:
    call()
  assert len(str(caught.value)) < 250


def test_numpy_s_doubles_are_taken_without_a_warning(recwarn):
  predict = dfj.predictor(FLOW, NET.apply, HELD)
  lv = levels.at_logsnr(FLOW.scale, 0.0)
  x_hat, _ = predict(np.zeros((4, 2)), lv)
  assert x_hat.dtype == jnp.result_type(float)
  dfj.weighted_mse(FLOW, NET.apply, HELD, KEY, np.zeros((4, 2)))
  assert not list(recwarn)


# states and labels


def test_a_state_must_have_the_spread_of_its_level():
  table = solvers.euler(grids.karras(3, 0.01, 80.0, 7.0, levels.ve))
  predict = lambda z, lv, cond: (0.0 * z, z / lv.sigma)
  draw = lambda z: dfj.sample(predict, table, z=z)
  normal = jax.random.normal(jax.random.key(0), (50, 2))
  for factor in (50.0, 80.0, 140.0):
    draw(factor * normal)
  for factor in (1.0, 30.0, 200.0):
    refused(
      lambda f=factor: draw(f * normal),
      "z has a spread of .*, but the grid starts at sigma = 80: give 80 ",
    )
  # in between, the data add to it
  middle = solvers.ddim(grids.from_logsnr(np.array([0.0, 3.0]), levels.vp))
  dfj.sample(predict, middle, z=5.0 * normal)
  refused(lambda: dfj.sample(predict, middle, z=0.1 * normal), "a spread of 0.")


def test_labels_that_are_no_class_are_refused_in_python():
  net = networks.MLP(width=4, depth=1, num_classes=10)
  z, logsnr = jnp.zeros((3, 2)), jnp.zeros(3)
  params = net.init(jax.random.key(0), z, logsnr, jnp.zeros(3, jnp.int32))
  call = lambda label: net.apply(params, z, logsnr, jnp.full(3, label))
  predict = dfj.predictor(FLOW, net.apply, params)
  table = solvers.ddim(grids.uniform_t(FLOW.schedule, FLOW.scale, 2))
  key = jax.random.key(0)
  for model in (predict, dfj.Guided(predict, 10, 2.0)):
    draw = lambda label, model=model: dfj.sample(
      model, table, key, (3, 2), cond=jnp.array([0, 1, label])
    )
    for use in (call, draw):
      assert np.isfinite(use(9)).all() and np.isfinite(use(10)).all()
      for label in (11, 300, -1):
        refused(
          lambda use=use, label=label: use(label),
          f"labels must be 0 to 9, or 10 for none, not {label}",
        )
  plain = networks.MLP(width=4, depth=1)
  bare = dfj.predictor(FLOW, plain.apply, plain.init(key, z, logsnr))
  refused(
    lambda: dfj.sample(bare, table, key, (3, 2), cond=jnp.array([0, 1, 2])),
    "labels are given, but the network has num_classes = 0",
  )


# objectives


def test_a_weighting_beside_a_density_is_made_of_the_new_one():
  density = ("logit_normal", {"mean": 0.5, "std": 0.7})
  logsnr = jnp.linspace(-4.0, 2.0, 7)
  # a density alone leaves what is minimised
  alone = exchange(FLOW, density)
  np.testing.assert_allclose(alone.weighting(logsnr), FLOW.weighting(logsnr))
  # MATH: w = 2 p D²/alpha² of u on straight lines, D = -1, alpha = sigmoid(λ/2)
  log_p = alone.density.log_prob(logsnr)
  want = jnp.log(2.0) + log_p - 2 * jax.nn.log_sigmoid(logsnr / 2)
  for name in ("u_mse", "own_mse"):
    both = exchange(FLOW, density, (name, {}))
    # u = dz/dt and D = dt-derivative free on straight lines: both are u's MSE
    np.testing.assert_allclose(both.weighting(logsnr), want, atol=1e-5)
    np.testing.assert_allclose(losses.factor_range(both), 1.0, atol=1e-5)
  # the network's own output, whatever it is
  v = FLOW.replace(target=targets.v)
  own = exchange(v, density, ("own_mse", {}))
  np.testing.assert_allclose(losses.factor_range(own), 1.0, atol=1e-5)
  # a density that follows the loss has no law to make it of
  moving = exchange(FLOW, ("adaptive", {}), ("u_mse", {}))
  np.testing.assert_allclose(moving.weighting(logsnr), FLOW.weighting(logsnr))


def test_the_range_of_the_factor_is_that_of_its_formula():
  """w/(2p) of uniform t under a logit-normal p: 1/p on t, over its mean."""
  moved = exchange(FLOW, ("logit_normal", {}))
  t = 1 / (1 + np.exp(-_normal_quantiles(1000)))
  factor = t * (1 - t) * np.exp(0.5 * np.log(t / (1 - t)) ** 2)
  low, high = losses.factor_range(moved)
  np.testing.assert_allclose(low, factor.min() / factor.mean(), rtol=1e-3)
  np.testing.assert_allclose(high, factor.max() / factor.mean(), rtol=1e-3)
  assert high > first_look.LARGE
  for name, make in objectives.OBJECTIVES.items():  # no recipe is warned of
    assert losses.factor_range(make())[1] < 3.0, name


def _normal_quantiles(num):
  from scipy.special import ndtri

  return ndtri((np.arange(num) + 0.5) / num)


def test_bf16_data_have_noise_levels_and_loss_in_float32():
  eps = losses.noise_like(
    jax.random.key(0), jnp.zeros((1000, 400), jnp.bfloat16)
  )
  assert eps.dtype == jnp.float32
  # 400,000 draws: beyond 4 sigma with certainty, where bf16 draws end at 2.9
  assert eps.max() > 4.0 and abs(float(eps.var()) - 1.0) < 4 * np.sqrt(2 / 4e5)
  seen, both = [], {(jnp.dtype("float32"),) * 2}

  def apply(params, z, logsnr, cond):
    seen.append((z.dtype, logsnr.dtype))
    return jnp.zeros_like(z)

  x = jax.random.normal(jax.random.key(1), (64, 8)).astype(jnp.bfloat16)
  terms = losses.weighted_mse(FLOW, apply, {}, jax.random.key(2), x)
  same = losses.weighted_mse(
    FLOW, apply, {}, jax.random.key(2), x.astype(jnp.float32)
  )
  assert terms.loss.dtype == jnp.float32 and set(seen) == both
  assert np.array_equal(terms.loss, same.loss)

  def predict(z, lv, cond):
    seen.append((z.dtype, lv.logsnr.dtype))
    return z, z

  eps_mse_by_logsnr(jax.tree_util.Partial(predict), x)
  assert set(seen) == both


# configs


def _config(**changes):
  path = commands.ROOT / "configs" / "toy2d.py"
  spec = importlib.util.spec_from_file_location("toy2d", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config("smoke")
  config.update(changes)
  return config


def own_points(num=200):
  x = np.random.default_rng(0).standard_normal((num, 2)).astype(np.float32)
  return data.Arrays(x, np.arange(num) % 4)


def a_dict():
  return {"x": np.zeros((4, 2))}


def nothing():
  pass


OWN = dict(name="tests.test_doors:own_points")


def test_ones_own_arrays_are_split_by_a_config():
  config = _config(dataset=OWN)
  del config.held_out.num
  for how, num in (({"num": 30}, 30), ({"fraction": 0.1}, 20)):
    config.held_out = how
    run = resolve(config)
    held, used = run.held_out
    assert used == len(held) == num and len(run.dataset) == 200 - num
    rows = lambda d: {row.tobytes() for row in d.take(np.arange(len(d)))["x"]}
    assert not rows(run.dataset) & rows(held)
    assert first_look.look(run).num == 200 - num


@pytest.mark.parametrize(
  "changes,words",
  [
    (
      dict(dataset=dict(name="tests.test_doors:a_dict")),
      "returns must be ",
    ),
    (
      dict(dataset=dict(name="tests.test_doors:nothing")),
      "not None, which",
    ),
    (dict(dataset={**OWN, "num": 0}), "config.dataset: x has no examples"),
    (
      dict(dataset=OWN, held_out=dict(num=200)),
      "200 of 200 examples",
    ),
    (
      dict(dataset=OWN, held_out=dict(num=150, num_=3)),
      "config.held_out.num_ is not a setting of",
    ),
    (
      dict(objective=dict(name="flow_matching", density="logit_normal:std=-1")),
      "config.objective.density: std must be > 0",
    ),
    (
      dict(
        objective=dict(
          name="flow_matching", density="logit_normal", weighting="w"
        )
      ),
      "config.objective.weighting is 'w'; known: ",
    ),
  ],
)
def test_configs_that_cannot_work_are_refused(changes, words):
  with pytest.raises(Refusal, match=words) as caught:
    config = _config()
    for key, value in changes.items():
      config[key] = value
    resolve(config)
  assert "\n" not in str(caught.value)


def test_guidance_needs_labels_that_were_dropped(caplog):
  config = _config(dataset=OWN, held_out=dict(num=0))
  config.sampler.guidance = 2.0
  with pytest.raises(Refusal, match="sampler.guidance: a strength of 2 needs"):
    first_look.look(resolve(config))
  config.label_dropout = 0.1
  first_look.look(resolve(config))
  config.label_dropout, config.sampler.guidance = 0.0, 1.0
  first_look.look(resolve(config))
  with caplog.at_level(logging.WARNING, "diffflow_jax"):
    config.label_dropout, config.sampler.guidance = 0.1, -0.5
    first_look.look(resolve(config))
  assert "config.sampler.guidance = -0.5 is below 0" in caplog.text


@pytest.mark.parametrize("url", ["gs://", "s3:///"])
def test_a_bucket_without_a_name_is_refused(url):
  with pytest.raises(Refusal, match=f"'{url}' must be a path or gs://BUCKET/"):
    loop.train(_config(), url)
  with pytest.raises(Refusal, match=f"'{url}' must be a path or gs://BUCKET/"):
    dfj.load(url)


def test_training_says_the_factor_and_warns_of_a_large_one(caplog):
  spec = dict(name="flow_matching", density="logit_normal")
  run = resolve(_config(objective=spec))
  found = first_look.look(run)
  with caplog.at_level(logging.WARNING, "diffflow_jax"):
    lines = first_look.lines(run, found)
  assert lines[0] == found.summary()
  assert "squared error counts 0.66 to 20.5 times" in lines[1]
  assert "up to 20.5 times the mean factor" in caplog.text
  caplog.clear()
  run = resolve(_config(objective={**spec, "weighting": "own_mse"}))
  assert first_look.lines(run, found) == [found.summary()] and not caplog.text
  same = weightings.make("own_mse", run.objective)
  np.testing.assert_allclose(same(0.3), run.objective.weighting(0.3))
