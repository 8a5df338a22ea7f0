"""Tables of betas, read as schedules by interpolating their log-SNR.

    alpha_bar_k = Π_{j<=k} (1 - beta_j) = alpha²        (arXiv:2006.11239 eq. 4)

Row k of T is the time t = k/(T - 1): t = 0 is the cleanest level of the table
and t = 1 the noisiest, so no level is used that the table does not span. Made
in float64 on the host.
"""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import ranges
from diffflow_jax.process.cosine_schedules import OffsetCosine
from diffflow_jax.process.faces import Schedule
from diffflow_jax.process.schedule import check, schedule


@schedule
class Table(Schedule):
  """logsnr linear in t between the rows of a table.

  Attributes:
    rows: (T,), logsnr, decreasing; steps: (T-1,), their differences, which the
      rows in float32 would have lost.
  """

  rows: Any
  steps: Any

  def __repr__(self):
    return f"Table of {jnp.shape(self.rows)[0]} rows"

  def logsnr(self, t):
    rows, t = jnp.asarray(self.rows), jnp.asarray(t)
    last = rows.shape[0] - 1
    # counted from the nearer end, where a table is steep
    early = t < 0.5
    k = jnp.where(early, t, 1.0 - t) * last
    whole = jnp.clip(jnp.floor(k), 0, last - 1)
    i = whole.astype(jnp.int32)
    near = rows[jnp.where(early, i, last - i)]
    step = jnp.asarray(self.steps)[jnp.where(early, i, last - i - 1)]
    return near + (k - whole) * jnp.where(early, step, -step)

  def fall(self, t):
    """logsnr(t) - logsnr(1), with its own digits where it is small."""
    steps, t = jnp.asarray(self.steps), jnp.asarray(t)
    num = steps.shape[0]
    below = jnp.concatenate(
      [jnp.zeros_like(steps[:1]), -jnp.cumsum(steps[::-1])]
    )
    k = (1.0 - t) * num
    whole = jnp.clip(jnp.floor(k), 0, num - 1)
    i = whole.astype(jnp.int32)
    return below[i] - (k - whole) * steps[num - i - 1]

  def t(self, logsnr):
    rows = jnp.asarray(self.rows)
    k = jnp.arange(rows.shape[0], dtype=rows.dtype)
    return jnp.interp(-jnp.asarray(logsnr), -rows, k) / (rows.shape[0] - 1)


ROWS, BETA = "an integer >= 2", "in (0, 1)"


def beta_table(betas):
  """The Table of any betas (T,).

  Equation (schedule) of docs/math.

  Raises:
    ValueError: fewer than two betas, or one outside (0, 1).
  """
  betas = np.asarray(betas, np.float64)
  if betas.ndim != 1 or betas.shape[0] < 2:
    raise ValueError(
      f"betas must be two numbers or more in one dimension, not {betas.shape}"
    )
  outside = ~((betas > 0.0) & (betas < 1.0))
  if outside.any():
    k = int(outside.argmax())
    raise ValueError(f"betas[{k}] = {betas[k]:g} must be between 0 and 1")
  log_alpha_bar = np.cumsum(np.log1p(-betas))
  rows = log_alpha_bar - np.log(-np.expm1(log_alpha_bar))
  return Table(rows, np.diff(rows))


@ranges.checked(num=ROWS, beta_start=BETA, beta_end=BETA)
def ddpm_table(num=1000, beta_start=1e-4, beta_end=0.02):
  """beta linear in k: Ho et al., arXiv:2006.11239 §4.

  Equation (schedule) of docs/math.
  """
  return beta_table(np.linspace(beta_start, beta_end, num))


@ranges.checked(num=ROWS, beta_start=BETA, beta_end=BETA)
def scaled_linear_table(num=1000, beta_start=0.00085, beta_end=0.012):
  """√beta linear in k: Stable Diffusion, arXiv:2112.10752.

  Equation (schedule) of docs/math.
  """
  return beta_table(np.linspace(beta_start**0.5, beta_end**0.5, num) ** 2)


@ranges.checked(num=ROWS, max_beta=BETA)
def iddpm_table(num=1000, offset=0.008, max_beta=0.999):
  """OffsetCosine's betas, clipped: arXiv:2102.09672 eq. 17 and the text below.

  beta_k = min(1 - alpha_bar_k/alpha_bar_(k-1), max_beta).

  Equation (schedule) of docs/math.
  """
  check(OffsetCosine(offset))
  theta = (np.arange(num + 1) / num + offset) / (1.0 + offset) * math.pi / 2
  alpha_bar = np.cos(theta) ** 2
  return beta_table(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], max_beta))
