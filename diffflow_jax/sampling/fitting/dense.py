"""Tableaus as one triangle of weights: what a fit of one is free to change.

A tableau without noise is linear in what it was given, so whatever it holds,

    z_i = W_i0 z_0 + Σ_{j<i} W_i,j+1 h_j,   i = 0 … N-1,    and row N the sample

with h_j the predictions that it keeps. All tableaus of N evaluations that keep
the same rows of the prediction are such triangles, and each triangle is a
tableau that keeps all of them.
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.process import levels as levels_lib
from diffflow_jax.sampling.grids import on_host
from diffflow_jax.sampling.structure import ANCHOR, H, Z
from diffflow_jax.sampling.tableau import Tableau

FARTHEST = 1.0  # in log-SNR, that one step moves a level


class Dense(NamedTuple):
  """A tableau of N evaluations, NumPy arrays of float64.

  Attributes:
    weights: W (N+1, N+1), of which W[i, j], j > i, are 0.
    logsnr: (N,), where evaluation i happens; infinite ones stay.
    norm: (N,), hypot(alpha, sigma) there, which stays: a level moves on it.
    like: the Tableau that it is of.
  """

  weights: np.ndarray
  logsnr: np.ndarray
  norm: np.ndarray
  like: Tableau

  @property
  def num_evaluations(self):
    return len(self.logsnr)


def of(table):
  """The Dense of a concrete tableau that draws no noise."""
  mix = np.asarray(table.mix, np.float64)
  num = len(mix) - 1
  basis = np.eye(num + 1)  # z_0, h_0 … h_{N-1}
  anchor = z = basis[0]
  kept = [np.zeros(num + 1)] * table.num_kept
  rows = []
  for i in range(num + 1):
    anchor, z = mix[i, :, :-1] @ np.stack([anchor, z, *kept])
    rows.append(z)
    if i < num:
      kept = [basis[1 + i], *kept[:-1]]
  rows[-1] = anchor
  alpha, sigma, logsnr = (
    np.asarray(getattr(table.levels, name), np.float64)
    for name in ("alpha", "sigma", "logsnr")
  )
  return Dense(np.stack(rows), logsnr, np.hypot(alpha, sigma), table)


def tableau(dense):
  """The Tableau of a Dense: the anchor stays z_0, all predictions are kept."""
  num = dense.num_evaluations
  mix = np.zeros((num + 1, 2, H + num + 1))
  mix[:-1, 0, ANCHOR] = 1.0
  for i, row in enumerate(dense.weights):
    which = 1 if i < num else 0
    mix[i, which, ANCHOR] = row[0]
    mix[i, which, H : H + i] = row[i:0:-1]  # the newest one first
  mix[-1, 1, Z] = 1.0
  at = on_host(level, dense.logsnr, dense.norm)
  return dense.like.replace(mix=mix, levels=at, step_of_row=None)


def level(logsnr, norm):
  """The Level of a log-SNR with hypot(alpha, sigma) = norm."""
  at = levels_lib.at_logsnr(levels_lib.vp, logsnr)
  return levels_lib.Level(logsnr, norm * at.alpha, norm * at.sigma)


def places(dense):
  """What is free, in the order in which sampling meets it.

  Returns:
    List of (i, j): the weight W_ij, and of (i, None): the level of evaluation
    i. Row 0 stays, since sampling starts with z_0 as it is.
  """
  num = dense.num_evaluations
  found = []
  for i in range(num + 1):
    if i:
      found += [(i, j) for j in range(i + 1)]
    if i < num and np.isfinite(dense.logsnr[i]):
      found.append((i, None))
  return found


def moved(dense, step):
  """The Dense after a step (P,) of what is free."""
  weights, logsnr = dense.weights.copy(), dense.logsnr.copy()
  for (i, j), move in zip(places(dense), step, strict=True):
    if j is None:
      logsnr[i] += np.clip(move, -FARTHEST, FARTHEST)
    else:
      weights[i, j] += move
  return dense._replace(weights=weights, logsnr=logsnr)
