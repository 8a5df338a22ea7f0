"""The method's own loss on held-out examples, at the same draws every time."""

import jax

from diffflow_jax.objective import losses, parameters
from diffflow_jax.process import conditions
from diffflow_jax.store.compilation import quick


def held_out(run):
  """(state, teacher) -> ({name: float}, mean), as `numbers.held_out` returns.

  The averaged parameters are judged, with themselves as their average.
  """
  method = run.method

  def mean(state, x, cond, *teacher):
    # of the step that was taken last, which belongs to the state's stage
    state = state.replace(step=state.step - 1)
    key = jax.random.fold_in(jax.random.key(run.config.seed), 2**31)
    level_key, noise_key = jax.random.split(key)
    params = state.ema[0]
    objective = parameters.settled(run.objective, params)
    levels = method.levels(objective, level_key, x.shape[0], state.step)
    terms = method.loss(state, *teacher, fresh=True)
    eps = losses.noise_like(noise_key, x)
    apply = run.network.apply
    return terms(objective, apply, params, x, levels, eps, cond).loss.mean()

  compiled = quick(mean)

  def judge(state, *teacher):
    if run.held_out is None:
      return {}, None
    dataset, num = run.held_out
    batch = dataset.batch(run.config.seed + 2**32, 0, num)
    x = dataset.to_float(batch["x"])
    cond = conditions.from_batch(run.card.conditions, batch)
    state = state.replace(opt_state=(), sums=())
    loss = float(compiled(state, x, cond, *teacher))
    return {"held_out/loss": loss}, loss

  return judge
