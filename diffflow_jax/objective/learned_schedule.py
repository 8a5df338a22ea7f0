"""The gradient of a learned schedule, VDM, arXiv:2107.00630 §5.3.

    -log p(x) <= prior(λ_1) + E_u L(u) + reconstruction(λ_0)         eq. 11
    L = ½ |dλ/du| ‖eps - ε̂(z; λ(u))‖²,   u uniform in (0, 1)         eq. 17

λ_0 and λ_1 are the schedule's ends, `logsnr_max` and `logsnr_min`. E L is an
integral over λ, so that what lies between the ends does not move it. Three
gradients are taken:

    network            of E L, as ever
    the ends           of the whole bound, prior and reconstruction included
    the inside         of E L², which is the variance of L plus a constant

All three by one backward pass: the schedule enters L through the levels λ_i and
the slopes of the examples alone, so that ∂L_i/∂λ_i and ∂L_i/∂slope_i are pulled
back twice, as they are for the ends, and times 2 L_i for the inside. As all
losses here, these are means over the d dimensions.
"""

from flax import struct
import jax
import jax.numpy as jnp

from diffflow_jax.objective import bound, densities, losses
from diffflow_jax.objective.weighting import ELBO
from diffflow_jax.process import levels
from diffflow_jax.process.learned import Learned

ENDS = ("logsnr_min", "logsnr_max")


@struct.dataclass
class Drawn:
  """The density at levels that were drawn from it, already known."""

  log_p: jax.Array

  def log_prob(self, logsnr):
    return self.log_p


def check(objective):
  """Refuses an objective whose learned schedule could not be trained.

  Raises:
    ValueError: levels are not drawn uniformly in the schedule's time, what is
      minimised is not the bound, the output's meaning would move with the
      schedule, or another schedule is made of the learned one.
  """
  schedule, density = objective.schedule, objective.density
  if not isinstance(schedule, Learned):
    is_learned = lambda node: isinstance(node, Learned)
    if any(map(is_learned, jax.tree.leaves(schedule, is_leaf=is_learned))):
      raise ValueError(
        f"{type(schedule).__name__} of a learned schedule is not trained: take "
        "schedule=learned itself, whose logsnr_min and logsnr_max say its ends"
      )
    return
  uniform = isinstance(density, densities.UniformTime)
  if not (uniform and density.schedule is schedule):
    raise ValueError(
      "a learned schedule is trained by levels that are uniform in its time, "
      f"and this recipe draws them from another density, {density!r:.60}: take "
      "the recipe vdm, or density=uniform_time"
    )
  if not isinstance(objective.weighting, ELBO):
    raise ValueError(
      "a learned schedule is trained on the variational bound, so the "
      f"weighting must be elbo, not {type(objective.weighting).__name__}: take "
      "the recipe vdm, or weighting=elbo"
    )
  try:
    objective.target(levels.at_logsnr(objective.scale, jnp.zeros(())))
  except (ValueError, TypeError) as error:
    raise ValueError(
      "the velocity of a learned schedule, target u, changes its meaning while "
      "the schedule is trained: take target eps, v, x or flow"
    ) from error


def gradient(objective, apply, params, x, u, eps, cond=None, values=None):
  """The gradient of network and schedule at times u, and the Terms there.

  Args:
    objective: one that `check` passes; apply: (params, z, logsnr, cond) -> ŷ.
    params: the network's, and the schedule's fields, as arrays, under
      params["objective"]["schedule"].
    x: (batch, ...) data; u: (batch,) times; eps: like x.
    values: (K,) what an entry of x can be, for VDM's decoder (`bound`); None
      for data of a density, which is decoded by p(x | z_0) = N(z_0/alpha,
      sigma²/alpha²): its bound falls, if by less and less, as `logsnr_max`
      grows.
  Returns:
    (gradient like params, Terms of the network's loss).
  """
  learned = params["objective"]["schedule"]

  def drawn(learned):
    schedule = objective.schedule.replace(**learned)
    logsnr, slope = jax.jvp(schedule.logsnr, (u,), (jnp.ones_like(u),))
    ends = (learned[end] + jnp.zeros_like(u) for end in ENDS)
    return logsnr, -jnp.log(-slope), *ends

  def loss(params, logsnr, log_p):
    # no clock: no target that passes `check` asks for one
    now = objective.replace(density=Drawn(log_p), schedule=None)
    terms = losses.terms_at(now, apply, params, x, logsnr, eps, cond)
    return terms.loss.mean(), terms

  at, pull = jax.vjp(drawn, learned)
  one_pass = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)
  (grads, *by_level), terms = one_pass(params, *at[:2])
  at_ends = _slopes_at_ends(learned, x, eps, values)
  (of_bound,) = pull((*by_level, *at_ends))
  twice = (2.0 * terms.loss * slope for slope in by_level)
  (of_square,) = pull((*twice, *map(jnp.zeros_like, at_ends)))
  schedule = of_square | {end: of_bound[end] for end in ENDS}
  return {**grads, "objective": {"schedule": schedule}}, terms


def _slopes_at_ends(learned, x, eps, values):
  """(batch,) parts of d/dλ_1 of the prior term, d/dλ_0 of the reconstruction.

  Forward mode, so that nothing of the size batch x K is kept.
  """
  at = lambda logsnr: levels.at_logsnr(levels.vp, logsnr)
  prior = lambda logsnr: bound.prior_kl(x, at(logsnr))

  def reconstruction(logsnr):
    if values is None:
      return bound.gaussian_decoder(eps, logsnr)
    z_0 = levels.add_noise(x, eps, at(logsnr))
    return -bound.decoder_log_prob(x, z_0, at(logsnr), values)

  def slope(term, end):
    each = jax.jvp(term, (learned[end],), (jnp.ones_like(learned[end]),))[1]
    return each / x.size  # of the mean over the batch and the dimensions

  return tuple(map(slope, (prior, reconstruction), ENDS))
