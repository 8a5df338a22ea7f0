"""In which respects two recipes are the same, in words and numbers.

A recipe is five independent choices: how levels are drawn, what is minimised,
what the network puts out, how its input is scaled, and the clock of sampling.
Each is a curve over the log-SNR axis (the clock: over t), so two recipes can be
compared choice by choice:

    density            p(λ)
    weighting          w(λ), up to a constant: a constant is the learning rate
    network output     the row (a, b) of y = a x + b eps, up to a constant
    input scaling      the norm √(alpha² + sigma²) of z, up to a constant
    schedule           λ(t), up to a constant: that is a shift of resolution
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.process import levels

SAME = 1e-4  # relative: differences below it are rounding, not choices
TIMES = np.linspace(0.0, 1.0, 201)[1:-1]


@dataclasses.dataclass(frozen=True)
class Aspect:
  """One choice of two recipes.

  Attributes:
    same: whether they agree, up to `constant`.
    constant: a's value over b's (for schedules: λ_a - λ_b); None if not same.
    text: one sentence.
    a, b: the curves that were compared, (num,), or (num, 2) for rows.
  """

  same: bool
  constant: float | None
  text: str
  a: np.ndarray
  b: np.ndarray


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The aspects of two objectives; str() is the report.

  Attributes:
    logsnr: (num,), the levels that both of them train; t: those of schedule.
  """

  names: tuple[str, str]
  logsnr: np.ndarray
  t: np.ndarray
  density: Aspect
  weighting: Aspect
  network_output: Aspect
  input_scaling: Aspect
  schedule: Aspect

  def aspects(self):
    """{name: Aspect}, in the order of the report."""
    names = (
      "density",
      "weighting",
      "network_output",
      "input_scaling",
      "schedule",
    )
    return {name: getattr(self, name) for name in names}

  def shared(self):
    """The names of the aspects in which the two agree."""
    return [name for name, aspect in self.aspects().items() if aspect.same]

  def __str__(self):
    lines = [f"{self.names[0]} against {self.names[1]}"]
    for name, aspect in self.aspects().items():
      mark = "same  " if aspect.same else "differ"
      lines.append(f"  {name.replace('_', ' '):15}{mark}  {aspect.text}")
    lo, hi = self.logsnr[0], self.logsnr[-1]
    lines.append(f"  compared on logsnr {lo:.2f} to {hi:.2f}")
    return "\n".join(lines)


def _float64(fn, *args):
  """fn(*args) as float64 NumPy arrays, whatever the default dtype."""
  wide = lambda x: np.asarray(x, np.float64) if hasattr(x, "dtype") else x
  with jax.enable_x64(True):
    return jax.tree.map(np.asarray, fn(*jax.tree.map(wide, args)))


def _curves(objective, logsnr):
  """log p, log w, the row and the log norm of the input, at levels."""
  lv = levels.at_logsnr(objective.scale, logsnr, objective.schedule)
  return dict(
    log_p=objective.density.log_prob(logsnr),
    log_w=objective.weighting(logsnr),
    row=objective.target(lv),
    log_norm=0.5 * jnp.log(lv.alpha * lv.alpha + lv.sigma * lv.sigma),
  )


def _range(objective):
  """The levels between the 0.1 % and 99.9 % quantiles of its density."""
  q = np.sort(_float64(objective.density.logsnr, np.array([1e-3, 1.0 - 1e-3])))
  return float(q[0]), float(q[1])


