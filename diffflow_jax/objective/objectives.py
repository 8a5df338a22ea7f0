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

import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities
from diffflow_jax.objective.objective import (
  Objective,
  on_schedule,
  plain_mse,
  predictor,
)
from diffflow_jax.objective.weighting import Sigmoid, elbo
from diffflow_jax.process import levels, ranges, schedules, targets
from diffflow_jax.process.names import make_from

__all__ = [
  "OBJECTIVES",
  "Objective",
  "ddpm",
  "edm",
  "flow_matching",
  "iddpm",
  "make",
  "name_of",
  "on_schedule",
  "predictor",
  "rectified_flow",
  "sd3",
  "sid2",
  "simple_diffusion",
  "stochastic_interpolant",
  "v_diffusion",
  "vdm",
  "ve",
  "vp_sde",
]


def ddpm(num=1000, beta_start=1e-4, beta_end=0.02):
  """DDPM: L_simple on the linear beta table, by a network that predicts eps.

  Ho et al., arXiv:2006.11239 eq. 14, Table 2's last row; betas of §4. The table
  of betas is read on continuous time.

  Equation (implied) of docs/math.
  """
  table = schedules.ddpm_table(num, beta_start, beta_end)
  return plain_mse(table, targets.eps, levels.vp)


def iddpm(num=4000, offset=0.008):
  """Improved DDPM: L_simple on the clipped cosine table.

  Nichol & Dhariwal, arXiv:2102.09672 eq. 17 and Table 1, which trains T = 4000;
  the learned variances of their L_hybrid are not part of it.

  Equation (implied) of docs/math.
  """
  return plain_mse(schedules.iddpm_table(num, offset), targets.eps, levels.vp)


def ve(sigma_min=0.01, sigma_max=50.0):
  """NCSN and the VE SDE: sigma² times the score-MSE, which is the eps-MSE.

  Song & Ermon, arXiv:1907.05600 eq. 6 with lambda = sigma²; Song et al.,
  arXiv:2011.13456 Table 3 "VE" and app. C. Their output is sigma times the
  score: -eps.

  Equation (implied) of docs/math.
  """
  schedule = schedules.Geometric(sigma_min, sigma_max)
  return plain_mse(schedule, targets.eps, levels.ve)


def vp_sde(beta_min=0.1, beta_max=20.0):
  """The VP SDE: sigma² times the score-MSE on linear beta(t).

  Song et al., arXiv:2011.13456 eq. 7 and 33, Table 3 "VP".

  Equation (implied) of docs/math.
  """
  schedule = schedules.VPLinear(beta_min, beta_max)
  return plain_mse(schedule, targets.eps, levels.vp)


def vdm(logsnr_min=-5.0, logsnr_max=13.3):
  """Variational diffusion: the ELBO on a linear log-SNR, w = 1.

  Kingma et al., arXiv:2107.00630 §4; a `Learned` schedule in its place
  changes the variance alone.

  Equation (bound) of docs/math.
  """
  schedule = schedules.check(schedules.LinearLogSNR(logsnr_min, logsnr_max))
  return Objective(
    schedule,
    densities.UniformTime(schedule),
    elbo,
    targets.eps,
    levels.vp,
  )


def v_diffusion():
  """v-prediction on the cosine schedule, v-MSE: SNR + 1 on the x-MSE.

  Salimans & Ho, arXiv:2202.00512 §4, Table 1 and app. D, the teacher of
  progressive distillation. w = (2/π) exp(-logsnr/2), flow matching's up to the
  constant.

  Equation (implied) of docs/math.
  """
  return plain_mse(schedules.Cosine(), targets.v, levels.vp)


@ranges.checked(sigma_data="> 0", p_std="> 0")
def edm(sigma_data=0.5, p_mean=-1.2, p_std=1.2):
  """EDM: log-normal noise levels, preconditioned network, its plain MSE.

  Karras et al., arXiv:2206.00364 eq. 8 and Table 1.

  Equation (implied) of docs/math.
  """
  return plain_mse(
    schedules.Karras(),
    targets.F(sigma_data),
    levels.Unit(sigma_data),
    density=densities.log_normal(p_mean, p_std),
  )


