"""Learned tableaus: the coefficients and levels of a solver, fitted to a model.

A tableau is differentiable data, so a solver of few evaluations can be taught
by a fine one: minimise |sample(tableau, z) - reference(z)| over the mixing rows
and the levels of the evaluations, through the scan. It starts from the best
hand-made solver and grid, and what is kept is the best on held-out noise.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels as levels_lib, schedules
from diffflow_jax.sampling import compose, grids, noise, solvers
from diffflow_jax.sampling.tableau import Tableau, sample

CANDIDATES = {
  "ddim": solvers.ddim,
  "heun": solvers.heun,
  "heun_sigma": lambda l: solvers.heun(l, "sigma"),
  "heun_angle": lambda l: solvers.heun(l, "angle"),
  "midpoint": solvers.midpoint,
  "rk4": solvers.rk4,
  "dpmpp_3s": solvers.dpmpp_3s,
  "dpmpp_2m": solvers.dpmpp_2m,
  "dpmpp_3m": solvers.dpmpp_3m,
  "unipc_2": lambda l: solvers.unipc(l, 2),
  "unipc_3": lambda l: solvers.unipc(l, 3),
  "deis_3": solvers.deis,
  "adams_bashforth_2": solvers.adams_bashforth,
  "adams_bashforth_2_angle": lambda l: solvers.adams_bashforth(l, 2, "angle"),
}


def candidate_grids(start, end, num_steps):
  """Grids between two levels: uniform in logsnr, flow time, angle and sigma."""
  ends = lambda schedule: (
    float(schedule.t(start.logsnr)),
    float(schedule.t(end.logsnr)),
  )
  finite = lambda l, far: float(np.clip(l, -far, far))
  lo, hi = finite(start.logsnr, 12.0), finite(end.logsnr, 10.0)
  flow, cosine = schedules.Flow(), schedules.Cosine()
  made = {
    "flow": grids.uniform_t(flow, levels_lib.vp, num_steps, *ends(flow)),
    "cosine": grids.uniform_t(cosine, levels_lib.vp, num_steps, *ends(cosine)),
  }
  inner = {"logsnr": np.linspace(lo, hi, num_steps + 1)}
  for rho in (3.0, 7.0):
    root = np.linspace(
      np.exp(-lo / 2 / rho), np.exp(-hi / 2 / rho), num_steps + 1
    )
    inner[f"karras_{rho:g}"] = -2.0 * rho * np.log(root)
  for name, logsnr in inner.items():
    logsnr[0], logsnr[-1] = start.logsnr, end.logsnr
    made[name] = grids.from_logsnr(logsnr, levels_lib.vp)
  return made


def hand_made(start, end, num_evaluations):
  """Every candidate tableau with at most num_evaluations, by (solver, grid)."""
  tables = {}
  for name, solver in CANDIDATES.items():
    for steps in range(num_evaluations, 0, -1):
      try:
        made = {
          g: solver(grid)
          for g, grid in candidate_grids(start, end, steps).items()
        }
      except ValueError:  # a coordinate that is infinite at the start
        break
      made = {
        g: t for g, t in made.items() if t.num_evaluations <= num_evaluations
      }
      tables.update({(name, g): t for g, t in made.items()})
      if made:
        break
  return tables


def error(predict, tableau, z, goal, cond=None):
  """Mean over samples of the RMS distance to the reference's sample.

  Not the RMS over all: the few samples that end at another mode would drown
  the rest.
  """
  got = sample(predict, tableau, jax.random.key(0), z.shape, cond=cond, z=z)
  square = jnp.mean((got - goal) ** 2, axis=tuple(range(1, z.ndim)))
  return jnp.mean(jnp.sqrt(square + jnp.finfo(z.dtype).tiny))


def _widen(table, num_kept):
  """A tableau that keeps more predictions, not used yet."""
  k = table.num_kept
  mix = jnp.asarray(table.mix)
  zeros = jnp.zeros((*mix.shape[:2], num_kept - k))
  mix = jnp.concatenate([mix[..., : 2 + k], zeros, mix[..., 2 + k :]], -1)
  return table.replace(mix=mix)


def _free(params, table):
  """The tableau with the learned corrections; the noise column stays 0.

  A level moves on its own norm, so that the states keep their scale.
  """
  mix = table.mix.at[..., :-1].add(params["mix"])
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


def fit_tableau(
  predict,
  levels,
  num_evaluations,
  key,
  shape,
  *,
  cond=None,
  num_train=1024,
  num_valid=1024,
  num_steps=1500,
  learning_rate=2e-2,
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
    num_steps, learning_rate: of Adam with a cosine decay.
    reference: the fine Tableau; Heun's with 200 steps of flow time if None.
  Returns:
    (Tableau, report): report has the validation errors "hand_made" and
    "learned", and "started_from", the (solver, grid) of the former. The tableau
    is the hand-made one where learning did not beat it.
  """
  import optax

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
  fits = lambda t: compose.pad(t, num_evaluations, 4)  # one compilation
  scores = {
    name: float(error(predict, fits(t), *valid)) for name, t in tables.items()
  }
  name = min(scores, key=scores.get)
  table = _widen(tables[name], tables[name].num_evaluations)
  table = jax.tree.map(lambda a: jnp.asarray(a, dtype), table)
  params = dict(
    mix=jnp.zeros_like(table.mix[..., :-1]),
    logsnr=jnp.zeros_like(table.levels.logsnr),
  )
  tx = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
  loss = lambda p, data: error(predict, _free(p, table), *data)

  @jax.jit
  def update(carry, _):
    params, state, best, least = carry
    seen = loss(params, valid)
    better = seen < least
    best = jax.tree.map(lambda b, p: jnp.where(better, p, b), best, params)
    grad = jax.grad(loss)(params, train)
    moves, state = tx.update(grad, state)
    params = optax.apply_updates(params, moves)
    return (params, state, best, jnp.where(better, seen, least)), None

  least = jnp.asarray(scores[name], dtype)
  carry = params, tx.init(params), params, least
  run = jax.jit(functools.partial(jax.lax.scan, update, length=num_steps))
  (_, _, best, least), _ = run(carry, None)
  table = jax.tree.map(np.asarray, _free(best, table))
  return table, dict(
    hand_made=scores[name], learned=float(least), started_from=name
  )


