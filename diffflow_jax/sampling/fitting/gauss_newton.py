"""Gauss-Newton on a tableau's weights and levels, for the samples' error.

What is free moves every sample by forward-mode derivatives: those of z_i come
before evaluation i, and one pass of the network carries them over it. A tableau
of N evaluations has (N² + 5 N)/2 free numbers, fewer than a sample has pixels,
so that a few steps of a second-order method do what thousands of gradient
steps don't: the weights of one row nearly cancel.

The loss is Σ_b |r_b|, r_b = sample - goal, as a least-squares problem with
weights 1/|r_b| of the last step; Levenberg and Marquardt's damping, on the
scale of the diagonal, falls when a step helps and rises when it does not.
"""

import functools

import jax
import numpy as np

from diffflow_jax.sampling.fitting import dense as dense_lib, pairs as pairs_lib

TANGENTS = 8  # that one call of the compiled program carries
SURE = 40.0  # in log-SNR: beyond it there is no derivative to speak of
LEAST = 1e-3  # of the loss; a step that takes less off is the last one
TRIES = 8  # of a damping


@jax.jit
def _respond(predict, z, logsnr, norm, target, cond, dz, dlogsnr):
  """h at a level and its derivatives along (dz, dlogsnr), (T, ...) each."""

  def respond(z, logsnr):
    lv = dense_lib.level(logsnr, norm)
    x_hat, eps_hat = predict(z, lv, cond)
    return target[0] * x_hat + target[1] * eps_hat

  h, along = jax.linearize(respond, z, logsnr)
  return h, jax.vmap(along)(dz, dlogsnr)


def _carried(predict, dense, i, z, cond, dz, dlogsnr):
  """`_respond` of evaluation i, TANGENTS at a time."""
  number = functools.partial(np.asarray, dtype=z.dtype)
  logsnr = np.clip(dense.logsnr[i], -SURE, SURE)
  at = number(logsnr), number(dense.norm[i]), number(dense.like.target[i])
  num, parts = len(dz), []
  for first in range(0, max(num, 1), TANGENTS):
    part = dz[first : first + TANGENTS]
    more = TANGENTS - len(part)
    wide = lambda a, more=more: np.pad(a, [(0, more)] + [(0, 0)] * (a.ndim - 1))
    along = number(dlogsnr[first : first + TANGENTS])
    h, dh = _respond(predict, z, *at, cond, wide(part), wide(along))
    parts.append(np.asarray(dh)[: len(part)])
  return np.asarray(h), np.concatenate(parts)


def linearised(predict, dense, z_0, cond):
  """(samples (B, ...), their derivatives (P, B, ...) by `places`)."""
  held, along = [z_0], [np.zeros((0, *z_0.shape), z_0.dtype)]
  for i in range(dense.num_evaluations + 1):
    row = dense.weights[i, : i + 1].astype(z_0.dtype)
    z = sum(w * h for w, h in zip(row, held, strict=True))
    dz = np.zeros((len(along[-1]), *z_0.shape), z_0.dtype)
    for w, dh in zip(row, along, strict=True):
      dz[: len(dh)] += w * dh
    if i:
      dz = np.concatenate([dz, np.stack(held)])
    if i == dense.num_evaluations:
      return z, dz
    dlogsnr = np.zeros(len(dz))
    if np.isfinite(dense.logsnr[i]):
      dz = np.concatenate([dz, np.zeros_like(z_0)[None]])
      dlogsnr = np.append(dlogsnr, 1.0)
    h, dh = _carried(predict, dense, i, z, cond, dz, dlogsnr)
    held.append(h)
    along.append(dh)


def _equations(pairs, dense):
  """(JᵀWJ (P, P), JᵀWr (P,)) of all pairs, float64."""
  left = right = 0.0
  for z, goal, cond in pairs.chunks():
    out, along = linearised(pairs.predict, dense, z, cond)
    size = pairs_lib.rms(out, goal)
    size = size + LEAST * np.median(size) + np.finfo(out.dtype).tiny
    weight = np.repeat(size**-0.5, out[0].size)
    slope = along.reshape(len(along), -1) * weight
    rest = (out - goal).reshape(-1) * weight
    left = left + slope @ slope.T
    right = right + slope @ rest
  return np.asarray(left, np.float64), np.asarray(right, np.float64)


def _step(left, right, damping):
  """The damped step (P,), in units in which each number counts the same."""
  unit = np.sqrt(np.diag(left))
  unit = np.where(unit > 0.0, unit, 1.0)
  scaled = left / unit / unit[:, None] + damping * np.eye(len(unit))
  return -np.linalg.solve(scaled, right / unit) / unit


def improve(train, valid, table, num_steps, told=lambda step, error: None):
  """The best tableau on the way of at most num_steps steps from a table.

  Args:
    train, valid: Pairs, to fit to and to choose by.
    told: is told the error of valid after each step.
  Returns:
    (Tableau, its error of valid); the table itself where nothing helps.
  """
  dense, damping = dense_lib.of(table), 1e-2
  best, least = table, valid.error(table)
  now = train.error(table)
  for i in range(num_steps):
    left, right = _equations(train, dense)
    for _ in range(TRIES):
      new = dense_lib.moved(dense, _step(left, right, damping))
      seen = train.error(dense_lib.tableau(new))
      if seen < now:
        break
      damping *= 6.0
    else:
      break
    gain, dense, now = 1.0 - seen / now, new, seen
    damping = max(damping / 5.0, 1e-9)
    made = dense_lib.tableau(dense)
    error = valid.error(made)
    told(i + 1, error)
    if error < least:
      best, least = made, error
    if gain < LEAST:
      break
  return best, least
