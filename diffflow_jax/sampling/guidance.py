"""Guidance: wrappers of predict, with their numbers as data.

Each wrapper keeps the contract (z, lv, cond) -> (x̂, ε̂), so they nest: threshold
the guided prediction, guide a thresholded one. All work in x̂ and ε̂, which do
not depend on what the network predicts or on the scale.
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.process.levels import bcast


def with_x(x_hat_new, x_hat, eps_hat, lv):
  """(x̂', ε̂') on the same state: ε̂' = ε̂ - (alpha/sigma) (x̂' - x̂).

  At sigma = 0 there is no noise to predict, and ε̂ stays.
  """
  noisy = lv.sigma > 0
  ratio = jnp.where(noisy, lv.alpha / jnp.where(noisy, lv.sigma, 1.0), 0.0)
  shift = bcast(ratio, x_hat) * (x_hat_new - x_hat)
  return x_hat_new, eps_hat - shift


def _both(predict, z, lv, cond, null):
  """predict under cond and under null, as one batch of twice the size."""
  twice = lambda a, b: jnp.concatenate([a, b])
  per_sample = lambda c: twice(c, c) if jnp.ndim(c) else c
  out = predict(
    twice(z, z),
    jax.tree.map(per_sample, lv),
    jax.tree.map(twice, jax.tree.map(jnp.asarray, cond), null),
  )
  given, none = zip(*(jnp.split(y, 2) for y in out), strict=True)
  return given, none


@struct.dataclass
class Guided:
  """Classifier-free guidance, arXiv:2207.12598 eq. 6 with w = 1 + theirs.

      x̂ = x̂_null + w (x̂_cond - x̂_null),   the same for ε̂

  The maps between targets are affine and the weights sum to 1, so this is the
  same whatever the network predicts and whatever the scale.

  Attributes:
    predict: what is guided.
    null: the reference's condition, as one entry of cond or all of it, a pytree
      like it: the one that means none, or a negative one.
    strength: w; 1 is off, 0 the reference. A number or (batch,).
    interval: (lo, hi) logsnr inside which w holds; outside it is 1
      (arXiv:2404.07724: sigma/alpha in (e^{-hi/2}, e^{-lo/2}]).
    rescale: φ in [0, 1]; x̂ <- φ x̂ std(x̂_cond)/std(x̂) + (1-φ) x̂, standard
      deviations over a sample (arXiv:2305.08891 eq. 15-16, here in x̂, which
      does not depend on the network's target).
    weak: a weaker predictor as the reference, under the same cond
      (autoguidance, arXiv:2406.02507); null is then not used.
    batched: both branches as one batch, or as two calls in half the memory.
    plus_plus: CFG++ (arXiv:2406.08070): w in [0, 1] on x̂, and the reference's
      own ε̂; for `ddim`, which renoises with ε̂ as it comes.
  """

  predict: Any
  null: Any = None
  strength: Any = 1.0
  interval: Any = (-jnp.inf, jnp.inf)
  rescale: Any = 0.0
  weak: Any = None
  batched: bool = struct.field(pytree_node=False, default=True)
  plus_plus: bool = struct.field(pytree_node=False, default=False)

  def _branches(self, z, lv, cond):
    if self.weak is not None:
      return self.predict(z, lv, cond), self.weak(z, lv, cond)
    null = jax.tree.map(
      lambda n, c: jnp.broadcast_to(
        jnp.asarray(n, jnp.asarray(c).dtype), jnp.shape(c)
      ),
      self.null,
      cond,
    )
    if self.batched:
      return _both(self.predict, z, lv, cond, null)
    return self.predict(z, lv, cond), self.predict(z, lv, null)

  def __call__(self, z, lv, cond=None):
    given, none = self._branches(z, lv, cond)
    lo, hi = self.interval
    inside = (lv.logsnr >= lo) & (lv.logsnr < hi)
    w = jnp.where(inside, jnp.asarray(self.strength), 1.0).astype(z.dtype)
    mix = lambda c, n: n + bcast(w, z) * (c - n)
    x_hat, eps_hat = (mix(c, n) for c, n in zip(given, none, strict=True))
    axes = tuple(range(1, z.ndim))
    spread = lambda y: jnp.std(y, axis=axes, keepdims=True)
    wide = spread(x_hat)
    factor = jnp.where(
      wide > 0, spread(given[0]) / jnp.where(wide > 0, wide, 1.0), 1.0
    )
    phi = bcast(jnp.asarray(self.rescale, z.dtype), z)
    x_hat, eps_hat = with_x(
      x_hat * (1.0 + phi * (factor - 1.0)), x_hat, eps_hat, lv
    )
    return x_hat, none[1] if self.plus_plus else eps_hat


@struct.dataclass
class Clipped:
  """Static thresholding: x̂ clipped to [-limit, limit], ε̂ to match.

  arXiv:2006.11239's clip, arXiv:2205.11487 §2.3. Goes around guidance.
  """

  predict: Any
  limit: Any = 1.0

  def __call__(self, z, lv, cond=None):
    x_hat, eps_hat = self.predict(z, lv, cond)
    return with_x(jnp.clip(x_hat, -self.limit, self.limit), x_hat, eps_hat, lv)


@struct.dataclass
class DynamicallyClipped:
  """Dynamic thresholding, arXiv:2205.11487 §2.3: x̂ <- clip(x̂, -s, s) limit/s.

  s is the larger of limit and a sample's percentile of |x̂|.
  """

  predict: Any
  percentile: Any = 99.5
  limit: Any = 1.0

  def __call__(self, z, lv, cond=None):
    x_hat, eps_hat = self.predict(z, lv, cond)
    size = jnp.abs(x_hat).reshape(x_hat.shape[0], -1)
    s = jnp.maximum(jnp.percentile(size, self.percentile, axis=1), self.limit)
    s = bcast(s, x_hat)
    return with_x(jnp.clip(x_hat, -s, s) * (self.limit / s), x_hat, eps_hat, lv)


@struct.dataclass
class Replaced:
  """Inpainting by replacement: x̂ is the known data where mask is 1.

      x̂ <- mask known + (1 - mask) x̂,   ε̂ to match

  The projection of arXiv:2212.00490 (DDNM) for a mask; with a stochastic solver
  the known part of the state is the known data plus fresh noise.

  Attributes:
    predict: what is constrained; known, mask: broadcast to x̂.
  """

  predict: Any
  known: Any
  mask: Any

  def __call__(self, z, lv, cond=None):
    x_hat, eps_hat = self.predict(z, lv, cond)
    new = self.mask * self.known + (1.0 - self.mask) * x_hat
    return with_x(new, x_hat, eps_hat, lv)


@struct.dataclass
class Measured:
  """Posterior guidance for y = forward(x) + noise_std n, forward linear.

      x̂ <- x̂ + (sigma²/alpha) ∇_z log N(y; forward(x̂(z)), noise_std² + r²)
      r² = data_std² sigma²/(alpha² data_std² + sigma²)

  the variance of x given z if Var x = data_std² (arXiv:2305.04391 §3.3, with
  their r). Exact for Gaussian data if forward forwardᵀ = I, as for a mask or an
  average in an orthonormal basis. alpha = 0 adds nothing.

  Attributes:
    predict: what is guided; y: the measurement, leading axis batch.
    noise_std, data_std: as above.
    forward: x (batch, ...) -> (batch, ...), linear.
  """

  predict: Any
  y: Any
  noise_std: Any
  data_std: Any = 1.0
  forward: Callable = struct.field(pytree_node=False, default=lambda x: x)

  def __call__(self, z, lv, cond=None):
    a2, s2 = (lv.alpha * self.data_std) ** 2, lv.sigma**2
    var = self.noise_std**2 + self.data_std**2 * s2 / (a2 + s2)

    def measured(z):
      x_hat, eps_hat = self.predict(z, lv, cond)
      return self.forward(x_hat), (x_hat, eps_hat)

    got, pull, (x_hat, eps_hat) = jax.vjp(measured, z, has_aux=True)
    off = (self.y - got) / bcast(var, got)
    some = lv.alpha > 0
    gain = jnp.where(some, s2 / jnp.where(some, lv.alpha, 1.0), 0.0)
    (grad,) = pull(off.astype(got.dtype))
    return with_x(x_hat + bcast(gain, z) * grad, x_hat, eps_hat, lv)
