"""A learned schedule in the trainer: its three gradients, and its run."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffflow_jax as dfj
from diffflow_jax import data
from diffflow_jax.cli import Refusal
from diffflow_jax.objective import (
  bound,
  densities,
  learned_schedule,
  objectives,
  parameters,
)
from diffflow_jax.process import levels, schedules
from diffflow_jax.runs import recipe
from diffflow_jax.training import optimizers
from tests.runs import final_arrays

RING = data.ring()


def vdm(**numbers):
  schedule = schedules.make("learned", num_hidden=8, **numbers)
  return objectives.on_schedule(objectives.vdm(), schedule)


def linear(params, z, logsnr, cond):
  """ŷ of a network whose numbers can be counted."""
  a, b = params["params"]["a"], params["params"]["b"]
  return a * z + b * logsnr[:, None]


def written_out(params, x, u, eps, values):
  """(mean L, the bound, mean L²) by VDM's formulas, nats a dimension."""
  s = params["objective"]["schedule"]
  gain, out = (jnp.logaddexp(0.0, s[n]) for n in ("raw_gain", "raw_out"))
  g = lambda t: t + (1 / (1 + jnp.exp(-gain * t - s["shift"]))) @ out
  share = lambda t: (g(t) - g(0.0)) / (g(1.0) - g(0.0))
  gamma = lambda t: (
    -s["logsnr_max"] + share(t) * (s["logsnr_max"] - s["logsnr_min"])
  )
  d_gamma = jax.vmap(jax.grad(gamma))(u)
  gamma_u = jax.vmap(gamma)(u)
  var = lambda gamma: 1 / (1 + jnp.exp(-gamma))  # eq. 3
  mix = lambda gamma: jnp.sqrt(1 - var(gamma)) * x + jnp.sqrt(var(gamma)) * eps
  error = eps - linear(params, mix(gamma_u[:, None]), -gamma_u, None)
  loss = 0.5 * d_gamma * jnp.mean(error**2, axis=1)  # eq. 17
  v_1 = var(-s["logsnr_min"])
  prior = 0.5 * ((1 - v_1) * x**2 + v_1 - 1 - jnp.log(v_1))
  v_0 = var(-s["logsnr_max"])
  if (
    values is None
  ):  # N(z_0/alpha, sigma²/alpha²), z_0/alpha - x = sigma/alpha eps
    ratio = v_0 / (1 - v_0)
    decoded = -0.5 * (eps**2 + jnp.log(2 * jnp.pi * ratio))
  else:
    z = mix(-s["logsnr_max"]) / jnp.sqrt(1 - v_0)
    logits = -0.5 * (1 - v_0) / v_0 * (z[..., None] - values) ** 2
    p = jnp.exp(logits) / jnp.exp(logits).sum(-1, keepdims=True)
    decoded = jnp.log(jnp.sum(p * (values == x[..., None]), -1))
  return loss.mean(), (loss.mean() + (prior - decoded).mean()), (loss**2).mean()


@pytest.mark.parametrize("discrete", [False, True])
def test_one_pass_gives_the_three_gradients(discrete, x64):
  """Network by the loss, ends by the bound, inside by the loss's square."""
  values = jnp.linspace(-1.0, 1.0, 5) if discrete else None
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.randint(keys[0], (32, 3), 0, 5) * 0.5 - 1.0
  eps, u = (
    jax.random.normal(keys[1], x.shape),
    jax.random.uniform(keys[2], (32,)),
  )
  objective = vdm(logsnr_max=4.0)
  params = {
    "params": {"a": jnp.array(0.4), "b": jnp.array(0.1)},
    "objective": parameters.initial(objective),
  }
  params = jax.tree.map(lambda v: v.astype(jnp.float64), params)
  got, terms = jax.jit(
    lambda params: learned_schedule.gradient(
      objective, linear, params, x, u, eps, values=values
    )
  )(params)
  three = lambda params: written_out(params, x, u, eps, values)
  value = jax.jit(three)(params)[0]
  loss, whole, square = jax.jit(
    lambda params: tuple(
      jax.grad(lambda p, i=i: three(p)[i])(params) for i in range(3)
    )
  )(params)
  np.testing.assert_allclose(terms.loss.mean(), value, rtol=1e-6)
  same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  jax.tree.map(same, got["params"], loss["params"])
  got, whole, square = (
    g["objective"]["schedule"] for g in (got, whole, square)
  )
  for name in got:
    ends = name in ("logsnr_min", "logsnr_max")
    same(got[name], (whole if ends else square)[name])
    assert np.all(got[name])


