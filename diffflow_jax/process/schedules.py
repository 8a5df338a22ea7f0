"""Schedules: how the noise level falls with time, t = 0 data, t = 1 noise.

How large z is (alpha² + sigma² = 1, alpha = 1, ...) is not the schedule's
business: `levels` normalises the pair. Write your own with `schedule`, and see
`process.schedule` for the contract.
"""

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
  Cosine,
  LinearLogSNR,
  OffsetCosine,
  Sigmoid,
  SubVP,
  TruncatedCosine,
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
  "learned",
  "make",
  "pair_logsnr",
  "scaled_linear_table",
  "schedule",
  "unit_pair",
]

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
}


def make(name, **kwargs):
  """The schedule of a name, checked: make("karras", rho=5.0).

  Raises:
    ValueError: unknown name or argument, or values that are no schedule.
  """
  return check(make_from(SCHEDULES, "schedule", name, kwargs))
