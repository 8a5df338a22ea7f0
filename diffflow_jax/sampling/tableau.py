"""Tableaus: every sampler is a table of numbers, and one loop runs them all.

At each network evaluation a sampler mixes what it holds with numbers that
depend on the grid alone. It holds an anchor state, the current state z, the
last K kept predictions h_0 (newest) … h_{K-1}, and fresh noise xi:

    (anchor, z) <- mix_i (anchor, z, h_0 … h_{K-1}, xi)
    x̂, ε̂       <- predict(z, levels_i)
    h           <- (a_i x̂ + b_i ε̂, h_0 … h_{K-2})

for i = 0 … N-1; a last mix, row N, and the anchor is the sample. A two-stage
method is two rows a step, churn is noise in a row, a corrector mixes from the
anchor. Solvers (`solvers`) are functions levels -> Tableau; `sample` runs them.
"""

import operator

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import inputs, predictors
from diffflow_jax.process.levels import Level
from diffflow_jax.sampling import checks, noise as noise_lib, scan, structure
from diffflow_jax.sampling.structure import ANCHOR, H, Z

__all__ = ["ANCHOR", "H", "Tableau", "Z", "check", "sample"]


@struct.dataclass
class Tableau:
  """A sampler with N network evaluations that keeps K predictions.

  Equation (tableau) of docs/math.

  Attributes:
    mix: (N+1, 2, K+3), row i gives (anchor, z) from (anchor, z, h…, noise).
    target: (N, 2), the (a, b) of what is kept: h = a x̂ + b ε̂.
    levels: Level with fields (N,), where evaluation i happens; `to`, of a flow
      map's table, is where the network is told to go from there.
    start, end: Level with fields (), of the initial state and of the sample.
    length: None, or the traced number of evaluations of a padded tableau.
    step_of_row: (N,) whole numbers, or None where it is not known: evaluation
      i, and row i + 1 that follows it, belong to step step_of_row[i] of the
      grid. What is drawn in row 0, and churn, which is drawn in the row before
      its step's first evaluation, belong to the step that follows. Floats, so
      that a table as a whole has derivatives.
  """

  mix: jax.Array
  target: jax.Array
  levels: Level
  start: Level
  end: Level
  length: jax.Array | None = None
  step_of_row: jax.Array | None = None

  @property
  def num_evaluations(self):
    """N, the number of network evaluations (NFE); traced if padded."""
    return self.mix.shape[0] - 1 if self.length is None else self.length

  @property
  def num_kept(self):
    """K, the number of predictions that are kept."""
    return self.mix.shape[-1] - 3


def without_clock(levels):
  """The levels alone: a tableau's arithmetic needs no d/dt."""
  return Level(levels.logsnr, levels.alpha, levels.sigma, to=levels.to)


def check(table):
  """Returns a tableau that can be run, or says what is wrong with it.

  Shapes are looked at always, numbers where they are concrete. A solver of
  one's own gets here unseen, so this is where a row that reads more history
  than there is shows.

  Raises:
    ValueError: it is no Tableau, parts do not fit together, a number is not
      finite, or row i uses a prediction h_j, j >= i, though only i were made.
  """
  if not isinstance(table, Tableau):
    raise ValueError(
      "a tableau is what a solver makes of a grid, as solvers.ddim(grid), not "
      f"{type(table).__name__}"
    )
  n = np.shape(table.target)[0] if np.ndim(table.target) else 0
  width = np.shape(table.mix)[-1] if np.ndim(table.mix) else 0
  fits = {"mix": (n + 1, 2, max(width, H + 2)), "target": (n, 2)}
  for place, shape in (("levels", (n,)), ("start", ()), ("end", ())):
    fits |= {f"{place}.{f}": shape for f in ("logsnr", "alpha", "sigma")}
  if table.step_of_row is not None:
    fits["step_of_row"] = (n,)
  if table.levels.to is not None:
    fits["levels.to"] = (n,)
  for name, shape in fits.items():
    part = operator.attrgetter(name)(table)
    if np.shape(part) != shape:
      raise ValueError(
        f"{name} of a tableau must have shape {shape}, not {np.shape(part)}"
      )
    if isinstance(part, jax.core.Tracer):
      continue
    if name.endswith(("logsnr", "to")):
      if np.isnan(part).any():
        raise ValueError(f"{name} of a tableau must not be NaN")
    elif not np.isfinite(part).all():
      raise ValueError(f"{name} of a tableau must be finite")
  if not isinstance(table.mix, jax.core.Tracer):
    history = np.asarray(table.mix)[..., H:-1]
    for i in range(min(history.shape[-1], n + 1)):
      used = history[i, :, i:].any(0)
      if used.any():
        raise ValueError(
          f"row {i} of the tableau uses prediction h_{i + used.argmax()}, "
          f"but only {i} were made before it"
        )
  return table