def _draw(key, num):
  keys = jax.random.split(key, 3)
  x = RING.density.sample(keys[0], num)
  return (
    x,
    densities.uniforms(keys[1], num),
    jax.random.normal(keys[2], x.shape),
  )


def test_the_variance_falls_and_the_bound_stays():
  """On the mixture of the ring with its exact denoiser, against the linear
  schedule: a fifth and more of the variance. The bound is a function of the
  ends alone, so between equal ends it has to be the same."""
  objective = objectives.on_schedule(
    objectives.vdm(), schedules.make("learned", num_hidden=32)
  )
  apply = lambda params, z, logsnr, cond: RING.density(
    z, levels.at_logsnr(levels.vp, logsnr)
  )[1]
  params, tx = {"objective": parameters.initial(objective)}, optax.adam(5e-3)

  @jax.jit
  def learn(params):
    def step(carry, key):
      params, state = carry
      grads, _ = learned_schedule.gradient(
        objective, apply, params, *_draw(key, 256)
      )
      updates, state = tx.update(grads, state)
      return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), 600)
    return jax.lax.scan(step, (params, tx.init(params)), keys)[0][0]

  @jax.jit
  def losses(schedule):
    """Of 128 batches: the loss of each example, nats a dimension."""

    def one(key):
      x, u, eps = _draw(key, 256)
      return bound.diffusion_nats(RING.density, schedule, u, x, eps) / 2

    return jax.lax.map(one, jax.random.split(jax.random.key(2), 128))

  schedule = parameters.settled(objective, learn(params)).schedule
  between = schedule.replace(logsnr_min=-5.0, logsnr_max=13.3)
  was = np.asarray(losses(schedules.LinearLogSNR(-5.0, 13.3)))
  now = np.asarray(losses(between))
  assert now.var() < 0.8 * was.var(), (now.var(), was.var())
  moved = now.mean(axis=1) - was.mean(axis=1)
  assert abs(moved.mean()) < 4 * moved.std() / np.sqrt(len(moved))
  # the ends stay about where they were: both gradients are nearly 0 there
  assert abs(schedule.logsnr_min + 5.0) < 0.5
  assert abs(schedule.logsnr_max - 13.3) < 0.5


