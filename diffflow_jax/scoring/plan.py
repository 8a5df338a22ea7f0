"""What is asked of an evaluation: samplers, guidance, metrics. Imports no JAX.

solvers   "auto:10,sde_dpmpp_2m:eta=0.5:20"     NAME[:setting=value][:STEPS]
metrics   "fid,precision_recall:k=5,bpd"        NAME[:setting=value]
"""

import dataclasses
import itertools
import numbers
import re

from diffflow_jax.cli import Refusal


@dataclasses.dataclass(frozen=True)
class Arm:
  """One way to draw samples; what is None is the config's.

  Attributes:
    solver: a name with settings; num_steps: of the grid, or the evaluations of
      auto; guidance: strength.
  """

  solver: str | None = None
  num_steps: int | None = None
  guidance: float | None = None

  def settings(self, **common):
    """What `Run.sample` is to be asked, what all arms share included."""
    own = {k: v for k, v in vars(self).items() if v is not None}
    if self.solver is not None and self.solver.partition(":")[0] == "auto":
      common.pop("grid", None)  # auto chooses its own
    return {**common, **own}


def listed(value, name):
  """["a:x=1,y=2", "b"] of "a:x=1,y=2,b": a setting=value goes to its name.

  Args:
    value: such a text, or a list of its parts.
  Raises:
    Refusal: it is neither, or names nothing.
  """
  if not isinstance(value, str):
    whole = isinstance(value, list | tuple) and value
    if not whole or not all(isinstance(one, str) and one for one in value):
      raise Refusal(
        f"{name} must be names with settings, as 'a,b:setting=1', not {value!r}"
      )
    return list(value)
  found = []
  for part in re.split(r",(?![^(]*\))", value):
    part = part.strip()
    if found and re.match(r"\w+=", part):
      found[-1] += f",{part}"
    elif part:
      found.append(part)
  if not found:
    raise Refusal(f"{name} names nothing")
  return found


def arm(text):
  """The Arm of NAME[:setting=value][:STEPS]."""
  solver, _, steps = text.rpartition(":")
  if solver and re.fullmatch(r"-?\d+", steps):
    return Arm(solver, int(steps))
  return Arm(text)


def arms(solvers, num_steps, guidance, say=str):
  """Every Arm of the solvers, each with every number of steps and strength.

  Args:
    solvers: as above, a list, or None; num_steps: integers for those that name
      none, or None; guidance: strengths, or None.
    say: name of a setting -> what messages call it.
  Raises:
    Refusal: what is no such list; the same sampler twice.
  """
  texts = [None] if solvers is None else listed(solvers, say("solvers"))
  one = [arm(text) if text else Arm() for text in texts]
  steps = _numbers(num_steps, say("num_steps"), numbers.Integral)
  strengths = _numbers(guidance, say("guidance"), numbers.Real)
  if steps != [None] and all(a.num_steps is not None for a in one):
    raise Refusal(
      f"{say('num_steps')} has no effect: each of {say('solvers')} has its own"
    )
  found = [
    dataclasses.replace(a, num_steps=n, guidance=g)
    for a, g in itertools.product(one, strengths)
    for n in ([a.num_steps] if a.num_steps is not None else steps)
  ]
  twice = [a for i, a in enumerate(found) if a in found[:i]]
  if twice:
    raise Refusal(
      f"{say('solvers')} names {twice[0].solver or 'one'} twice at the same "
      "steps and guidance"
    )
  return found


def _numbers(value, name, kind):
  value = [value] if isinstance(value, numbers.Real) else value
  if value is None:
    return [None]
  fits = isinstance(value, list | tuple) and value
  if not fits or not all(isinstance(v, kind) for v in value):
    what = "integers" if kind is numbers.Integral else "numbers"
    raise Refusal(f"{name} must be {what}, not {value!r}")
  return list(value)
