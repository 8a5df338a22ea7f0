"""Butcher tables of explicit Runge-Kutta methods, and how a way ends in each.

    k_j = u(z_s + Δt Σ_{l<j} a_jl k_l, t_s + c_j Δt),   c_j = Σ_l a_jl
    z_t = z_s + Δt Σ_j b_j k_j,                         Σ_j b_j = 1

A stage with c = 1 would be evaluated at sigma = 0 in the step that arrives
there. The velocity of a smooth density is finite there, but that of data on
points or on a surface is not known: no network can tell which way the last of
the noise has gone. Evaluated there, the methods keep their order on smooth
densities and have order 1 on data points. So a step to sigma = 0 is taken by a
table whose stages are all inside of it, with an error of the same order or one
less in the *step*, which costs no order over the whole way:

    stages    the step to sigma = 0              order in the step, whole way
    2         Ralston's, c = 0, 2/3              3, 2
    3         Bogacki and Shampine's             4, 3
    4, more   c = 0, 2/5, 3/5, 9/10              4, 4

The last one is third-order, with all conditions of order 4 but one, and that
one, Σ b c³ = 1/4, missed by 1/150. (With four stages order 4 needs c = 1.)
"""

from typing import NamedTuple

import numpy as np

from diffflow_jax.sampling import checks


class Butcher(NamedTuple):
  """a: one row of j numbers for stage j = 0, 1, …; b, c: one for each stage."""

  a: tuple
  b: tuple
  c: tuple


def table(a, b, c=None):
  """A Butcher table, checked: explicit, consistent, its stages in the step.

  Args:
    a: a row for each stage, of the stages before it or of all of them.
    b: the weights of the update; c: the stages' times, if they are to be
      compared with the rows' sums, which they must be.
  Raises:
    ValueError: it is none; it says why.
    TypeError: it is traced.
  """
  b = _numbers("b", b)
  count = len(a) if hasattr(a, "__len__") else f"{a!r} alone"
  if not len(b) or count != len(b):
    raise ValueError(
      f"a must have one row for each of the {len(b)} numbers of b, at least "
      f"one, not {count}"
    )
  rows = []
  for i, row in enumerate(a):
    row = _numbers(f"row {i} of a", row)
    if len(row) not in (i, len(b)) or np.any(row[i:]):
      raise ValueError(
        f"row {i} of a must have {i} numbers, or {len(b)} of which the last "
        f"{len(b) - i} are 0 (explicit), not {row.tolist()}"
      )
    rows.append(tuple(row[:i].tolist()))
  if abs(b.sum() - 1.0) > 1e-9:
    raise ValueError(f"b must sum to 1, not {b.sum():.10g}")
  sums = np.array([sum(row) for row in rows])
  if ((sums < 0.0) | (sums > 1.0 + 1e-9)).any():
    raise ValueError(
      f"the rows of a must sum to times in [0, 1], not {sums.tolist()}"
    )
  if c is not None:
    given = _numbers("c", c)
    if given.shape != sums.shape or np.abs(given - sums).max() > 1e-9:
      raise ValueError(
        f"c must be the sums of the rows of a, {sums.tolist()}, not "
        f"{given.tolist()}"
      )
  sums = np.where(np.abs(sums - 1.0) < 1e-9, 1.0, sums)  # exactly at the end
  return Butcher(tuple(rows), tuple(b.tolist()), tuple(sums.tolist()))


def _numbers(name, values):
  if checks.is_traced(values):
    raise TypeError(f"{name} of a Butcher table must be concrete, not traced")
  try:
    out = np.asarray(values, np.float64)
  except (TypeError, ValueError):  # text, complex numbers, ragged rows
    out = np.array(np.nan)
  if out.ndim != 1 or not np.isfinite(out).all():
    raise ValueError(f"{name} must be finite numbers in a row, not {values!r}")
  return out


EULER = table([[]], [1])
HEUN = table([[], [1]], [1 / 2, 1 / 2])
MIDPOINT = table([[], [1 / 2]], [0, 1])
RALSTON = table([[], [2 / 3]], [1 / 4, 3 / 4])
BOGACKI_SHAMPINE = table([[], [1 / 2], [0, 3 / 4]], [2 / 9, 1 / 3, 4 / 9])
RK4 = table([[], [1 / 2], [0, 1 / 2], [0, 0, 1]], [1 / 6, 1 / 3, 1 / 3, 1 / 6])
KUTTA_38 = table(
  [[], [1 / 3], [-1 / 3, 1], [1, -1, 1]], [1 / 8, 3 / 8, 3 / 8, 1 / 8]
)
INSIDE = table(
  [[], [2 / 5], [-3 / 20, 3 / 4], [11 / 40, 0, 5 / 8]],
  [1 / 6, 1 / 3, 5 / 18, 2 / 9],
)


def last(butcher):
  """The table that takes the step to sigma = 0 for this one."""
  if 1.0 not in butcher.c:
    return butcher
  return {2: RALSTON, 3: BOGACKI_SHAMPINE}.get(len(butcher.b), INSIDE)


def padded(butcher, num_stages):
  """The same method with stages that nothing uses."""
  more = num_stages - len(butcher.b)
  zeros = lambda row, n: (*row, *[0.0] * (n - len(row)))
  a = [*butcher.a, *[butcher.a[-1]] * more]
  a = tuple(zeros(row, i) for i, row in enumerate(a))
  c = (*butcher.c, *butcher.c[-1:] * more)
  return Butcher(a, zeros(butcher.b, num_stages), c)