FLAGS = (
  "--config=configs/toy2d.py:vdm",
  "--config.num_steps=12",
  "--config.batch_size=64",
  "--config.network.width=16",
  "--config.network.depth=1",
  "--config.learning_rate.warmup_steps=2",
  "--config.log_every=6",
  "--config.sample_every=12",
  "--config.checkpoint_every=6",
  "--config.sampler.num_samples=64",
  "--config.sampler.num_steps=4",
  "--config.held_out.num=64",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  from diffflow_jax.commands import train

  workdir = tmp_path_factory.mktemp("runs") / "vdm"
  train.main(["train", *FLAGS, f"--workdir={workdir}"])
  return workdir


def test_it_is_resumed_to_the_same_bits(made, tmp_path):
  from diffflow_jax.commands import train

  cut = tmp_path / "cut"
  shutil.copytree(made, cut)
  shutil.rmtree(cut / "checkpoints" / "12")
  train.main(["train", *FLAGS, f"--workdir={cut}"])
  one, two = final_arrays(made, 12), final_arrays(cut, 12)
  assert one.keys() == two.keys()
  for name in one:
    assert np.array_equal(one[name], two[name]), name
  assert (
    len([n for n in one if "'schedule'" in n]) >= 4 * 5
  )  # params, ema, adam


def test_a_run_samples_on_the_schedule_that_it_learned(made, tmp_path):
  run = dfj.load(made)
  learned = run.params["objective"]["schedule"]
  start = run.recipe.objective.schedule
  objective = run.objective
  schedule = objective.schedule
  for name, value in learned.items():
    np.testing.assert_array_equal(getattr(schedule, name), value)
    assert np.any(np.asarray(value) != np.asarray(getattr(start, name))), name
  assert objective.density.schedule is schedule
  # levels of the sampler, and the range that the predictor clips to
  lam = dfj.grids.uniform_t(schedule, levels.vp, 3).logsnr
  seen = []
  predict = dfj.objectives.predictor(
    objective,
    lambda params, z, logsnr, cond: seen.append(logsnr) or z,
    run.params,
  )
  for far in (-20.0, 20.0):
    predict(jnp.zeros((1, 2)), levels.at_logsnr(levels.vp, jnp.array([far])))
  ends = [learned["logsnr_min"], learned["logsnr_max"]]
  np.testing.assert_allclose(np.ravel(seen), ends, rtol=1e-6)
  by_hand = dfj.sample(
    run.predict,
    dfj.solvers.ddim(dfj.grids.to_data(lam, levels.vp)),
    jax.random.key(3),
    (5, 2),
  )
  how = dict(seed=3, solver="ddim", num_steps=4, grid="uniform_t")
  samples = run.sample(5, **how)
  np.testing.assert_allclose(samples, by_hand, rtol=1e-4, atol=1e-5)
  run.export(tmp_path / "shared")
  shared = dfj.load(tmp_path / "shared")
  np.testing.assert_array_equal(shared.sample(5, **how), samples)


@pytest.mark.parametrize(
  "spec,message",
  [
    (dict(name="edm", schedule="learned"), "uniform in its time"),
    (dict(name="sd3", schedule="learned"), "uniform in its time"),
    (dict(name="vdm", schedule="learned", density="adaptive"), "uniform in"),
    (dict(name="v_diffusion", schedule="learned"), "must be elbo, not Target"),
    (
      dict(name="vdm", schedule="learned", weighting="uncertainty"),
      "must be elbo, not Uncertainty",
    ),
    (
      dict(name="flow_matching", schedule="learned", weighting="elbo"),
      "target u, changes its meaning",
    ),
    (dict(name="vdm", schedule="shift:base=learned"), "Shift of a learned"),
  ],
)
def test_what_could_not_be_trained_is_refused(spec, message):
  with pytest.raises(Refusal, match=message) as error:
    recipe.objective(spec)
  assert str(error.value).startswith("config.objective.schedule: ")


@pytest.mark.parametrize(
  "spec",
  [
    dict(name="vdm", schedule="learned:num_hidden=4,logsnr_max=10"),
    dict(name="v_diffusion", schedule="learned", weighting="elbo"),
    dict(
      name="edm", schedule="learned", density="uniform_time", weighting="elbo"
    ),
  ],
)
def test_what_can_be_trained_is_not(spec):
  assert parameters.learns_schedule(recipe.objective(spec))


def test_the_schedule_s_gradient_is_not_clipped():
  grads = {
    "params": {"w": jnp.array([3.0, 4.0])},
    "objective": {"schedule": {"shift": jnp.array([100.0])}},
  }
  clip = optimizers.clipping(1.0)
  got, _ = clip.update(grads, clip.init(grads))
  np.testing.assert_allclose(got["params"]["w"], [0.6, 0.8], rtol=1e-6)
  np.testing.assert_array_equal(got["objective"]["schedule"]["shift"], [100.0])
  # what a weighting learns is part of the loss, and of its norm
  grads["objective"] = {"weights": jnp.array([12.0])}
  got, _ = clip.update(grads, clip.init(grads))
  np.testing.assert_allclose(got["objective"]["weights"], [12 / 13], rtol=1e-6)


def test_data_sets_know_the_values_that_they_hold():
  """For VDM's decoder: whole numbers up to 255, spread over [-1, 1]."""
  grey = data.Arrays(np.zeros((2, 4, 4, 1), np.uint8))
  np.testing.assert_allclose(grey.values, np.arange(256) / 127.5 - 1, atol=1e-6)
  few = data.Arrays(np.zeros((2, 3), np.int32), max_value=2)
  np.testing.assert_array_equal(few.values, [-1.0, 0.0, 1.0])
  for more in (
    data.Arrays(np.zeros((2, 3), np.float32)),
    data.Arrays(np.zeros((2, 3), np.uint16), max_value=65535),
  ):
    assert more.values is None
