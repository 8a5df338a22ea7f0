"""Bits per dimension of discrete data: bounds, each with what it is a bound of.

A density says nothing of discrete data: it can be as high as one likes on their
values. These bounds are of probabilities. With a density p of y, bins of
`width` around each value, d dimensions,

    uniform           -log p(x + u) - d log width,   u uniform in the bin  (1)
    importance        -log 1/K Σ_k p(x + u_k) - d log width                (2)
    truncated normal  -log p(x + u) - h(u),          u = s ε in the bin    (3)
    decoder           -log p(y) - log P(x|y) - h(y|x),   y = x + s ε       (4)

(1) Theis et al., arXiv:1511.01844 §3.1; (2) Burda et al., arXiv:1509.00519 eq.
8; (3) Zheng et al., arXiv:2305.03935 §4. The first three are of the model that
rounds y to a value, (4) of the one that draws a value by VDM's decoder. Where p
is a flow's, y is z/alpha of a stated level with a little noise s = sigma/alpha
(`flow_density`): neither model is the sampler that ends at sigma = 0.

A model that knows the values, trained on them without dequantisation, has a
comb of a density, and (1) is far too large for it: by 0.86 bits at logsnr 13.3.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from diffflow_jax.evaluation import estimates, features as sets
from diffflow_jax.objective.bound import decoder_log_prob
from diffflow_jax.process import levels, ranges
from diffflow_jax.sampling import noise
from diffflow_jax.sampling.likelihood import log_likelihood

ROUNDED = "upper bound in bits per dimension, of the model that rounds y"
DECODED = "upper bound in bits per dimension, of the model that decodes y"


class Bits(NamedTuple):
  """total: Estimate; of: what it bounds; per_image: (num,), of which it is the
  mean. Images are what was drawn, and the noise on them."""

  total: estimates.Estimate
  of: str
  per_image: np.ndarray


def _check_lattice(x, width):
  """Refuses data that do not lie `width` apart, as 2/255 for 2/256 would."""
  place = (x - x.reshape(-1)[0]) / width
  off = float(np.abs(place - np.round(place)).max())
  if off > 0.02:
    raise ValueError(
      f"width must be the distance of neighbouring values, 2/255 for k/127.5 - "
      f"1, but x lies up to {off:.2g} of {width:.6g} beside that lattice"
    )


def _mean_over_draws(one, x, cond, key, num_draws, batch_size):
  """(num,) means of one(x, cond, keys) over draws; image i has its own keys."""
  found = []
  for s in sets.slices(len(x), batch_size):
    here = jax.tree.map(lambda c, s=s: c[s], cond)
    keys = noise.keys(key, s.start, s.stop - s.start)
    again = lambda r, keys=keys: jax.vmap(jax.random.fold_in, (0, None))(
      keys, r
    )
    draws = [one(jnp.asarray(x[s]), here, again(r)) for r in range(num_draws)]
    found.append(np.mean(np.asarray(draws, np.float64), axis=0))
  return np.concatenate(found)


def _bits(nats, shape, of):
  per_image = nats / (math.prod(shape) * math.log(2.0))
  return Bits(estimates.mean(per_image), of, per_image)


def _drawn(draw, keys, x):
  """Noise of x's shape, one draw a key."""
  return jax.vmap(lambda key: draw(key, x.shape[1:], x.dtype))(keys)


@ranges.checked(
  width="> 0",
  num_importance="an integer >= 1",
  num_draws="an integer >= 1",
  batch_size="an integer >= 1",
)
def uniform_bits(
  log_density,
  x,
  width,
  key,
  *,
  cond=None,
  num_importance=1,
  num_draws=1,
  batch_size=256,
):
  """Eq. (1), or (2) with num_importance K > 1, whose excess is about 1/K of it.

  The excess of (1) is width²/24 times the Fisher information, nats a dimension.
  The K weights are of whole images, so of large ones (2) gains little. With
  Hutchinson's estimate in log p, (2) is biased, downwards: use the exact trace.

  Args:
    log_density: (y (batch, ...), cond) -> log p(y) in nats, (batch,).
    x: (num, ...) floats, discrete data as the network sees them.
    width: distance of neighbouring values: 2/255 for k/127.5 - 1.
    key: PRNG key; the noise of image i is a function of it and i.
    cond: None or leading axis num.
    num_draws: of the noise, for each image; batch_size: images at a time.
  Returns:
    Bits.
  Raises:
    ValueError: x that does not lie on a lattice of that width.
  """
  x = np.asarray(x)
  _check_lattice(x, width)
  size = math.prod(x.shape[1:])
  draw = lambda key, shape, dtype: jax.random.uniform(
    key, shape, dtype, -width / 2, width / 2
  )

  def one(x, cond, keys):
    split = jax.vmap(lambda key: jax.random.split(key, num_importance))(keys)
    each = [
      log_density(x + _drawn(draw, split[:, k], x), cond)
      for k in range(num_importance)
    ]
    together = jax.nn.logsumexp(jnp.stack(each), axis=0)
    return math.log(num_importance) - together - size * math.log(width)

  nats = _mean_over_draws(one, x, cond, key, num_draws, batch_size)
  return _bits(nats, x.shape[1:], ROUNDED)


