"""Tableaus out of tableaus: padding, joining, restarts.

A tableau is data, so samplers compose as tables do, without running anything.
"""

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.sampling import checks
from diffflow_jax.sampling.checks import is_traced
from diffflow_jax.sampling.tableau import ANCHOR, Tableau, Z, check


def widen(mix, num_kept):
  """The rows (…, K+3) as (…, num_kept+3): more is kept, and not used."""
  xp = jnp if is_traced(mix) else np
  more = xp.zeros((*mix.shape[:-1], num_kept + 3 - mix.shape[-1]))
  return xp.concatenate([mix[..., :-1], more, mix[..., -1:]], axis=-1)


def pad(tableau, num_evaluations, num_kept):
  """The same sampler in a larger table: data of one shape for every solver.

  `sample` runs a padded tableau in a loop with a traced bound, so the padding
  costs no evaluation, and one compilation serves every solver, number of steps,
  grid, eta and guidance strength. Such a loop has no reverse-mode derivative.

  Args:
    num_evaluations, num_kept: the N and K to pad to.
  Raises:
    ValueError: the tableau is larger than that, or padded already.
  """
  checks.integer("num_evaluations", num_evaluations, 1)
  checks.integer("num_kept", num_kept, 1)
  n, k = tableau.mix.shape[0] - 1, tableau.num_kept
  if tableau.length is not None:
    raise ValueError("the tableau is padded already")
  if n > num_evaluations or k > num_kept:
    raise ValueError(
      f"a tableau of {n} evaluations that keeps {k} does not fit in "
      f"num_evaluations={num_evaluations}, num_kept={num_kept}"
    )
  xp = jnp if is_traced(tableau) else np
  more = num_evaluations - n
  mix = widen(tableau.mix, num_kept)
  longer = lambda leaf: xp.concatenate([leaf, xp.repeat(leaf[-1:], more, 0)])
  return tableau.replace(
    mix=xp.concatenate([mix, xp.zeros((more, *mix.shape[1:]))]),
    target=longer(tableau.target),
    levels=jax.tree.map(longer, tableau.levels),
    length=np.int32(n),
    step_of_row=jax.tree.map(longer, tableau.step_of_row),
  )


def join(first, second):
  """One tableau that runs `first`, then `second` from where it ended.

  Where second starts at a noisier level than first ended, the noise between
  them is added: z_s = (alpha_s/alpha_t) z_t + sigma_{s|t} xi, which is restart
  sampling. Where it starts at the same level, the two are one longer sampler.
  The two noises that meet in the row between are drawn as one.

  Equation (restart) of docs/math.

  Raises:
    ValueError: second starts at a cleaner level than first ended, or one of
      them is no tableau, or padded.
    TypeError: one of them is traced.
  """
  _check(first)
  _check(second)
  end, start = first.end, second.start
  # infinite ends are equal to themselves alone
  width = 1e-9 * (1.0 + abs(end.logsnr)) if np.isfinite(end.logsnr) else 0.0
  if start.logsnr > end.logsnr + width:
    raise ValueError(
      f"the second tableau starts at logsnr {float(start.logsnr):g}, cleaner "
      f"than {float(end.logsnr):g}, where the first one ended"
    )
  same = start.logsnr >= end.logsnr - width
  norm = lambda lv: np.hypot(lv.alpha, lv.sigma)
  gain = norm(start) / norm(end) if same else start.alpha / end.alpha
  var = 0.0 if same else start.sigma**2 - (gain * end.sigma) ** 2
  return chain([first, second], [1.0, gain], [0.0, np.sqrt(var)])


def _check(table):
  if checks.is_traced(table):
    raise TypeError("join compares levels: make the tableaus outside jit")
  if check(table).length is not None:
    raise ValueError(
      "a padded tableau has no end to go on from: pad afterwards"
    )


def chain(tables, gains, noises):
  """One tableau that runs several, each from gain z + noise xi of the last one.

  The noise before a table and that of its first row are drawn as one.

  Args:
    gains, noises: of what precedes each table; before the first one there is
      noise alone.
  """
  k = max(table.num_kept for table in tables)
  mix, steps, num_steps = [], [], 0
  for table, gain, noise in zip(tables, gains, noises, strict=True):
    rows = widen(table.mix, k)
    if mix:  # after the last one: anchor' = z' = gain (its last anchor row)
      link = gain * mix.pop()[-1, 0]
      link[-1] = np.hypot(link[-1], noise)
      share = rows[0, :, ANCHOR] + rows[0, :, Z]
      between = share[:, None] * link
    else:
      between = rows[0].copy()
      between[:, -1] = noise * (between[:, ANCHOR] + between[:, Z])
    between[:, -1] = np.hypot(between[:, -1], rows[0, :, -1])
    mix += [between[None], rows[1:-1], rows[-1:]]
    if table.step_of_row is not None:
      steps.append(num_steps + np.asarray(table.step_of_row))
      num_steps = steps[-1][-1] + 1
  inline = lambda *parts: np.concatenate(parts)
  levels = [table.levels for table in tables]
  if any(lv.to is not None for lv in levels):  # None is the level itself
    levels = [
      lv.replace(to=lv.logsnr) if lv.to is None else lv for lv in levels
    ]
  return Tableau(
    mix=inline(*mix),
    target=inline(*(table.target for table in tables)),
    levels=jax.tree.map(inline, *levels),
    start=tables[0].start,
    end=tables[-1].end,
    step_of_row=inline(*steps) if len(steps) == len(tables) else None,
  )


def restart(levels, solver, high, low, times=1):
  """Restart sampling, arXiv:2306.14878 Alg. 1, with any solver.

  Runs the grid down to level `low`, then `times` times: adds noise back up to
  level `high` and runs down again; then the rest of the grid. The forward noise
  contracts the errors that were made before it.

  Equation (restart) of docs/math.

  Args:
    levels: concrete grid, (N+1,); solver: levels -> Tableau.
    high, low: indices into the grid, 0 <= high < low <= N; alpha[high] > 0.
  Returns:
    Tableau, times (low - high) steps longer than solver(levels).
  Raises:
    ValueError: high, low or times is out of range.
    TypeError: solver is no function.
  """
  if not callable(solver):
    raise TypeError(
      f"solver must be a function levels -> Tableau, as solvers.heun is, not "
      f"{solver!r:.40}"
    )
  n = levels.logsnr.shape[0] - 1
  checks.integer("high", high, 0)
  checks.integer("low", low, 0)
  checks.integer("times", times, 0)
  if not 0 <= high < low <= n or levels.alpha[high] == 0:
    raise ValueError(
      f"restart needs 0 <= high < low <= {n} with alpha[high] > 0, "
      f"not high={high}, low={low}"
    )
  table = solver(levels[: low + 1])
  for _ in range(times):
    table = join(table, solver(levels[high : low + 1]))
  return join(table, solver(levels[low:])) if low < n else table
