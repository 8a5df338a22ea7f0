"""From a config to what it names: the one place where names become objects.

Everything that cannot work is refused here, before anything compiles or is
written: unknown names (with the known ones), unknown fields, bad ranges, a
network that does not fit the data.
"""

import dataclasses
from typing import Any

from diffflow_jax.cli import Refusal
from diffflow_jax.runs import card as card_lib, datasets, recipe
from diffflow_jax.runs.lookup import choose
from diffflow_jax.training import checks, evaluating


@dataclasses.dataclass(frozen=True)
class TrainingRun(recipe.Recipe):
  """What a config names: the recipe, and what only training needs.

  Attributes:
    dataset: ours; tx: optax's; learning_rate: step -> rate.
    averages: functions step -> decay, one for each EMA.
    held_out: (dataset, num) of examples that training does not see, or None.
    method: a `few_step.method.Method` in the place of the ordinary loss, or
      None; teacher: the `few_step.teacher.Teacher` that it learns from, or
      None.
  """

  dataset: Any
  tx: Any
  learning_rate: Any
  averages: tuple
  held_out: Any = None
  method: Any = None
  teacher: Any = None


def resolve(config, workdir=None):
  """A TrainingRun from a config, or a Refusal in one sentence.

  Args:
    workdir: that of the run, which says what its teacher was, if it is known.
  """
  from diffflow_jax.runs import generate
  from diffflow_jax.training import ema, few_step
  from diffflow_jax.training.optimizers import make_optimizer

  checks.check_ranges(config)
  config, kind = few_step.prepared(config)
  dataset, held_out = datasets.of(config)
  card = card_lib.of(dataset)
  if held_out is not None:  # drawn and judged in one piece
    checks.check_examples("config.held_out.num", held_out[1], card)
  tx, learning_rate = make_optimizer(config)
  known = recipe.resolve(config, card)
  method, teacher = few_step.bound(config, kind, known, workdir)
  if method is not None and method.stages is not None:
    learning_rate = lambda step, rate=learning_rate: rate(method.age(step))
  for section, how in evaluating.samplers(config).items():
    if how["solver"] == "auto" and how["grid"] != "auto":
      raise Refusal(
        f"config.{section}.grid must be 'auto' where the solver is, which "
        f"chooses it, not {how['grid']!r}"
      )
    generate.make_tableau(  # refuses what it cannot make
      known.objective,
      how["solver"],
      how["grid"],
      how["num_steps"],
      (f"config.{section}.solver", f"config.{section}.grid"),
    )
  run = TrainingRun(
    **vars(known),
    dataset=dataset,
    tx=tx,
    learning_rate=learning_rate,
    averages=choose("ema", config.ema, ema.AVERAGES),
    held_out=held_out,
    method=method,
    teacher=teacher,
  )
  few_step.check_sampler(run)
  return run