def as_pytree(predict):
  """predict with its bare functions wrapped, so that jit takes it as data."""
  inputs.check_predict(predict)
  network = getattr(predict, "__self__", predict)
  if hasattr(network, "init") and hasattr(network, "apply"):
    raise TypeError(
      "predict must be predict(z, level, cond) -> (x̂, ε̂), not a network: wrap "
      "it by dfj.predictor(objective, network.apply, params)"
    )
  wrap = lambda leaf: jax.tree_util.Partial(leaf) if callable(leaf) else leaf
  return jax.tree.map(wrap, predict)


def sample(
  predict,
  tableau,
  key=None,
  shape=None,
  *,
  cond=None,
  z=None,
  first=0,
  brownian=None,
  noise=None,
  trajectory=None,
  every=1,
  remat=False,
  sharding=None,
):
  """Runs a tableau: samples of the given shape, from noise to data.

  Traces `predict` once per (predict's structure, N, shape, `structure.of` the
  tableau): another solver, grid, eta or guidance strength that reads the same
  is new data, not a new program; with `pad` everything else is, too. Sample i
  depends on (key, first + i) alone, not on the batch that it is in or the
  devices that hold it.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree (as all of ours) or a function.
    tableau: what a solver made of a grid.
    key: a PRNG key; may be left out where nothing is drawn, with z and a
      concrete tableau without noise.
    shape: (num_samples, ...) of the result; may be left out with z.
    cond: passed to predict as it is; usually leading axis num_samples.
    z: the state to start from, on the scale of the grid's first level; drawn
      from N(0, sigma_0² I) if None.
    first: global index of the first sample.
    brownian: the grid itself, to take every step's noise from one Brownian path
      per sample: grids of 20 and 40 steps then see the same noise (`noise`).
    noise: (rows, num_samples, ...), the draws themselves in place of a key's:
      row i of the table, of N + 1, adds its number times noise[i]. With it
      another library's samples can be repeated; needs z.
    trajectory: None, or what to keep of an evaluation, (z, x̂, ε̂, lv) -> pytree;
      the call then returns (samples, pytree with a leading axis).
    every: keep only every k-th evaluation, counted back from the last one.
    remat: recompute the network in the backward pass instead of storing it.
    sharding: of z's leading axis over devices.
  Returns:
    The anchor after the last mix, on the scale of the grid's last level.
  Raises:
    ValueError: key or shape is missing where it is needed, z is not floats of
      that shape, not of the spread of its level, or missing where the tableau
      starts at data, cond holds a label that is no class, every < 1, the
      tableau does not fit together (`check`), a padded one is asked for its
      trajectory, predict returns anything but a pair of z's shape, brownian is
      not the grid that the tableau was made of, noise does not fit, or, where a
      new program is compiled and run, predict is NaN at logsnr = -inf.
  """
  given, predict = predict, as_pytree(predict)
  check(tableau)
  checks.destination(given, tableau.levels)
  checks.labels(predict, cond)
  z, shape = checks.start(tableau, shape, z)
  checks.noise(tableau, noise, z, key, brownian)
  if noise is None:
    checks.key(tableau, key, z)
  checks.integer("every", every, 1)
  if trajectory is not None and tableau.length is not None:
    raise ValueError("a padded tableau keeps no trajectory: do not pad it")
  dtype = jnp.result_type(float) if z is None else z.dtype
  clocks = None
  if brownian is not None:
    clocks = _as(noise_lib.clocks(brownian, tableau), dtype)
  shared = structure.of(tableau)
  prepared = predictors.prepare(predict, tableau.levels)
  # a row of its own is of float32 or wider, as `predictors` says
  wide = jnp.promote_types(dtype, jnp.float32)
  prepared = _as(prepared, dtype if prepared is tableau.levels else wide)
  numbers = tableau.mix, tableau.target, tableau.levels
  if z is None:
    z = noise_lib.start(
      key, first, tableau.start.sigma, shape, dtype=dtype, sharding=sharding
    )
  elif sharding is not None:
    z = jax.device_put(z, sharding)
  drawn = structure.ever_draws(shared) and noise is None
  if drawn and key is None:  # a padded tableau without noise
    key = jax.random.key(0)
  programs = scan.run._cache_size()
  out, seen = scan.run(
    predict,
    (*_as(numbers, dtype), tableau.length),
    prepared,
    key if drawn else None,
    first if drawn else None,
    z,
    cond,
    clocks,
    noise if structure.ever_draws(shared) else None,
    structure=shared,
    record=trajectory,
    every=int(every),
    remat=remat,
    sharding=sharding,
  )
  if scan.run._cache_size() > programs:  # later calls do not wait for this
    checks.numbers_at_pure_noise(predict, tableau, out, z, cond)
  return out if trajectory is None else (out, seen)


def _as(tree, dtype):
  """Its floats in another dtype, on the host where they are there."""

  def convert(leaf):
    if isinstance(leaf, np.ndarray):  # by far the most, and the quickest
      return leaf.astype(dtype) if leaf.dtype.kind == "f" else leaf
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      return leaf
    on_host = isinstance(leaf, np.generic | float)
    return np.asarray(leaf, dtype) if on_host else jnp.asarray(leaf, dtype)

  return jax.tree.map(convert, tree)
