"""Learned tableaus: the coefficients and levels of a solver, fitted to a model.

A tableau is differentiable data, so a solver of few evaluations can be taught
by a fine one: minimise |sample(tableau, z) - reference(z)| over the mixing rows
and the levels of the evaluations, through the scan. It starts from the best
hand-made solvers, and what is kept is the best on held-out noise.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import checks, compose, noise, solvers
from diffflow_jax.sampling.candidates import candidate_grids, hand_made
from diffflow_jax.sampling.files import load, save
from diffflow_jax.sampling.tableau import H, sample

__all__ = ["error", "fit_tableau", "hand_made", "load", "save"]


def error(predict, tableau, z, goal, cond=None):
  """Mean over samples of the RMS distance to the reference's sample.

  Not the RMS over all: the few samples that end at another mode would drown
  the rest.
  """
  got = sample(predict, tableau, jax.random.key(0), z.shape, cond=cond, z=z)
  square = jnp.mean((got - goal) ** 2, axis=tuple(range(1, z.ndim)))
  return jnp.mean(jnp.sqrt(square + jnp.finfo(z.dtype).tiny))


def _free(params, table):
  """The tableau with the learned corrections.

  The noise column stays 0, and so do the columns of predictions that are not
  made yet. A level moves on its own norm, so that the states keep their scale.
  """
  rows, _, width = params["mix"].shape
  made = np.arange(width) - H < np.arange(rows)[:, None]
  mix = table.mix.at[..., :-1].add(jnp.where(made[:, None], params["mix"], 0.0))
  logsnr = table.levels.logsnr
  inside = jnp.isfinite(logsnr)
  moved = jnp.where(inside, logsnr, 0.0) + params["logsnr"]
  norm = jnp.hypot(table.levels.alpha, table.levels.sigma)
  at = levels_lib.at_logsnr(levels_lib.vp, moved)
  keep = lambda new, old: jnp.where(inside, new, old)
  moved = jax.tree.map(
    keep,
    levels_lib.Level(moved, norm * at.alpha, norm * at.sigma),
    table.levels,
  )
  return table.replace(mix=mix, levels=moved)


def _trainer(predict, train, valid, num_steps, learning_rate):
  """A compiled table -> (best table by validation, its error)."""
  import optax

  tx = optax.chain(  # clipped: a sample that changes mode has a huge gradient
    optax.clip_by_global_norm(1.0),
    optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps)),
  )

  @jax.jit
  def train_from(table, train, valid):
    loss = lambda p, data: error(predict, _free(p, table), *data)

    def update(carry, _):
      params, state, best, least = carry
      seen = loss(params, valid)
      better = seen < least
      best = jax.tree.map(lambda b, p: jnp.where(better, p, b), best, params)
      grad = jax.grad(loss)(params, train)
      moves, state = tx.update(grad, state)
      params = optax.apply_updates(params, moves)
      return (params, state, best, jnp.where(better, seen, least)), None

    params = dict(
      mix=jnp.zeros_like(table.mix[..., :-1]),
      logsnr=jnp.zeros_like(table.levels.logsnr),
    )
    carry = params, tx.init(params), params, loss(params, valid)
    (_, _, best, least), _ = jax.lax.scan(update, carry, length=num_steps)
    return _free(best, table), least

  return lambda table: train_from(table, train, valid)


def _best_of_each_solver(scores):
  """The (solver, grid) of every solver's best grid, best first."""
  order = sorted(scores, key=scores.get)
  first = {solver: (solver, grid) for solver, grid in reversed(order)}
  return [name for name in order if name in first.values()]


def fit_tableau(
  predict,
  levels,
  num_evaluations,
  key,
  shape,
  *,
  cond=None,
  num_train=2048,
  num_valid=1024,
  num_steps=400,
  learning_rate=5e-3,
  num_starts=3,
  reference=None,
):
  """Learns a tableau of num_evaluations for one model.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree or a function.
    levels: a grid (N+1,), of which the ends are used.
    key: of the noise; training and validation never share a draw.
    shape: of one sample.
    cond: a pytree with leading axis num_train + num_valid, or None.
    num_train, num_valid: noises to fit to and to choose by.
    num_steps, learning_rate: of Adam with a cosine decay, gradients clipped.
    num_starts: how many hand-made solvers to start from, the best ones first,
      each on its best grid.
    reference: the fine Tableau; Heun's with 200 steps of flow time if None.
  Returns:
    (Tableau, report): report has the validation errors "hand_made" and
    "learned", and "started_from", the (solver, grid) that the tableau came
    from. It is the best hand-made one where learning did not beat it.
  Raises:
    ValueError: a count is < 1, or learning_rate is not > 0.
  """
  for name, value in dict(
    num_evaluations=num_evaluations,
    num_train=num_train,
    num_valid=num_valid,
    num_steps=num_steps,
    num_starts=num_starts,
  ).items():
    checks.integer(name, value, 1)
  checks.number("learning_rate", learning_rate, "> 0", lambda r: r > 0)
  start, end = (jax.tree.map(float, levels[i]) for i in (0, -1))
  start, end = (levels_lib.Level(l.logsnr, *_vp(l)) for l in (start, end))
  if reference is None:
    reference = solvers.heun(candidate_grids(start, end, 200)["flow"])
  total = num_train + num_valid
  keys = noise.keys(key, 0, total)
  dtype = jnp.result_type(float)
  z = noise.initial(keys, jnp.asarray(start.sigma), tuple(shape), dtype)
  goal = sample(predict, reference, key, z.shape, cond=cond, z=z)
  train, valid = (
    jax.tree.map(lambda a, part=part: a[part], (z, goal, cond))
    for part in (slice(num_train), slice(num_train, total))
  )
  tables = hand_made(start, end, num_evaluations)
  kept = max(num_evaluations, *(t.num_kept for t in tables.values()))
  fits = lambda t: compose.pad(t, num_evaluations, kept)  # one compilation
  scores = {
    name: float(error(predict, fits(t), *valid)) for name, t in tables.items()
  }
  starts = _best_of_each_solver(scores)
  least, name = scores[starts[0]], starts[0]
  hand, table = least, tables[name]
  fit = _trainer(predict, train, valid, num_steps, learning_rate)
  for tried in starts[:num_starts]:
    wide = tables[tried].replace(mix=compose.widen(tables[tried].mix, kept))
    made, seen = fit(jax.tree.map(lambda a: jnp.asarray(a, dtype), wide))
    if seen < least:
      least, name, table = float(seen), tried, made
  return jax.tree.map(np.asarray, table), dict(
    hand_made=hand, learned=least, started_from=name
  )


def _vp(lv):
  norm = np.hypot(lv.alpha, lv.sigma)
  return lv.alpha / norm, lv.sigma / norm
