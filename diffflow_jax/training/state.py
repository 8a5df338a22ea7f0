"""The train state, and the one step that moves it.

Everything that the future of a run depends on is in the state or is a function
of (seed, step): parameters, EMA, optimiser, and the sums behind the next
metrics line. A run resumed from a saved state goes on to the same bits.
"""

import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from diffflow_jax.data.augmentation import augmented_batch
from diffflow_jax.objective import (
  densities,
  learned_schedule,
  losses,
  parameters,
)
from diffflow_jax.process import conditions, ranges
from diffflow_jax.runs import recipe
from diffflow_jax.store.digest import name_of
from diffflow_jax.training import ema as ema_lib, numbers


@struct.dataclass
class TrainState:
  """What a checkpoint holds.

  Attributes:
    step: number of finished steps, int32.
    params: the network's variables, and under "objective" what a weighting or
      a schedule learns; ema: averages of them, one for each of the config's.
    density: of the levels, if it follows the loss, else ().
    teacher: the parameters of the stage before, of a method in stages, else ().
    bad_step: the first step whose loss or gradient was not finite, or -1.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  density: Any
  sums: numbers.Sums
  bad_step: jax.Array
  teacher: Any = ()

  def items(self):
    """{name: pytree} of what is not empty, for a checkpoint."""
    return {k: v for k, v in vars(self).items() if jax.tree.leaves(v)}


def create(
  objective, network, tx, dataset, averages, seed, given=None, staged=False
):
  """The state at step 0: a function of the seed. `dfj.train_state`.

  Args:
    network: has init and apply; tx: an optax transformation.
    dataset: the shape of its examples and its conditions.
    averages: one EMA for each of them, () for none.
    given: {name: array} of parameters that start elsewhere, as another run's.
    staged: whether each of several stages is the next one's teacher.
  """
  params = recipe.init(objective, network, dataset, seed)
  if given:
    params = jax.tree_util.tree_map_with_path(
      lambda path, leaf: jnp.copy(given.get(name_of(path), leaf)), params
    )
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    ema=tuple(jax.tree.map(jnp.copy, params) for _ in averages),
    opt_state=tx.init(params),
    density=objective.density if follows_loss(objective) else (),
    sums=numbers.no_sums(),
    bad_step=-jnp.ones((), jnp.int32),
    teacher=jax.tree.map(jnp.copy, params) if staged else (),
  )


def follows_loss(objective):
  """Whether the density is one that is updated with the losses it drew."""
  return hasattr(objective.density, "update")


def _at(objective, state, params):
  """The objective as the state and the parameters have it by now."""
  if follows_loss(objective):
    objective = objective.replace(density=state.density)
  return parameters.settled(objective, params)


def make_train_step(
  objective, apply, tx, dataset, averages,
  *, seed, label_dropout, dropout=None, drop_all=0.0, rngs=(),
  accumulation=1, spread=lambda gradient: gradient, method=None,
):  # fmt: skip
  """The pure step: (state, batch) -> state. Jit it once, donate the state.

  `with_loss` of it gives the loss, too. With a method that has a teacher it
  takes a third argument, the teacher's parameters.

  Args:
    objective: what is minimised; apply: (params, z, logsnr, cond) -> output.
    tx: an optax transformation; dataset: for to_float and its conditions.
    averages: functions step -> decay, one for every EMA.
    seed: step n draws from fold_in(key(seed), n).
    label_dropout: share of examples trained without their label; dropout:
      {name: share} of other conditions, independently; drop_all: share of those
      trained without any.
    rngs: names of what apply draws itself, as ("dropout",); it then takes
      rngs={name: key}.
    accumulation: the batch goes through the network in this many parts; levels
      and noise are drawn for the whole, so the step is the same to rounding.
    spread: gradient -> gradient, where gradient is a function (params, part) ->
      (mean gradient, terms of the examples): for a map over devices of one's
      own, as `shard_map`. Under jit with shardings it is not needed.
    method: a `few_step.method.Method`, whose levels and loss take the place of
      the ordinary ones; None for `losses.terms_at` on the objective's density.
  """
  known = conditions.of(dataset)
  rates = {conditions.LABEL: label_dropout, **(dropout or {})}
  for name, rate in {**rates, "all": drop_all}.items():
    ranges.check(f"dropout of {name}", rate, "in [0, 1)")
  learned = parameters.learns_schedule(objective)
  values = getattr(dataset, "values", None)

  def draw(state, batch):
    """All that the loss needs: (x, logsnr, eps, cond), keys of the network.

    Times in place of logsnr where the schedule is learned.
    """
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    level_key, noise_key, drop_key, flip_key = jax.random.split(key, 4)
    paired = method is not None and method.has_pairs
    if paired:  # as the teacher made it
      x, done = batch["x"], {}
    else:
      x, done = augmented_batch(dataset, flip_key, dataset.to_float(batch["x"]))
    cond = conditions.from_batch(known, batch)
    if cond is not None:
      cond = conditions.dropped(known, cond, drop_key, rates, drop_all)
    if done:  # never dropped: a sample is drawn under zeros
      done = conditions.from_batch(known, done)
      cond = {**(cond or {}), **done}
    if learned:
      level = densities.uniforms(level_key, x.shape[0])
    elif method is not None:
      now = _at(objective, state, state.params)
      level = method.levels(now, level_key, x.shape[0], state.step)
    else:
      density = _at(objective, state, state.params).density
      level = densities.draw(density, level_key, x.shape[0])
    # one for each example, so that each part of a batch has its own
    keys = {
      name: jax.random.split(jax.random.fold_in(key, 4 + i), x.shape[0])
      for i, name in enumerate(rngs)
    }
    eps = method.noise(batch) if paired else losses.noise_like(noise_key, x)
    return (x, level, eps, cond), keys

  def step(state, batch, *teacher):
    loss_at, age = losses.terms_at, state.step
    if method is not None:
      state = method.begun(state, tx)
      loss_at, age = method.loss(state, *teacher), method.age(state.step)

    def gradient(params, part):
      drawn, keys = part
      one = {name: several[0] for name, several in keys.items()}
      run = functools.partial(apply, rngs=one) if one else apply
      if learned:
        return learned_schedule.gradient(
          objective, run, params, *drawn, values=values
        )

      def loss_fn(params):
        now = _at(objective, state, params)
        terms = loss_at(now, run, params, *drawn)
        return terms.loss.mean(), terms

      return jax.grad(loss_fn, has_aux=True)(params)

    grads, terms = _accumulate(
      spread(gradient), state.params, draw(state, batch), accumulation
    )
    loss, grad_norm = terms.loss.mean(), optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(grad_norm))
    return state.replace(
      step=state.step + 1,
      params=params,
      ema=tuple(
        ema_lib.update(average, params, decay(age))
        for average, decay in zip(state.ema, averages, strict=True)
      ),
      opt_state=opt_state,
      density=(state.density.update(terms) if follows_loss(objective) else ()),
      sums=numbers.add(state.sums, loss, grad_norm, terms),
      bad_step=jnp.where(
        bad & (state.bad_step < 0), state.step, state.bad_step
      ),
    )

  return step


def with_loss(step):
  """(state, batch) -> (state, loss) of a train step: for a loop of one's own.

  The state's sums are then of this step alone.
  """

  def one(state, batch, *teacher):
    state = step(state.replace(sums=numbers.no_sums()), batch, *teacher)
    return state, state.sums.loss

  return one


def _accumulate(gradient, params, whole, num_parts):
  """(mean gradient, terms of all examples), part after part.

  Part i takes every num_parts-th example: each device keeps its own.
  """
  if num_parts == 1:
    return gradient(params, whole)
  split = lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1)

  def add(total, part):
    grads, terms = gradient(params, part)
    return jax.tree.map(jnp.add, total, grads), terms

  total, terms = jax.lax.scan(
    add, jax.tree.map(jnp.zeros_like, params), jax.tree.map(split, whole)
  )
  return (
    jax.tree.map(lambda g: g / num_parts, total),
    jax.tree.map(lambda x: x.reshape(-1), terms),
  )


def several(step, num):
  """num steps as one program: batches carry a leading axis of num."""
  if num == 1:
    return step
  return lambda state, batches, *teacher: jax.lax.scan(
    lambda state, batch: (step(state, batch, *teacher), None), state, batches
  )[0]
