"""Objectives: the named recipes, each one row of independent choices.

recipe             output  scale    levels drawn                 minimises
ddpm               eps     vp       t uniform, beta table        eps-MSE
iddpm              eps     vp       t uniform, clipped cosine    eps-MSE
ncsn, ve           eps     ve       t uniform, Geometric         eps-MSE
vp_sde             eps     vp       t uniform, VPLinear          eps-MSE
vdm                eps     vp       logsnr uniform               ELBO
v_diffusion        v       vp       t uniform, Cosine            v-MSE
edm                F       Unit     log-normal sigma             F-MSE
flow_matching      u       linear   t uniform, Flow              u-MSE
rectified_flow     u       linear   t uniform, Flow              u-MSE
stoch._interpolant u       vp       t uniform, Cosine            u-MSE
sd3                flow    linear   logit-normal t               flow-MSE
simple_diffusion   v       vp       t uniform, shifted cosine    eps-MSE
sid2               v       vp       t uniform, interpolated      sigmoid
"""

from collections.abc import Callable
from typing import Any

from flax import struct

from diffflow_jax.objective import densities, weightings
from diffflow_jax.process import levels, schedules, targets
from diffflow_jax.process.names import make_from
from diffflow_jax.process.predictors import Predictor


@struct.dataclass
class Objective:
  """What a network learns, and on which scale it sees its input.

  Attributes:
    schedule: the clock (for target u) and the levels that sampling walks over.
    density: how training draws levels, p(logsnr).
    weighting: logsnr -> log w, what is minimised.
    target: row of the network's output; scale: of its input.
  """

  schedule: Any
  density: Any
  weighting: Any
  target: Callable = struct.field(pytree_node=False)
  scale: Callable = struct.field(pytree_node=False)


def predictor(objective, apply, params):
  """The Predictor of a network that was trained on an objective."""
  return Predictor(
    params, objective.schedule, apply, objective.target, objective.scale
  )


def _mse(schedule, target, scale, *, loss_target=None, density=None):
  """Draw levels from the density and take the MSE of loss_target."""
  schedules.check(schedule)
  density = densities.UniformTime(schedule) if density is None else density
  loss_target = target if loss_target is None else loss_target
  weighting = weightings.TargetMSE(schedule, density, loss_target, scale)
  return Objective(schedule, density, weighting, target, scale)


def ddpm(num=1000, beta_start=1e-4, beta_end=0.02):
  """DDPM: L_simple on the linear beta table, by a network that predicts eps.

  Ho et al., arXiv:2006.11239 eq. 14 and §4. The table is read on continuous
  time.
  """
  table = schedules.ddpm_table(num, beta_start, beta_end)
  return _mse(table, targets.eps, levels.vp)


def iddpm(num=1000, offset=0.008):
  """Improved DDPM: L_simple on the clipped cosine table.

  Nichol & Dhariwal, arXiv:2102.09672 eq. 17; the learned variances of their
  L_hybrid are not part of it.
  """
  return _mse(schedules.iddpm_table(num, offset), targets.eps, levels.vp)


def ve(sigma_min=0.01, sigma_max=50.0):
  """NCSN and the VE SDE: sigma² times the score-MSE, which is the eps-MSE.

  Song & Ermon, arXiv:1907.05600 eq. 6 with lambda = sigma²; Song et al.,
  arXiv:2011.13456 app. C. Their output is sigma times the score: -eps.
  """
  schedule = schedules.Geometric(sigma_min, sigma_max)
  return _mse(schedule, targets.eps, levels.ve)


def vp_sde(beta_min=0.1, beta_max=20.0):
  """The VP SDE: sigma² times the score-MSE on linear beta(t).

  Song et al., arXiv:2011.13456 eq. 7 and 33.
  """
  schedule = schedules.VPLinear(beta_min, beta_max)
  return _mse(schedule, targets.eps, levels.vp)


def vdm(logsnr_min=-5.0, logsnr_max=13.3):
  """Variational diffusion: the ELBO on a linear log-SNR, w = 1.

  Kingma et al., arXiv:2107.00630 eq. 17; a `Learned` schedule in its place
  changes the variance alone.
  """
  schedule = schedules.check(schedules.LinearLogSNR(logsnr_min, logsnr_max))
  return Objective(
    schedule,
    densities.UniformTime(schedule),
    weightings.elbo,
    targets.eps,
    levels.vp,
  )


def v_diffusion():
  """v-prediction on the cosine schedule, v-MSE: SNR + 1 on the x-MSE.

  Salimans & Ho, arXiv:2202.00512 §4 and app. D (progressive distillation's
  teacher). w = (2/π) exp(-logsnr/2), flow matching's up to the constant.
  """
  return _mse(schedules.Cosine(), targets.v, levels.vp)


