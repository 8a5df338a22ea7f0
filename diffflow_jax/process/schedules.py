"""Schedules: how the noise level falls with time, t = 0 data, t = 1 noise.

How large z is (alpha² + sigma² = 1, alpha = 1, ...) is not the schedule's
business: `levels` normalises the pair. Write your own with `schedule`, and see
`process.schedule` for the contract.
"""

import jax

from diffflow_jax.process import ranges
from diffflow_jax.process.cosine_schedules import (
  Cosine,
  OffsetCosine,
  TruncatedCosine,
)
from diffflow_jax.process.flow_schedules import Flow, Mode, Polynomial
from diffflow_jax.process.learned import Learned, learned
from diffflow_jax.process.names import make_from
from diffflow_jax.process.schedule import (
  check,
  pair_logsnr,
  schedule,
  unit_pair,
)
from diffflow_jax.process.schedule_transforms import (
  InterpolatedShift,
  Shift,
  ZeroTerminal,
)
from diffflow_jax.process.tables import (
  Table,
  beta_table,
  ddpm_table,
  iddpm_table,
  scaled_linear_table,
)
from diffflow_jax.process.ve_schedules import Geometric, Karras, LogNormal
from diffflow_jax.process.vp_schedules import (
  LinearLogSNR,
  Sigmoid,
  SubVP,
  VPLinear,
)

__all__ = [
  "Cosine",
  "Flow",
  "Geometric",
  "InterpolatedShift",
  "Karras",
  "Learned",
  "LinearLogSNR",
  "LogNormal",
  "Mode",
  "OffsetCosine",
  "Polynomial",
  "SCHEDULES",
  "Shift",
  "Sigmoid",
  "SubVP",
  "Table",
  "TruncatedCosine",
  "VPLinear",
  "ZeroTerminal",
  "beta_table",
  "check",
  "ddpm_table",
  "iddpm_table",
  "interpolated_cosine",
  "learned",
  "make",
  "pair_logsnr",
  "scaled_linear_table",
  "schedule",
  "shift",
  "shifted_cosine",
  "unit_pair",
  "zero_terminal",
]


def _named(base):
  base = make(base) if isinstance(base, str) else base
  if not hasattr(base, "pair"):
    raise ValueError(
      f"base must be a schedule or the name of one, not {base!r}"
    )
  return base


def shift(base="flow", factor=1.0):
  """`Shift` of a schedule or of a name: SD3's is shift("flow", 3.0)."""
  return Shift(_named(base), factor)


def zero_terminal(base="ddpm_table"):
  """`ZeroTerminal` of a schedule or of a name."""
  return ZeroTerminal(_named(base))


@ranges.checked(image_size="> 0", base_size="> 0")
def shifted_cosine(image_size=64, base_size=64):
  """logsnr of `TruncatedCosine` + 2 log(base_size/image_size).

  Hoogeboom et al., arXiv:2301.11093 §3.1: sides of images in pixels.
  """
  return Shift(TruncatedCosine(), image_size / base_size)


@ranges.checked(image_size="> 0", noise_low="> 0", noise_high="> 0")
def interpolated_cosine(image_size=512, noise_low=32, noise_high=256):
  """`TruncatedCosine` shifted from side noise_high at the data to noise_low.

  Hoogeboom et al., arXiv:2301.11093, "interpolated".
  """
  return InterpolatedShift(
    TruncatedCosine(),
    clean=image_size / noise_high,
    noisy=image_size / noise_low,
  )


@ranges.checked(seed="an integer >= 0", num_hidden="an integer >= 1")
def _learned_by_seed(seed=0, num_hidden=64, logsnr_min=-5.0, logsnr_max=13.3):
  """`learned` with a seed in place of a key."""
  return learned(jax.random.key(seed), num_hidden, logsnr_min, logsnr_max)


# name -> factory of plain numbers and, for `base`, another name
SCHEDULES = {
  "vp_linear": VPLinear,
  "sub_vp": SubVP,
  "ddpm_table": ddpm_table,
  "scaled_linear_table": scaled_linear_table,
  "iddpm_table": iddpm_table,
  "offset_cosine": OffsetCosine,
  "cosine": Cosine,
  "truncated_cosine": TruncatedCosine,
  "sigmoid": Sigmoid,
  "linear_logsnr": LinearLogSNR,
  "geometric": Geometric,
  "karras": Karras,
  "log_normal": LogNormal,
  "flow": Flow,
  "polynomial": Polynomial,
  "mode": Mode,
  "shift": shift,
  "shifted_cosine": shifted_cosine,
  "interpolated_cosine": interpolated_cosine,
  "zero_terminal": zero_terminal,
  "learned": _learned_by_seed,
}


def make(name, **kwargs):
  """The schedule of a name, checked: make("karras", rho=5.0).

  Raises:
    ValueError: unknown name or argument, or values that are no schedule.
  """
  return check(make_from(SCHEDULES, "schedule", name, kwargs))
