"""One table of each kind: a new entry inherits every property test."""

import jax
import numpy as np

from diffflow_jax.process import closed_form, levels, schedules, targets

_DDPM = schedules.ddpm_table()
SCHEDULES = {
  "vp_linear": schedules.VPLinear(),
  "sub_vp": schedules.SubVP(),
  "ddpm_table": _DDPM,
  "scaled_linear_table": schedules.scaled_linear_table(),
  "iddpm_table": schedules.iddpm_table(),
  "offset_cosine": schedules.OffsetCosine(),
  "cosine": schedules.Cosine(),
  "truncated_cosine": schedules.TruncatedCosine(),
  "shifted_cosine": schedules.Shift(schedules.TruncatedCosine(), 256 / 64),
  "interpolated": schedules.InterpolatedShift(
    schedules.TruncatedCosine(), 0.5, 4.0
  ),
  "sigmoid": schedules.Sigmoid(),
  "linear_logsnr": schedules.LinearLogSNR(),
  "geometric": schedules.Geometric(),
  "karras": schedules.Karras(),
  "log_normal": schedules.LogNormal(),
  "flow": schedules.Flow(),
  "flow_sigma_min": schedules.Flow(0.05),
  "sd3_shift": schedules.Shift(schedules.Flow(), 3.0),
  "polynomial": schedules.Polynomial(),
  "mode": schedules.Mode(),
  "learned": schedules.learned(jax.random.key(0), 8),
  "zero_terminal": schedules.ZeroTerminal(_DDPM),
}


def mix1d():
  """The mixture that solvers are put through, whose flow is known."""
  return closed_form.mixture([0.3, 0.7], [[-1.0], [1.2]], [0.3, 0.5])


def nudged(tree, c):
  """A pytree whose every number is moved by c, near 1, each in its own way."""
  leaves, structure = jax.tree.flatten(tree)
  return structure.unflatten(
    [leaf * c + 0.01 * i * (c - 0.9) for i, leaf in enumerate(leaves, 1)]
  )


SCALES = {
  "vp": levels.vp,
  "ve": levels.ve,
  "linear": levels.linear,
  "sub_vp": levels.sub_vp,
  "unit": levels.Unit(0.5),
}
TARGETS = dict(targets.TARGETS, F2=targets.F(2.0))


def _logit(p):
  return np.log(p) - np.log1p(-p)


def _sig(y):
  return 1.0 / (1.0 + np.exp(-y))


def _vp_linear(t):
  return 0.1 * t + 0.5 * 19.9 * t * t


def _offset_cosine(t, s=0.008):
  angle = lambda t: np.cos((t + s) / (1 + s) * np.pi / 2)
  return (angle(t) / angle(0.0)) ** 2


def _sigmoid(t, a=-3.0, b=3.0, tau=0.9):
  s = lambda y: _sig(y / tau)
  return (s(b) - s(t * (b - a) + a)) / (s(b) - s(a))


def _truncated(t, top=15.0):
  angle = lambda l: np.arctan(np.exp(-l / 2))
  phi = angle(top) + t * (angle(-top) - angle(top))
  return -2.0 * np.log(np.tan(phi))


def _mode(t, s=1.29):
  """Esser et al. eq. 20 as printed, their u being 1 - t of a schedule."""
  u = 1.0 - t
  time = 1.0 - u - s * (np.cos(np.pi / 2 * u) ** 2 - 1.0 + u)
  return 2.0 * np.log((1.0 - time) / time)


def _from_rows(betas):
  return lambda t: np.interp(
    t * (len(betas) - 1),
    np.arange(len(betas)),
    _logit(np.cumprod(1.0 - betas)),
  )


def _iddpm_betas():
  bar = _offset_cosine(np.arange(1001) / 1000)
  return np.minimum(1.0 - bar[1:] / bar[:-1], 0.999)


def _lin(t):
  """Lin et al. Alg. 1 on the DDPM table, its rows interpolated in logsnr."""
  base = _from_rows(np.linspace(1e-4, 0.02, 1000))
  root = lambda t: np.sqrt(_sig(base(np.asarray(t))))
  left = (root(t) - root(1.0)) * root(0.0) / (root(0.0) - root(1.0))
  return _logit(left**2)


def _norm_quantile(t):
  from scipy.special import ndtri

  return ndtri(t)


_CLEAN, _NOISY = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
# logsnr(t) as its paper prints it, in float64 NumPy; None: learned
LOGSNR = {
  "vp_linear": lambda t: -np.log(np.expm1(_vp_linear(t))),
  "sub_vp": lambda t: -_vp_linear(t) - 2.0 * np.log(-np.expm1(-_vp_linear(t))),
  "ddpm_table": _from_rows(np.linspace(1e-4, 0.02, 1000)),
  "scaled_linear_table": _from_rows(
    np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
  ),
  "iddpm_table": _from_rows(_iddpm_betas()),
  "offset_cosine": lambda t: _logit(_offset_cosine(t)),
  "cosine": lambda t: -2.0 * np.log(np.tan(np.pi / 2 * t)),
  "truncated_cosine": _truncated,
  "shifted_cosine": lambda t: _truncated(t) + 2.0 * np.log(64 / 256),
  "interpolated": lambda t: (
    (1 - t) * (_truncated(t) - 2 * np.log(0.5))
    + t * (_truncated(t) - 2 * np.log(4.0))
  ),
  "sigmoid": lambda t: _logit(_sigmoid(t)),
  "linear_logsnr": lambda t: 13.3 - 18.3 * t,
  "geometric": lambda t: -2.0 * np.log(0.01 * 5000.0**t),
  "karras": lambda t: -14.0 * np.log(_CLEAN + t * (_NOISY - _CLEAN)),
  "log_normal": lambda t: -2.0 * (-1.2 + 1.2 * _norm_quantile(t)),
  "flow": lambda t: 2.0 * np.log((1.0 - t) / t),
  "flow_sigma_min": lambda t: 2.0 * np.log((1.0 - t) / (0.05 + 0.95 * t)),
  "sd3_shift": lambda t: (
    2.0 * np.log((1.0 - 3 * t / (1 + 2 * t)) / (3 * t / (1 + 2 * t)))
  ),
  "polynomial": lambda t: 2.0 * np.log((1 - t) ** 2 / (1 - (1 - t) ** 2)),
  "mode": _mode,
  "zero_terminal": _lin,
}