def edm(sigma_data=0.5, p_mean=-1.2, p_std=1.2):
  """EDM: log-normal noise levels, preconditioned network, its plain MSE.

  Karras et al., arXiv:2206.00364 eq. 8 and Table 1.
  """
  if not sigma_data > 0:
    raise ValueError(f"sigma_data must be above 0, not {sigma_data}")
  return _mse(
    schedules.Karras(),
    targets.F(sigma_data),
    levels.Unit(sigma_data),
    density=densities.log_normal(p_mean, p_std),
  )


def flow_matching(sigma_min=0.0):
  """Conditional flow matching on straight lines, t uniform, u-MSE.

  Lipman et al., arXiv:2210.02747 eq. 23; w = exp(-logsnr/2) for sigma_min = 0.
  """
  if not 0.0 <= sigma_min < 1.0:
    raise ValueError(f"sigma_min must be in [0, 1), not {sigma_min}")
  scale = levels.CondOT(sigma_min) if sigma_min else levels.linear
  return _mse(schedules.Flow(sigma_min), targets.u, scale)


def rectified_flow():
  """Rectified flow: the same straight lines, arXiv:2209.03003 eq. 1.

  Their X_0 is noise and X_1 data; the first flow is `flow_matching()`.
  """
  return flow_matching()


def stochastic_interpolant():
  """The trigonometric interpolant, t uniform, MSE of its velocity.

  Albergo & Vanden-Eijnden, arXiv:2209.15571 §2; SiT's "GVP",
  arXiv:2401.08740 §2. w = (π/2) exp(-logsnr/2).
  """
  return _mse(schedules.Cosine(), targets.u, levels.vp)


def sd3(mean=0.0, std=1.0, shift=1.0):
  """Stable Diffusion 3: logit-normal times, MSE of eps - x.

  Esser et al., arXiv:2403.03206 §3.1 eq. 19, "rf/lognorm(0.00, 1.00)" of Table
  1; shift = 3 at 1024² pixels, eq. 23, in training and in sampling.
  """
  density = densities.logit_normal(mean, std, shift)
  schedule = schedules.Shift(schedules.Flow(), shift)
  return _mse(schedule, targets.flow, levels.linear, density=density)


def _resolution(image_size, base_size):
  for name, size in (("image_size", image_size), ("base_size", base_size)):
    if not size > 0:
      raise ValueError(f"{name} must be above 0, not {size}")
  return image_size / base_size


def simple_diffusion(image_size=64, base_size=64):
  """simple diffusion: v-prediction, eps-MSE, cosine shifted to the resolution.

  Hoogeboom et al., arXiv:2301.11093 §3.1 and app. A: logsnr in [-15, 15] before
  the shift of 2 log(base_size/image_size).
  """
  factor = _resolution(image_size, base_size)
  schedule = schedules.Shift(schedules.TruncatedCosine(), factor)
  return _mse(schedule, targets.v, levels.vp, loss_target=targets.eps)


def sid2(image_size=512, bias=-3.0, noise_low=32, noise_high=256):
  """Simpler diffusion: the sigmoid loss on an interpolated shifted cosine.

  Hoogeboom et al., arXiv:2410.19324 eq. 4: w = sigmoid(bias - logsnr), whatever
  the schedule; the interpolation is arXiv:2301.11093 app. A.
  """
  schedule = schedules.InterpolatedShift(
    schedules.TruncatedCosine(),
    clean=_resolution(image_size, noise_high),
    noisy=_resolution(image_size, noise_low),
  )
  return Objective(
    schedules.check(schedule),
    densities.UniformTime(schedule),
    weightings.Sigmoid(bias),
    targets.v,
    levels.vp,
  )


OBJECTIVES = {
  "ddpm": ddpm,
  "iddpm": iddpm,
  "ncsn": ve,
  "ve": ve,
  "vp_sde": vp_sde,
  "vdm": vdm,
  "v_diffusion": v_diffusion,
  "edm": edm,
  "flow_matching": flow_matching,
  "rectified_flow": rectified_flow,
  "stochastic_interpolant": stochastic_interpolant,
  "sd3": sd3,
  "simple_diffusion": simple_diffusion,
  "sid2": sid2,
}


def make(name, **kwargs):
  """The Objective of a recipe's name: make("edm", sigma_data=0.7).

  Raises:
    ValueError: unknown name or argument, or a value out of its range.
  """
  return make_from(OBJECTIVES, "objective", name, kwargs)