@ranges.checked(
  width="> 0",
  std="> 0",
  num_draws="an integer >= 1",
  batch_size="an integer >= 1",
)
def truncated_normal_bits(
  log_density, x, width, std, key, *, cond=None, num_draws=1, batch_size=256
):
  """Eq. (3): noise of a normal of `std`, cut off at the borders of the bin.

  For a comb of that std, a model that knows the values, the excess is all but
  none; for a density that is smooth over a bin it is more than (1)'s.

  Args:
    std: sigma/alpha of the level that p is the density of, for a flow.
    others as of `uniform_bits`.
  """
  x = np.asarray(x)
  _check_lattice(x, width)
  cut = width / (2.0 * std)
  mass = special.erf(cut / math.sqrt(2.0))
  normal = math.exp(-0.5 * cut**2) / math.sqrt(2.0 * math.pi)
  entropy = math.log(math.sqrt(2.0 * math.pi * math.e) * std * mass)
  entropy = math.prod(x.shape[1:]) * (entropy - cut * normal / mass)
  draw = lambda key, shape, dtype: (
    std * jax.random.truncated_normal(key, -cut, cut, shape, dtype)
  )

  def one(x, cond, keys):
    return -log_density(x + _drawn(draw, keys, x), cond) - entropy

  nats = _mean_over_draws(one, x, cond, key, num_draws, batch_size)
  return _bits(nats, x.shape[1:], ROUNDED)


@ranges.checked(
  std="> 0", num_draws="an integer >= 1", batch_size="an integer >= 1"
)
def decoder_bits(
  log_density, x, values, std, key, *, cond=None, num_draws=1, batch_size=256
):
  """Eq. (4): any noise of `std`, undone by VDM's decoder.

  Args:
    values: (K,) what an entry of x can be; others as of `uniform_bits`.
    std: sigma/alpha of the level that p is the density of, for a flow.
  """
  x, values = np.asarray(x), jnp.asarray(values)
  lv = levels.from_pair(1.0, std)
  entropy = math.prod(x.shape[1:]) * math.log(
    math.sqrt(2.0 * math.pi * math.e) * std
  )

  def one(x, cond, keys):
    y = x + std * _drawn(jax.random.normal, keys, x)
    decoded = decoder_log_prob(x, y, lv, values)
    return -log_density(y, cond) - decoded - entropy

  nats = _mean_over_draws(one, x, cond, key, num_draws, batch_size)
  return _bits(nats, x.shape[1:], DECODED)


def flow_density(predict, lv, **settings):
  """The log density of y = z/alpha at a level, by the probability-flow ODE.

  Args:
    predict: (z, lv, cond) -> (x̂, ε̂), without guidance.
    lv: Level () with 0 < sigma: where the flow stops. Its std is sigma/alpha.
    settings: of `adaptive.log_likelihood`: rtol, atol, key, num_probes, end.
  Returns:
    (y (batch, ...), cond) -> (batch,) nats, for the functions above.
  Raises:
    ValueError: sigma or alpha that is not above 0.
  """
  std = float(lv.sigma) / float(lv.alpha) if float(lv.alpha) > 0 else math.inf
  if not 0.0 < std < math.inf:
    raise ValueError(
      "lv must be a level with alpha > 0 and sigma > 0, for the density of z "
      f"there, not alpha {float(lv.alpha):g} and sigma {float(lv.sigma):g}"
    )
  start = levels.from_pair(1.0, std)
  return lambda y, cond: log_likelihood(
    predict, y, cond=cond, start=start, **settings
  )[0]
