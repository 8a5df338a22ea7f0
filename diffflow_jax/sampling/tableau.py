"""Tableaus: every sampler is a table of numbers, and one scan runs them all.

At each network evaluation a sampler mixes what it holds with numbers that
depend on the grid alone. It holds an anchor state, the current state z, the
last K kept predictions h_0 (newest) … h_{K-1}, and fresh noise xi:

    (anchor, z) <- mix_i (anchor, z, h_0 … h_{K-1}, xi)
    x̂, ε̂       <- predict(z, levels_i)
    h           <- (a_i x̂ + b_i ε̂, h_0 … h_{K-2})

for i = 0 … N-1; a last mix, row N, and the anchor is the sample. A two-stage
method is two rows a step, churn is noise in a row, a corrector mixes from the
anchor. Solvers (`ode_solvers`, `sde_solvers`) are functions levels -> Tableau.
"""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process.levels import Level
from diffflow_jax.sampling.grids import is_traced

ANCHOR, Z, H = 0, 1, 2  # columns of `mix`; the last column is the noise


@struct.dataclass
class Tableau:
  """A sampler with N network evaluations that keeps K predictions.

  Attributes:
    mix: (N+1, 2, K+3), row i gives (anchor, z) from (anchor, z, h…, noise).
    target: (N, 2), the (a, b) of what is kept: h = a x̂ + b ε̂.
    levels: Level with fields (N,), where evaluation i happens.
  """

  mix: jax.Array
  target: jax.Array
  levels: Level

  @property
  def num_evaluations(self):
    """N, the number of network evaluations (NFE)."""
    return self.mix.shape[0] - 1

  @property
  def num_kept(self):
    """K, the number of predictions that are kept."""
    return self.mix.shape[-1] - 3


def evaluation_levels(levels, rows):
  """The levels of a tableau's evaluations: `rows` of a grid, without clocks."""
  return Level(levels.logsnr[rows], levels.alpha[rows], levels.sigma[rows])


def _mix(row, anchor, z, h, noise):
  """Both rows of one mixing: (anchor, z) from all that is held."""
  held = (anchor, z, *h, noise)
  return tuple(
    sum(c.astype(z.dtype) * s for c, s in zip(r, held, strict=True))
    for r in row
  )


@jax.jit
def _initial(keys, like, sigma):
  """sigma eps, one draw per key."""
  draw = lambda key: jax.random.normal(
    jax.random.fold_in(key, 0), like.shape[1:], like.dtype
  )
  return sigma.astype(like.dtype) * jax.vmap(draw)(keys)


@jax.jit
def _run(predict, tableau, keys, z, cond):
  """The scan. Row i's noise for a sample is fold_in(its key, i + 1)."""

  def noise(row, index):
    draw = lambda: jax.vmap(
      lambda key: jax.random.normal(
        jax.random.fold_in(key, index + 1), z.shape[1:], z.dtype
      )
    )(keys)
    # a branch and not a product: a row without noise does not pay for a draw
    return jax.lax.cond(
      jnp.any(row[:, -1] != 0), draw, lambda: jnp.zeros_like(z)
    )

  def evaluate(carry, inputs):
    anchor, z, h = carry
    index, row, (a, b), lv = inputs
    anchor, z = _mix(row, anchor, z, h, noise(row, index))
    x_hat, eps_hat = predict(z, lv, cond)
    kept = (a * x_hat + b * eps_hat).astype(z.dtype)
    return (anchor, z, (kept, *h[:-1])), None

  n = tableau.num_evaluations
  h = (jnp.zeros_like(z),) * tableau.num_kept
  rows = (jnp.arange(n), tableau.mix[:-1], tableau.target, tableau.levels)
  (anchor, z, h), _ = jax.lax.scan(evaluate, (z, z, h), rows)
  last = tableau.mix[-1]
  return _mix(last, anchor, z, h, noise(last, n))[0]


def sample(predict, tableau, key, shape, *, cond=None, z=None, first=0):
  """Runs a tableau: samples of the given shape, from noise to data.

  Traces `predict` once per (predict's structure, N, K, shape): another solver,
  grid, eta or guidance strength of equal (N, K) is new data, not a new program.
  Sample i depends on (key, first + i) alone, not on the batch that it is in.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), a pytree (as all of ours) or a function.
    tableau: what a solver made of a grid.
    key: a PRNG key.
    shape: (num_samples, ...) of the result.
    cond: passed to predict as it is; usually leading axis num_samples.
    z: the state to start from, on the scale of the grid's first level; drawn
      from N(0, sigma_0² I) if None.
    first: global index of the first sample.
  Returns:
    The anchor after the last mix, on the scale of the grid's last level.
  """
  if not callable(predict):
    raise TypeError(f"predict must be callable, not {type(predict).__name__}")
  if jax.tree_util.all_leaves([predict]):
    predict = jax.tree_util.Partial(predict)
  dtype = jnp.result_type(float) if z is None else jnp.asarray(z).dtype
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    key, first + jnp.arange(shape[0])
  )
  tableau = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tableau)
  if z is None:
    like = jax.ShapeDtypeStruct(tuple(shape), dtype)
    z = _initial(
      keys,
      jnp.broadcast_to(jnp.zeros((), dtype), like.shape),
      tableau.levels.sigma[0],
    )
  elif jnp.shape(z) != tuple(shape):
    raise ValueError(f"z has shape {jnp.shape(z)}, but shape is {tuple(shape)}")
  return _run(predict, tableau, keys, z, cond)


def contributions(tableau):
  """The weight of every prediction and noise draw in the sample.

      sample = start z_0 + Σ_i kept_i h_i + Σ_i noise_i xi_i

  by pushing unit vectors through the mixing rows (float64, no network).

  Returns:
    dict with start (), kept (N,) and noise (N+1,), NumPy arrays.
  """
  if is_traced(tableau):
    raise TypeError("contributions needs a concrete tableau, not a traced one")
  n, k = tableau.num_evaluations, tableau.num_kept
  mix = np.asarray(tableau.mix, np.float64)
  basis = np.eye(2 * n + 2)  # the start, h_0 … h_{N-1}, xi_0 … xi_N
  start, made, drawn = basis[0], basis[1 : n + 1], basis[n + 1 :]
  anchor, z, h = start, start, [np.zeros_like(start)] * k
  for i in range(n + 1):
    anchor, z = mix[i] @ np.stack([anchor, z, *h, drawn[i]])
    if i < n:
      h = [made[i], *h[:-1]]
  return dict(start=anchor[0], kept=anchor[1 : n + 1], noise=anchor[n + 1 :])
