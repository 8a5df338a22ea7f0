"""The train step, by hand where it is short, and to a known floor."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffflow_jax import data, networks
from diffflow_jax.objective import densities, losses, objectives, weightings
from diffflow_jax.process import conditions
from diffflow_jax.runs import generate
from diffflow_jax.training import ema, numbers, state as state_lib

TX = optax.sgd(0.1)


def _parts(objective=None, accumulation=1, seed=0, decay=0.5, dropout=0.0):
  dataset = data.ring()
  network = networks.MLP(width=8, depth=1)
  averages = ema.exponential(decay)
  objective = objective or objectives.flow_matching()
  step = state_lib.make_train_step(
    objective,
    network.apply,
    TX,
    dataset,
    averages,
    seed=seed,
    label_dropout=dropout,
    accumulation=accumulation,
  )
  state = state_lib.create(objective, network, TX, dataset, averages, 0)
  return jax.jit(step), state, dataset


def _run(num, **kwargs):
  step, state, dataset = _parts(**kwargs)
  states = [state]
  for n in range(num):
    states.append(step(states[-1], dataset.batch(0, n, 32)))
  return states


def test_the_average_is_the_one_written_out_by_hand():
  states = _run(3)
  leaf = lambda s, of: jax.tree.leaves(getattr(s, of))[-1]
  want = np.asarray(leaf(states[0], "params"))
  for n, s in enumerate(states[1:]):
    d = min(0.5, (1 + n) / (10 + n))
    want = d * want + (1 - d) * np.asarray(leaf(s, "params"))
  got = np.asarray(jax.tree.leaves(states[-1].ema[0])[-1])
  np.testing.assert_allclose(got, want, atol=1e-7)
  assert np.abs(got - np.asarray(leaf(states[-1], "params"))).max() > 1e-6


def test_the_loss_of_each_step_for_a_loop_of_ones_own():
  """The mean over the batch of the same terms, drawn as the step says."""
  step, state, dataset = _parts()
  with_loss = jax.jit(state_lib.with_loss(step))
  plain = state
  for n in range(2):
    batch = dataset.batch(0, n, 32)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), n), 4)
    objective = objectives.flow_matching()
    terms = losses.terms_at(
      objective,
      networks.MLP(width=8, depth=1).apply,
      plain.params,
      dataset.to_float(batch["x"]),
      densities.draw(objective.density, keys[0], 32),
      losses.noise_like(keys[1], batch["x"]),
      None,
    )
    plain, (state, loss) = step(plain, batch), with_loss(state, batch)
    np.testing.assert_allclose(loss, terms.loss.mean(), rtol=1e-5)
  for a, b in zip(
    *map(jax.tree.leaves, (plain.params, state.params)), strict=True
  ):
    assert np.array_equal(a, b)


def test_a_new_state_can_be_donated():
  """No two of its arrays share a buffer."""
  step, state, dataset = _parts()
  after = jax.jit(step, donate_argnums=0)(state, dataset.batch(0, 0, 32))
  assert int(after.step) == 1


def test_every_step_and_every_seed_draws_anew():
  step, state, dataset = _parts()
  batch = dataset.batch(0, 0, 32)
  one = float(step(state, batch).sums.loss)
  assert one == float(step(state, batch).sums.loss)
  later = state.replace(step=state.step + 1)
  assert one != float(step(later, batch).sums.loss)
  other = _parts(seed=1)[0]
  assert one != float(other(state, batch).sums.loss)


def test_labels_are_dropped_at_their_rate():
  label, key = jnp.zeros(10000, jnp.int32), jax.random.key(0)
  known = {"label": conditions.Condition("label", (), 7)}
  drop = lambda rate: np.asarray(
    conditions.dropped(known, label, key, {"label": rate})
  )
  assert np.all(drop(0.0) == 0) and np.all(drop(1.0) == 7)
  share = (drop(0.1) == 7).mean()
  assert abs(share - 0.1) < 4 * np.sqrt(0.09 / 10000)


def test_the_sums_are_the_losses_by_bin():
  """eps-MSE by log-SNR, of an objective whose loss is something else."""
  n = 1000
  logsnr = jnp.linspace(-9.0, 9.0, n)
  terms = losses.Terms(jnp.full(n, 7.0), 1.0 + logsnr**2, logsnr)
  sums = numbers.no_sums()
  sums = numbers.add(sums, jnp.float32(7.0), jnp.float32(2.0), terms)
  sums = numbers.add(sums, jnp.float32(9.0), jnp.float32(4.0), terms)
  line = numbers.summarise(sums)
  assert line["loss"] == 8.0 and line["grad_norm"] == 3.0
  edges = [-np.inf, *numbers.BIN_EDGES, np.inf]
  for lo, hi in zip(edges[:-1], edges[1:], strict=True):
    inside = (logsnr > lo) & (logsnr <= hi)
    want = float((1.0 + logsnr**2)[inside].mean())
    got = line[f"eps_mse/logsnr_{lo:g}_{hi:g}"]
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_accumulation_is_the_same_step():
  whole, parts = _run(3)[-1], _run(3, accumulation=4)[-1]
  for a, b in zip(
    jax.tree.leaves(whole.params), jax.tree.leaves(parts.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)
  np.testing.assert_allclose(whole.sums.loss, parts.sums.loss, rtol=1e-6)


def test_several_steps_in_one_program_are_the_same_steps():
  step, state, dataset = _parts()
  want = _run(3)[-1]
  batches = [dataset.batch(0, n, 32) for n in range(3)]
  stacked = jax.tree.map(lambda *xs: np.stack(xs), *batches)
  got = jax.jit(state_lib.several(step, 3))(state, stacked)
  assert int(got.step) == 3
  for a, b in zip(
    jax.tree.leaves(want.params), jax.tree.leaves(got.params), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_network_sees_noise_of_the_right_size():
  seen = []

  def apply(params, z, logsnr, cond):
    seen.append((z, logsnr))
    return jnp.zeros_like(z)

  x = jnp.zeros((20000, 2))
  losses.weighted_mse(objectives.v_diffusion(), apply, {}, jax.random.key(0), x)
  (z, logsnr) = seen[0]
  unit = z / jnp.sqrt(jax.nn.sigmoid(-logsnr))[:, None]
  assert abs(float(unit.var()) - 1.0) < 4 * np.sqrt(2 / 40000)


def test_the_first_bad_step_is_remembered():
  step, state, dataset = _parts()
  for n in range(4):
    batch = dataset.batch(0, n, 32)
    if n >= 2:
      batch = {"x": batch["x"] * np.nan}
    state = step(state, batch)
  assert int(state.bad_step) == 2


def test_edm_is_the_papers_by_default():
  """arXiv:2206.00364 Table 1: P_mean -1.2, P_std 1.2, sigma_data 0.5."""
  o = objectives.edm()
  u = jnp.array([0.5])
  np.testing.assert_allclose(o.density.logsnr(u), 2.4, atol=1e-6)
  slope = o.density.logsnr(u + 1e-3) - o.density.logsnr(u - 1e-3)
  want = 2.4 * np.sqrt(2 * np.pi) * 2e-3
  np.testing.assert_allclose(np.abs(slope), want, rtol=1e-3)
  assert o.target.sigma_data == o.scale.sigma_data == 0.5


@pytest.mark.parametrize("name", sorted(objectives.OBJECTIVES))
@pytest.mark.parametrize("grid", ["uniform_t", "quadratic"])
def test_every_recipe_is_sampled_down_to_clean_data(name, grid):
  objective = objectives.OBJECTIVES[name]()
  for num_steps in (3, 8):
    table = generate.make_tableau(objective, "ddim", grid, num_steps)
    assert table.num_evaluations == num_steps
    assert table.end.sigma == 0.0 and np.isfinite(table.mix).all()


def test_a_small_network_reaches_the_floor_of_a_known_mixture():
  """Loss against the exact denoiser's, on the same levels and noise."""
  dataset, network = data.ring(), networks.MLP(width=64, depth=2)
  objective, averages = objectives.flow_matching(), ema.exponential(0.99)
  tx = optax.adam(optax.cosine_decay_schedule(4e-3, 600))
  step = state_lib.make_train_step(
    objective, network.apply, tx, dataset, averages, seed=0, label_dropout=0.0
  )
  state = state_lib.create(objective, network, tx, dataset, averages, 0)
  several = jax.jit(state_lib.several(step, 100))
  for n in range(6):
    batches = [dataset.batch(0, 100 * n + i, 256) for i in range(100)]
    state = several(state, {"x": np.stack([b["x"] for b in batches])})
  x = jnp.asarray(dataset.batch(1, 0, 8192)["x"])

  def loss(apply, params):
    key = jax.random.key(5)
    terms = losses.weighted_mse(objective, apply, params, key, x)
    return float(terms.loss.mean())

  def exact(params, z, logsnr, cond):
    from diffflow_jax.process import levels, targets

    lv = levels.at_logsnr(objective.scale, logsnr, objective.schedule)
    return targets.from_x_eps(targets.u, *dataset.density(z, lv), lv)

  floor = loss(exact, {})
  got = loss(network.apply, state.ema[0])
  assert floor < got < 1.08 * floor, (floor, got)


