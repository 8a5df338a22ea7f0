"""What a sampler is measured against, and the tables that are measured."""

import jax
import jax.numpy as jnp
import numpy as np

import diffflow_jax as dfj


def plain(apply):
  """The predictor of a flow-matching network as one would write it by hand."""

  def predict(params, z, lv, cond=None):
    y = apply(params, z, jnp.broadcast_to(lv.logsnr, z.shape[:1]), cond)
    return z - lv.sigma * y, z + lv.alpha * y

  return predict


def flow_grid(n, to_zero=False):
  end = 0.0 if to_zero else 0.01
  return dfj.grids.uniform_t(
    dfj.schedules.Flow(), dfj.levels.linear, n, 0.99, end
  )


def by_hand(apply, n, draws=False):
  """(params, z, key) -> z by DDIM: the floor."""
  grid, predict = flow_grid(n), plain(apply)
  rows = jax.tree.map(jnp.float32, (grid[:-1], grid[1:]))

  @jax.jit
  def run(params, z, key):
    def step(z, inputs):
      i, (s, t) = inputs
      x_hat, eps_hat = predict(params, z, s)
      z = t.alpha * x_hat + t.sigma * eps_hat
      if draws:
        xi = jax.random.normal(jax.random.fold_in(key, i), z.shape)
        z = z + 1e-3 * xi
      return z, None

    return jax.lax.scan(step, z, (jnp.arange(n), rows))[0]

  return run


def evaluations(apply):
  """(params, z, cond, n) -> the network n times over, and nothing else."""

  def run(params, z, cond, n):
    once = lambda i, z: (
      z - 1e-3 * apply(params, z, jnp.full(z.shape[:1], 0.5), cond)
    )
    return jax.lax.fori_loop(0, n, once, z)

  return run


def learned_like(kept, n):
  """A table whose every column is used, as of a learned one."""
  table = dfj.solvers.euler(flow_grid(n))
  mix = np.zeros((n + 1, 2, kept + 3))
  mix[..., [0, 1, 2, -1]] = table.mix
  noise = 1e-4 * np.random.default_rng(0).normal(size=mix[..., :-1].shape)
  made = np.arange(kept + 2) - 2 < np.arange(n + 1)[:, None]
  mix[..., :-1] += noise * made[:, None]
  return table.replace(mix=mix)
