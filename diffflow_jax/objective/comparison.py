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

from diffflow_jax.objective import aspects
from diffflow_jax.objective.aspects import Aspect
from diffflow_jax.objective.objective import Objective
from diffflow_jax.objective.objectives import name_of
from diffflow_jax.process import levels, ranges

TIMES = np.linspace(0.0, 1.0, 201)[1:-1]


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


def _names(*given):
  """The recipes' names; what is no recipe as it stands is "a" or "b"."""
  found = [name_of(o) or letter for o, letter in zip(given, "ab", strict=True)]
  return tuple(found) if found[0] != found[1] else ("a", "b")


@ranges.checked(num="an integer >= 2")
def compare(a, b, names=None, num=401):
  """What two objectives share and where they differ, as a `Comparison`.

      print(dfj.compare(dfj.objectives.flow_matching(),
                        dfj.objectives.v_diffusion()))

  Args:
    a, b: Objectives of concrete values.
    names: of a and b in the report; where they are not given, those of the
      recipes that they are, or "a" and "b".
    num: levels that are looked at, between the 0.1 % quantiles of both.
  Raises:
    ValueError: something else than two objectives.
  """
  for given in (a, b):
    if not isinstance(given, Objective):
      raise ValueError(
        f"compare takes objectives, as objectives.make('edm') is, not {given!r}"
      )
  names = _names(a, b) if names is None else tuple(names)
  (lo_a, hi_a), (lo_b, hi_b) = _range(a), _range(b)
  logsnr = np.linspace(min(lo_a, lo_b), max(hi_a, hi_b), num)
  ca, cb = (_float64(_curves, o, logsnr) for o in (a, b))
  time = [_float64(o.schedule.logsnr, TIMES) for o in (a, b)]
  rows = [np.stack(c["row"], axis=-1) for c in (ca, cb)]
  return Comparison(
    names=names,
    logsnr=logsnr,
    t=TIMES,
    density=aspects.of_densities(ca["log_p"], cb["log_p"], logsnr, names),
    weighting=aspects.of_logs("weighting", ca["log_w"], cb["log_w"], logsnr),
    network_output=aspects.of_rows(*rows, logsnr),
    input_scaling=aspects.of_logs(
      "scale", ca["log_norm"], cb["log_norm"], logsnr
    ),
    schedule=aspects.of_schedules(*time, TIMES),
  )
