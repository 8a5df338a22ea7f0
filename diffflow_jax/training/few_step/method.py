"""A method as the train step calls it: its levels, its loss, its stages.

What differs between methods is which levels are drawn and which loss is taken
there (`methods`); what they share is here. A step of a method that has a
teacher takes the teacher, any predictor, as its third argument.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from diffflow_jax.cli import Refusal
from diffflow_jax.objective.flow_maps import pairs
from diffflow_jax.process import conditions
from diffflow_jax.runs import generate, methods, samplers
from diffflow_jax.sampling import noise as noise_lib
from diffflow_jax.sampling.tableau import sample

PAIR = (
  0x70616972  # folded into the seed's key: no sample starts from this noise
)


@dataclasses.dataclass(frozen=True)
class Given:
  """What a loss may ask for beside the batch.

  Attributes:
    step: traced; shadow: averaged parameters.
    teacher: the predictor (z, lv, cond) -> (x̂, ε̂), or None.
    solve: (eps, cond) -> x(eps) by the teacher; None where the batch has it.
    former: the parameters of the stage before, or ().
  """

  step: Any
  shadow: Any
  teacher: Any = None
  solve: Callable | None = None
  former: Any = ()

  def solved(self, x, eps, cond):
    """What the teacher makes of eps: x, where it was made ahead."""
    return x if self.solve is None else self.solve(eps, cond)


@dataclasses.dataclass(frozen=True)
class Method:
  """One of `methods.METHODS`, for `make_train_step`.

  Attributes:
    kind: it, with its settings.
    table: the Tableau that solves from noise to data with the teacher, of a
      method that learns from pairs.
    seed: of the noise of pairs that were made ahead.
  """

  kind: Any
  table: Any = None
  seed: int = 0

  @property
  def has_pairs(self):
    """Whether batches are of pairs that were made ahead."""
    return bool(self.kind.pairs)

  @property
  def stages(self):
    """`stages.Stages`, or None."""
    return self.kind.stages

  def levels(self, objective, key, num, step):
    """A pytree of (num,) arrays: what one batch is trained at."""
    drawn = self.kind.levels(objective, key, num, step)
    if self.kind.strengths is None:
      return drawn
    own = jax.random.fold_in(key, 0)
    return drawn, pairs.strengths(own, num, *self.kind.strengths)

  def noise(self, batch):
    """The eps that each pair of a batch was solved from."""
    return noise_of(self.seed, batch["index"], batch["x"].shape[1:])

  def loss(self, state, teacher=None, fresh=False):
    """A function like `losses.terms_at`, with levels in the place of logsnr.

    Args:
      fresh: solve with the teacher even where pairs were made ahead.
    """
    solved = self.table is not None and (fresh or not self.has_pairs)
    given = Given(
      step=state.step,
      shadow=state.ema[0] if state.ema else state.params,
      teacher=teacher,
      solve=functools.partial(self._solve, teacher) if solved else None,
      former=state.teacher,
    )
    terms = _terms if self.kind.strengths is None else _told
    return functools.partial(terms, self.kind, given)

  def begun(self, state, tx):
    """The state with which a step begins: another one at a stage's start."""
    return state if self.stages is None else self.stages.begun(state, tx)

  def age(self, step):
    """Steps since the start of the stage, or of the run."""
    return step if self.stages is None else self.stages.age(step)

  def _solve(self, teacher, eps, cond):
    z = self.table.start.sigma * eps
    return sample(teacher, self.table, cond=cond, z=z)


def _terms(kind, given, *args):
  """kind.terms, where the teacher is asked at one level: it may be guided."""
  teacher = given.teacher
  if teacher is not None:
    ask = lambda z, lv, cond=None: teacher(z, lv.replace(to=None), cond)
    given = dataclasses.replace(given, teacher=ask)
  return kind.terms(given, *args)


def _told(kind, given, objective, apply, params, x, levels, eps, cond):
  """kind.terms, where teacher and network are told each its own strength."""
  levels, strength = levels

  def told(params, z, logsnr, cond, *to):
    cond = conditions.with_strength(cond, strength, z.shape[0])
    return apply(params, z, logsnr, cond, *to)

  teacher = given.teacher.replace(strength=strength)
  given = dataclasses.replace(given, teacher=teacher)
  return _terms(kind, given, objective, told, params, x, levels, eps, cond)


def pair_key(seed):
  """The PRNG key of pairs: sample i of it starts from the noise of pair i."""
  return jax.random.fold_in(jax.random.key(seed), PAIR)


def noise_of(seed, index, shape):
  """eps (len(index), *shape) of the pairs of these numbers, unit normal."""
  keys = jax.vmap(jax.random.fold_in, (None, 0))(pair_key(seed), index)
  return noise_lib.initial(keys, jnp.float32(1.0), shape, jnp.float32)


def counts(run):
  """(number of steps, suffix of a name) of each picture of a TrainingRun.

  The config's own, and those of its method that its network was taught.
  """
  how = run.config.sampler
  yield how.num_steps, ""
  fixed = how.solver.partition(":")[0] == "adaptive" or how.solver.endswith(
    ".npz"
  )
  if run.method is None or fixed or how.grid.startswith("file:"):
    return
  for num_steps in run.method.kind.counts:
    if num_steps != how.num_steps and not _untaught(run, num_steps):
      yield num_steps, f"_in_{num_steps}"


def check_sampler(run):
  """Refuses a config's sampler that its network was never taught.

  Raises:
    Refusal: it goes to other levels than those of the method, or is not for
      flow maps, or for them alone.
  """
  why = _untaught(run, run.config.sampler.num_steps)
  if why:
    how = run.config.sampler
    raise Refusal(f"config.sampler.solver = {how.solver!r}: {why}")


def _untaught(run, num_steps):
  """Why a network cannot be sampled so, or None."""
  how, config = run.config.sampler, run.config
  table = generate.make_tableau(run.objective, how.solver, how.grid, num_steps)
  levels = table.levels if hasattr(table, "levels") else table.start
  if levels.to is not None and methods.reaches(config) is None:
    return (
      "it is a flow map's, and the network is not told where it goes: take "
      "another solver, as ddim, or a config.method that tells it"
    )
  try:
    samplers.check_way(config, run.objective, config.num_steps, levels)
  except ValueError as error:
    return str(error)
  return None
