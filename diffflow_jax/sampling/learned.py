"""Learned tableaus: the coefficients and levels of a solver, fitted to a model.

A tableau is data, so a solver of few evaluations can be taught by a fine one:
minimise |sample(tableau, z) - reference(z)| over all its weights and the levels
of its evaluations. It starts from the best hand-made solvers, and what is kept
is the best on noise that it was not fitted to.
"""

import logging

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling import checks, solvers
from diffflow_jax.sampling.candidates import candidate_grids, hand_made
from diffflow_jax.sampling.files import load, save
from diffflow_jax.sampling.fitting import gauss_newton, pairs as pairs_lib
from diffflow_jax.sampling.tableau import sample

__all__ = ["error", "fit", "fit_tableau", "hand_made", "load", "save"]
log = logging.getLogger("diffflow_jax")


def error(predict, tableau, z, goal, cond=None):
  """Mean over samples of the RMS distance to the reference's sample.

  Not the RMS over all: the few samples that end at another mode would drown
  the rest.
  """
  got = sample(predict, tableau, jax.random.key(0), z.shape, cond=cond, z=z)
  square = jnp.mean((got - goal) ** 2, axis=tuple(range(1, z.ndim)))
  return jnp.mean(jnp.sqrt(square + jnp.finfo(z.dtype).tiny))


def ends(levels):
  """(start, end) of a grid on the vp scale: Levels of floats."""
  found = (jax.tree.map(float, levels[i]) for i in (0, -1))
  norm = lambda lv: np.hypot(lv.alpha, lv.sigma)
  return tuple(
    levels_lib.Level(lv.logsnr, lv.alpha / norm(lv), lv.sigma / norm(lv))
    for lv in found
  )


def reference(levels, num_steps=100):
  """The fine Tableau between a grid's ends: Kutta's 3/8 rule."""
  grid = candidate_grids(*ends(levels), num_steps)["flow_power_1.5"]
  return solvers.rk38(grid)


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
  batch=None,
  num_steps=40,
  num_starts=3,
  reference=None,
):
  """Learns a tableau of num_evaluations for one model.

  Its weights, of all predictions so far, and its levels are fitted by a
  second-order method (`fitting.gauss_newton`), which takes derivatives of
  predict forwards.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree or a function.
    levels: a grid (N+1,), of which the ends are used.
    key: of the noise; training and validation never share a draw.
    shape: of one sample.
    cond: a pytree with leading axis num_train + num_valid, or None.
    num_train, num_valid: noises to fit to and to choose by: a few dozen where a
      sample has hundreds of numbers, a thousand where it has two.
    batch: of these at a time, which divides both; None for all at once.
    num_steps: at most, from each start; it ends where a step hardly helps.
    num_starts: how many hand-made solvers to start from, the best ones first,
      each on its best grid.
    reference: the fine Tableau; `reference` of this module if None.
  Returns:
    (Tableau, report): report has the validation errors "hand_made" and
    "learned", "started_from", the (solver, grid) that the tableau came from,
    and "scores", the errors of all hand-made ones by that name. The tableau is
    the best hand-made one where learning did not beat it.
  Raises:
    ValueError: a count is no integer >= 1, or batch does not divide num_train
      and num_valid.
  """
  sizes = dict(num_train=num_train, num_valid=num_valid)
  counts = dict(num_evaluations=num_evaluations, num_steps=num_steps)
  for name, value in (sizes | counts | dict(num_starts=num_starts)).items():
    checks.integer(name, value, 1)
  if batch is not None:
    checks.integer("batch", batch, 1)
    for name, value in sizes.items():
      if value % batch:
        raise ValueError(f"batch must divide {name}={value}, not {batch}")
  fine = _reference(levels) if reference is None else reference
  part = lambda first, num: pairs_lib.make(
    *(predict, fine, key, shape, num),
    first=first,
    cond=jax.tree.map(lambda a: a[first : first + num], cond),
    batch=batch or num,
    room=(num_evaluations, room_of([num_evaluations])),
  )
  train, valid = part(0, num_train), part(num_train, num_valid)
  return fit(
    train,
    valid,
    hand_made(*ends(levels), num_evaluations),
    num_evaluations,
    num_steps=num_steps,
    num_starts=num_starts,
  )


_reference = reference


def room_of(counts):
  """K that tableaus of these numbers of evaluations fit into."""
  return max(4, *counts)


def fit(
  train,
  valid,
  tables,
  num_evaluations,
  *,
  num_steps,
  num_starts,
  num_looks=None,
  told=lambda step, error: None,
):
  """`fit_tableau` of noises and hand-made tables that are there already.

  Args:
    train, valid: `fitting.pairs.Pairs`.
    tables: {name: Tableau} to start from, name is (solver, grid).
    num_looks: noises of valid by which the starts are chosen; None for all.
    told: is told the error of valid after each step.
  """
  look = valid if num_looks is None else valid.first(num_looks)
  scores = {name: look.error(table) for name, table in tables.items()}
  order = best_of_each_solver(scores)
  name = order[0]
  best, hand = tables[name], valid.error(tables[name])
  least = hand
  full = [n for n in order if tables[n].num_evaluations == num_evaluations]
  for start in full[:num_starts]:
    made, seen = gauss_newton.improve(
      train, valid, tables[start], num_steps, told
    )
    if seen < least:
      best, least, name = made, seen, start
  report = dict(hand_made=hand, learned=least, started_from=name)
  log.info("fit_tableau: %s", report)
  report["scores"] = scores
  return jax.tree.map(np.asarray, best), report


def best_of_each_solver(scores):
  """The (solver, grid) of every solver's best grid, best first."""
  order = sorted(scores, key=scores.get)
  first = {solver: (solver, grid) for solver, grid in reversed(order)}
  return [name for name in order if name in first.values()]