@ranges.checked(sigma_min="in [0, 1)")
def flow_matching(sigma_min=0.0):
  """Conditional flow matching on straight lines, t uniform, u-MSE.

  Lipman et al., arXiv:2210.02747 eq. 23, Table 1 "FM w/ OT"; w =
  exp(-logsnr/2) for sigma_min = 0.

  Equation (implied) of docs/math.
  """
  return plain_mse(
    schedules.Flow(sigma_min), targets.u, levels.CondOT(sigma_min)
  )


def rectified_flow():
  """Rectified flow: the same straight lines, arXiv:2209.03003 eq. 1.

  Their X_0 is noise and X_1 data; the first flow is `flow_matching()`.
  """
  return flow_matching()


def stochastic_interpolant():
  """The trigonometric interpolant, t uniform, MSE of its velocity.

  Albergo & Vanden-Eijnden, arXiv:2209.15571 §2; SiT's "GVP",
  arXiv:2401.08740 §2. w = (π/2) exp(-logsnr/2).

  Equation (implied) of docs/math.
  """
  return plain_mse(schedules.Cosine(), targets.u, levels.vp)


@ranges.checked(std="> 0", shift="> 0")
def sd3(mean=0.0, std=1.0, shift=1.0):
  """Stable Diffusion 3: logit-normal times, MSE of eps - x.

  Esser et al., arXiv:2403.03206 §3.1 eq. 19, "rf/lognorm(0.00, 1.00)" of Table
  1; shift = 3 at 1024² pixels, eq. 23, in training and in sampling.

  Equation (implied) of docs/math.
  """
  density = densities.logit_normal(mean, std, shift)
  schedule = schedules.Shift(schedules.Flow(), shift)
  return plain_mse(schedule, targets.flow, levels.linear, density=density)


def simple_diffusion(image_size=64, base_size=64):
  """simple diffusion: v-prediction, eps-MSE, cosine shifted to the resolution.

  Hoogeboom et al., arXiv:2301.11093 §3.1: logsnr in [-15, 15] before
  the shift of 2 log(base_size/image_size).

  Equation (implied) of docs/math.
  """
  schedule = schedules.shifted_cosine(image_size, base_size)
  return plain_mse(schedule, targets.v, levels.vp, loss_target=targets.eps)


@ranges.checked(image_size="> 0", noise_low="> 0", noise_high="> 0")
def sid2(image_size=512, bias=-3.0, noise_low=32, noise_high=256):
  """Simpler diffusion: the sigmoid loss on an interpolated shifted cosine.

  Hoogeboom et al., arXiv:2410.19324 eq. 4: w = sigmoid(bias - logsnr), whatever
  the schedule; the interpolation is arXiv:2301.11093's.

  Equation (weighted) of docs/math.
  """
  schedule = schedules.interpolated_cosine(image_size, noise_low, noise_high)
  return Objective(
    schedules.check(schedule),
    densities.UniformTime(schedule),
    Sigmoid(bias),
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


def name_of(objective):
  """The recipe that an objective is, whatever its numbers, or None."""
  shapes = lambda o: [jnp.shape(leaf) for leaf in jax.tree.leaves(o)]
  alike = {}
  for name, recipe in OBJECTIVES.items():
    if jax.tree.structure(recipe()) == jax.tree.structure(objective):
      alike.setdefault(shapes(recipe()) == shapes(objective), name)
  return alike.get(True, alike.get(False))


def make(name, **kwargs):
  """The Objective of a recipe's name: make("edm", sigma_data=0.7).

  Raises:
    ValueError: unknown name or argument, or a value out of its range.
  """
  return make_from(OBJECTIVES, "objective", name, kwargs)
