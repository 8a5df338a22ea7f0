"""Learned tableaus: the coefficients and levels of a solver, fitted to a model.

A tableau is differentiable data, so a solver of few evaluations can be taught
by a fine one: minimise |sample(tableau, z) - reference(z)| over the mixing rows
and the levels of the evaluations, through the scan. It starts from the best
hand-made solvers, and what is kept is the best on held-out noise.
"""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import checks, compose, noise, solvers
from diffflow_jax.sampling.candidates import candidate_grids, hand_made
from diffflow_jax.sampling.files import load, save
from diffflow_jax.sampling.tableau import H, sample

__all__ = ["error", "fit_tableau", "hand_made", "load", "save"]
RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
SHORT = 0.125  # of the steps, for a run that only compares
PAYS = 0.95  # of the error, at most, is left where more history is kept
log = logging.getLogger("diffflow_jax")


def error(predict, tableau, z, goal, cond=None):
  """Mean over samples of the RMS distance to the reference's sample.

  Not the RMS over all: the few samples that end at another mode would drown
  the rest.
  """
  got = sample(predict, tableau, jax.random.key(0), z.shape, cond=cond, z=z)
  square = jnp.mean((got - goal) ** 2, axis=tuple(range(1, z.ndim)))
  return jnp.mean(jnp.sqrt(square + jnp.finfo(z.dtype).tiny))


def _free(params, table, num_kept):
  """The tableau with the learned corrections.

  The noise column stays 0, and so do the columns of predictions that are not
  made yet or, from num_kept on, not kept. A level moves on its own norm, so
  that the states keep their scale.
  """
  rows, _, width = params["mix"].shape
  column = np.arange(width) - H
  made = column < np.arange(rows)[:, None]
  made = made & (column < num_kept)
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


def _trainer(predict, train, valid):
  """(table, rate, steps, num_kept) -> (best table by validation, its error).

  One program, to which all but the table's size are numbers: a short run with
  another rate compiles nothing.
  """
  import optax

  tx = optax.chain(  # clipped: a sample that changes mode has a huge gradient
    optax.clip_by_global_norm(1.0), optax.scale_by_adam()
  )

  @jax.jit
  def train_from(table, rate, num_steps, num_kept, train, valid):
    loss = lambda p, data: error(predict, _free(p, table, num_kept), *data)

    def update(i, carry):
      params, state, best, least = carry
      seen = loss(params, valid)
      better = seen < least
      best = jax.tree.map(lambda b, p: jnp.where(better, p, b), best, params)
      moves, state = tx.update(jax.grad(loss)(params, train), state)
      now = rate * 0.5 * (1.0 + jnp.cos(jnp.pi * i / num_steps))
      params = jax.tree.map(lambda p, m: p - now * m, params, moves)
      return params, state, best, jnp.where(better, seen, least)

    params = dict(
      mix=jnp.zeros_like(table.mix[..., :-1]),
      logsnr=jnp.zeros_like(table.levels.logsnr),
    )
    carry = params, tx.init(params), params, loss(params, valid)
    _, _, best, least = jax.lax.fori_loop(0, num_steps, update, carry)
    return _free(best, table, num_kept), least

  def run(table, rate, num_steps, num_kept):
    made, least = train_from(table, rate, num_steps, num_kept, train, valid)
    return made, float(least)

  return run


def _search(fit, table, rates, histories, num_steps):
  """The rate and the history that short runs from one table speak for.

  The rates in turn with the least history, until one is worse than one that
  helped; then more history with the best rate, as long as it takes PAYS off
  the error.

  Returns:
    (rate, num_kept, [{rate, num_kept, error} of every run]); no run where there
    is no choice.
  """
  tried = []
  if len(rates) * len(histories) == 1:
    return rates[0], histories[0], tried

  def short(rate, num_kept):
    least = fit(table, rate, num_steps, num_kept)[1]
    found = dict(learning_rate=rate, num_kept=num_kept, error=least)
    tried.append(found)
    log.info("fit_tableau: %d steps of %s", num_steps, found)
    return least

  rate, least, num_kept = rates[0], np.inf, histories[0]
  for one in rates:
    now = short(one, num_kept)
    if now < least:
      rate, least = one, now
    elif now > least:
      break
  for more in histories[1:]:
    now = short(rate, more)
    if now > PAYS * least:
      break
    num_kept, least = more, now
  return rate, num_kept, tried