def test_a_density_that_follows_the_loss_is_updated_and_a_weighting_learned():
  """After some steps both have moved, and the loss goes by what they are."""
  recipe = objectives.flow_matching()
  objective = recipe.replace(
    density=densities.make("adaptive", recipe, decay=0.9),
    weighting=weightings.make("uncertainty", recipe, num_channels=16),
  )
  states = _run(30, objective=objective)
  first, last = states[0], states[-1]
  u = jnp.linspace(0.02, 0.98, 50)
  moved = jnp.abs(last.density.logsnr(u) - first.density.logsnr(u)).max()
  assert moved > 0.5, moved
  assert not np.any(first.params["objective"]["weights"])
  assert np.abs(last.params["objective"]["weights"]).max() > 1e-3
  assert jax.tree.structure(last.ema[0]) == jax.tree.structure(last.params)
  # the next step draws from the density as it is in the state
  step, _, dataset = _parts(objective=objective)
  batch = dataset.batch(0, 30, 32)
  one, two = (
    step(last.replace(density=s.density), batch).sums.bin_count
    - last.sums.bin_count
    for s in (first, last)
  )
  assert np.abs(np.asarray(one - two)).sum() >= 2
  # and its loss is the library's, of the density and weights of that moment
  assert "density" in last.items() and "density" not in _run(0)[0].items()