def _vp(lv):
  norm = np.hypot(lv.alpha, lv.sigma)
  return lv.alpha / norm, lv.sigma / norm


FIELDS = ("logsnr", "alpha", "sigma")


def save(path, table):
  """Writes a tableau to a .npz file."""
  place = {"levels": table.levels, "start": table.start, "end": table.end}
  np.savez(
    path,
    mix=table.mix,
    target=table.target,
    **{
      f"{name}_{f}": getattr(lv, f)
      for name, lv in place.items()
      for f in FIELDS
    },
  )


def load(path):
  """The tableau that `save` wrote; nothing is unpickled.

  Raises:
    ValueError: the file is no tableau, or its parts do not fit together.
  """
  names = [
    f"{name}_{f}"
    for name, f in itertools.product(("levels", "start", "end"), FIELDS)
  ]
  try:
    with np.load(path, allow_pickle=False) as file:
      data = {n: file[n] for n in ("mix", "target", *names)}
  except (KeyError, OSError, ValueError) as e:
    raise ValueError(f"{path} is not a saved tableau: {e}") from e
  n = data["target"].shape[0] if data["target"].ndim else 0
  width = data["mix"].shape[-1] if data["mix"].ndim else 0
  fits = {"mix": (n + 1, 2, width), "target": (n, 2)}
  fits |= {m: (n,) if m.startswith("levels") else () for m in names}
  for part, shape in fits.items():
    a = data[part]
    bad_number = part in ("mix", "target") and not np.isfinite(a).all()
    if a.shape != shape or a.dtype.kind != "f" or bad_number or width < 4:
      raise ValueError(
        f"{path}: {part} must be finite floats of shape {shape}, "
        f"not {a.dtype} {a.shape}"
      )
  level = lambda name: levels_lib.Level(*(data[f"{name}_{f}"] for f in FIELDS))
  return Tableau(
    data["mix"], data["target"], level("levels"), level("start"), level("end")
  )