def _histories(least, most):
  """least, twice it, … up to most."""
  sizes = [least]
  while sizes[-1] < most:
    sizes.append(min(2 * sizes[-1], most))
  return sizes


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
  learning_rate=RATES,
  num_kept=None,
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
    num_steps: of Adam with a cosine decay, gradients clipped.
    learning_rate: a number, or several, largest first, of which SHORT of the
      steps from the best start choose one: what is right at 5 evaluations is a
      hundred times too much at 20.
    num_kept: how many predictions a row may mix, or None: as many as pay, from
      those of the hand-made ones on, by short runs too. What a step of sampling
      reads grows with it.
    num_starts: how many hand-made solvers to start from, the best ones first,
      each on its best grid.
    reference: the fine Tableau; Kutta's 3/8 rule with 100 steps if None.
  Returns:
    (Tableau, report): report has the validation errors "hand_made" and
    "learned"; "started_from", the (solver, grid) that the tableau came from;
    "learning_rate" and "num_kept" as chosen, and "tried", what the short runs
    came to. It is the best hand-made one where learning did not beat it.
  Raises:
    ValueError: a count is < 1, a learning rate is not > 0 or there is none, or
      no hand-made solver keeps so few as num_kept.
  """
  for name, value in dict(
    num_evaluations=num_evaluations,
    num_train=num_train,
    num_valid=num_valid,
    num_steps=num_steps,
    num_starts=num_starts,
    num_kept=1 if num_kept is None else num_kept,
  ).items():
    checks.integer(name, value, 1)
  rates = tuple(np.atleast_1d(learning_rate).tolist())
  for rate in rates or (learning_rate,):
    checks.number("learning_rate", rate, "> 0", lambda r: 0 < r < np.inf)
  start, end = (jax.tree.map(float, levels[i]) for i in (0, -1))
  start, end = (levels_lib.Level(l.logsnr, *_vp(l)) for l in (start, end))
  if reference is None:
    fine = candidate_grids(start, end, 100)["flow_power_1.5"]
    reference = solvers.rk38(fine)
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
  if num_kept is not None:
    tables = {n: t for n, t in tables.items() if t.num_kept <= num_kept}
    if not tables:
      raise ValueError(
        f"num_kept must be that of some solver, at least 1, not {num_kept}"
      )
  used = max(t.num_kept for t in tables.values())
  kept = num_kept or max(num_evaluations, used)
  fits = lambda t: compose.pad(t, num_evaluations, kept)  # one compilation
  scores = {
    name: float(error(predict, fits(t), *valid)) for name, t in tables.items()
  }
  starts = _best_of_each_solver(scores)
  least, name = scores[starts[0]], starts[0]
  hand, table = least, tables[name]
  wide = lambda name: jax.tree.map(
    lambda a: jnp.asarray(a, dtype),
    tables[name].replace(mix=compose.widen(tables[name].mix, kept)),
  )
  fit = _trainer(predict, train, valid)
  histories = [kept] if num_kept else _histories(used, kept)
  short = max(1, round(SHORT * num_steps))
  rate, keeps, tried = _search(fit, wide(name), rates, histories, short)
  for start_name in starts[:num_starts]:
    made, seen = fit(wide(start_name), rate, num_steps, keeps)
    if seen < least:
      mix = jnp.delete(made.mix, np.arange(H + keeps, H + kept), axis=-1)
      least, name, table = seen, start_name, made.replace(mix=mix)
  report = dict(
    hand_made=hand,
    learned=least,
    started_from=name,
    learning_rate=rate,
    num_kept=keeps,
    tried=tried,
  )
  log.info("fit_tableau: %s", report)
  return jax.tree.map(np.asarray, table), report


def _vp(lv):
  norm = np.hypot(lv.alpha, lv.sigma)
  return lv.alpha / norm, lv.sigma / norm