def test_the_gradient_of_a_learned_weighting_is_that_of_its_penalised_loss():
  recipe = objectives.flow_matching()
  objective = recipe.replace(
    weighting=weightings.make("uncertainty", recipe, num_channels=16)
  )
  step, state, dataset = _parts(objective=objective)
  lr = 1e-3
  tx = optax.sgd(lr)
  state = state_lib.create(
    objective, networks.MLP(width=8, depth=1), tx, dataset, (), 0
  )
  step = state_lib.make_train_step(
    objective, networks.MLP(width=8, depth=1).apply, tx, dataset, (),
    seed=0, label_dropout=0.0,
  )  # fmt: skip
  after = step(state, dataset.batch(0, 0, 4096))
  got = (
    state.params["objective"]["weights"] - after.params["objective"]["weights"]
  ) / lr
  key = jax.random.fold_in(jax.random.key(0), 0)
  level_key, noise_key, _, _ = jax.random.split(key, 4)
  logsnr = densities.draw(objective.density, level_key, 4096)
  x = jnp.asarray(dataset.batch(0, 0, 4096)["x"])
  eps = jax.random.normal(noise_key, x.shape)
  apply = networks.MLP(width=8, depth=1).apply
  base = losses.terms_at(recipe, apply, state.params, x, logsnr, eps).loss

  def by_hand(weights):  # EDM2 eq. 21: e^-u L + u
    u = objective.weighting.replace(weights=weights).penalty(logsnr)
    return jnp.mean(jnp.exp(-u) * base + u)

  want = jax.grad(by_hand)(jnp.zeros(16))
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
