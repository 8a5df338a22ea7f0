"""One choice of two recipes, as two curves: the same or not, in a sentence.

Curves come as NumPy arrays over levels (num,), positive ones in logs, and what
they may differ in without being another choice is a constant.
"""

import dataclasses

import numpy as np

SAME = 1e-4  # relative: differences below it are rounding, not choices


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


def of_logs(what, a, b, logsnr):
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


def of_densities(a, b, logsnr, names):
  """Densities have no free constant: they agree or they do not."""
  aspect = of_logs("density", a, b, logsnr)
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


def of_rows(a, b, logsnr):
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


def of_schedules(a, b, times):
  """λ(t) at times: equal, shifted, or different clocks."""
  ok = np.isfinite(a) & np.isfinite(b)
  apart = (a - b)[ok]
  middle = float(np.median(apart))
  if np.all(np.abs(apart - middle) < SAME * (1.0 + np.abs(b[ok]))):
    text = "equal"
    if abs(middle) > SAME:
      text = f"shifted: logsnr {middle:+.4g} at every t"
    return Aspect(abs(middle) <= SAME, middle, text, a, b)
  i, j = int(apart.argmin()), int(apart.argmax())
  t = times[ok]
  text = (
    f"logsnr differs by {apart[i]:+.2f} (at t = {t[i]:.2f}) to "
    f"{apart[j]:+.2f} (at t = {t[j]:.2f})"
  )
  return Aspect(False, None, text, a, b)