def _span(mask, logsnr):
  """The stretches of the axis where mask holds, as words."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]])))
  runs = [
    f"{logsnr[i]:.1f} to {logsnr[j - 1]:.1f}"
    for i, j in zip(edges[::2], edges[1::2], strict=True)
    if j - i > 1  # a single level is a crossing, not a stretch
  ]
  more = f" and {len(runs) - 3} more" if len(runs) > 3 else ""
  return ", ".join(runs[:3]) + more


def _of_logs(what, a, b, logsnr):
  """Aspect of two positive curves, given in logs, up to a constant."""
  both = np.isfinite(a) & np.isfinite(b)
  if not both.any():
    text = f"{what} of one is zero wherever the other's is not"
    return Aspect(False, None, text, np.exp(a), np.exp(b))
  apart = np.where(both, a - np.where(both, b, 0.0), np.inf)
  middle = float(np.median(apart[both]))
  far = np.abs(apart - middle) > SAME
  if not far.any():
    ratio = float(np.exp(middle))
    text = "equal" if abs(ratio - 1) < SAME else f"equal up to {ratio:.5g}"
    return Aspect(True, ratio, text, np.exp(a), np.exp(b))
  low, high = np.exp(apart[both].min()), np.exp(apart[both].max())
  at_low = logsnr[both][apart[both].argmin()]
  at_high = logsnr[both][apart[both].argmax()]
  text = (
    f"ratio {low:.3g} (at logsnr {at_low:.1f}) to {high:.3g} (at {at_high:.1f})"
  )
  if not both.all():
    where = _span(~both, logsnr) or f"{logsnr[~both][0]:.1f}"
    text += f"; one of them is zero on {where}"
  return Aspect(False, None, text, np.exp(a), np.exp(b))


def _of_densities(a, b, logsnr, names):
  """Densities have no free constant: they agree or they do not."""
  aspect = _of_logs("density", a, b, logsnr)
  if aspect.same and abs(aspect.constant - 1.0) < SAME:
    return aspect
  p, q = np.exp(a), np.exp(b)
  step = logsnr[1] - logsnr[0]
  apart = 0.5 * np.sum(np.abs(p - q)) * step
  more = np.abs(p - q) > 0.05 * max(p.max(), q.max())
  text = f"{100 * apart:.2g} % of the draws fall elsewhere"
  for name, mask in ((names[0], p > q), (names[1], q > p)):
    if where := _span(more & mask, logsnr):
      text += f"; {name} draws more on {where}"
  return Aspect(False, None, text, p, q)


def _of_rows(a, b, logsnr):
  """Rows (num, 2): equal, proportional by level, or different mixtures."""
  norm = lambda r: np.hypot(r[:, 0], r[:, 1])
  cross = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
  angle = np.abs(cross) / (norm(a) * norm(b))
  ratio = np.sum(a * b, axis=1) / norm(b) ** 2
  if np.all(angle < SAME):
    middle = float(np.median(ratio))
    if np.all(np.abs(ratio / middle - 1.0) < SAME):
      one = abs(middle - 1.0) < SAME
      text = "equal" if one else f"equal up to {middle:.5g}"
      return Aspect(True, middle, text, a, b)
    text = (
      f"the same up to a factor by level, {ratio.min():.3g} to "
      f"{ratio.max():.3g}"
    )
    return Aspect(False, None, text, a, b)
  degrees = np.degrees(np.arcsin(np.clip(angle, 0.0, 1.0)))
  i = int(degrees.argmax())
  meet = degrees < np.degrees(SAME) + 0.5
  text = (
    f"different mixtures of x and eps, up to {degrees[i]:.0f} degrees apart "
    f"(at logsnr {logsnr[i]:.1f})"
  )
  if where := _span(meet, logsnr):
    text += f", meeting on {where}"
  return Aspect(False, None, text, a, b)


def _of_schedules(a, b):
  """λ(t): equal, shifted, or different clocks."""
  ok = np.isfinite(a) & np.isfinite(b)
  apart = (a - b)[ok]
  middle = float(np.median(apart))
  if np.all(np.abs(apart - middle) < SAME * (1.0 + np.abs(b[ok]))):
    text = "equal"
    if abs(middle) > SAME:
      text = f"shifted: logsnr {middle:+.4g} at every t"
    return Aspect(abs(middle) <= SAME, middle, text, a, b)
  i, j = int(apart.argmin()), int(apart.argmax())
  t = TIMES[ok]
  text = (
    f"logsnr differs by {apart[i]:+.2f} (at t = {t[i]:.2f}) to "
    f"{apart[j]:+.2f} (at t = {t[j]:.2f})"
  )
  return Aspect(False, None, text, a, b)


def compare(a, b, names=("a", "b"), num=401):
  """What two objectives share and where they differ, as a `Comparison`.

      print(dfj.compare(dfj.objectives.flow_matching(),
                        dfj.objectives.v_diffusion()))

  Args:
    a, b: Objectives of concrete values.
    names: of a and b in the report.
    num: levels that are looked at, between the 0.1 % quantiles of both.
  """
  (lo_a, hi_a), (lo_b, hi_b) = _range(a), _range(b)
  logsnr = np.linspace(min(lo_a, lo_b), max(hi_a, hi_b), num)
  ca, cb = (_float64(_curves, o, logsnr) for o in (a, b))
  time = [_float64(o.schedule.logsnr, TIMES) for o in (a, b)]
  rows = [np.stack(c["row"], axis=-1) for c in (ca, cb)]
  return Comparison(
    names=tuple(names),
    logsnr=logsnr,
    t=TIMES,
    density=_of_densities(ca["log_p"], cb["log_p"], logsnr, names),
    weighting=_of_logs("weighting", ca["log_w"], cb["log_w"], logsnr),
    network_output=_of_rows(*rows, logsnr),
    input_scaling=_of_logs("scale", ca["log_norm"], cb["log_norm"], logsnr),
    schedule=_of_schedules(*time),
  )
