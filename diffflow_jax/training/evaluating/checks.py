"""What is refused of config.evaluate and config.keep.by, before all else."""

from diffflow_jax.cli import Refusal, unknown
from diffflow_jax.runs import settings
from diffflow_jax.runs.checks import in_range, need

PREFIX = "eval/"  # of the names of its numbers in a metrics line
NEEDED = ("every", "metrics", "num_samples")
SAMPLER = ("solver", "grid", "num_steps", "guidance")
MAY_HAVE = ("features", "reference", "batch_size", *SAMPLER)
COUNT = ["an integer >= 1", "< 2147483648"]
MAYBE = ["an integer >= 0", "< 2147483648"]


def is_asked(config):
  """Whether anything is judged while the run trains."""
  how = config.get("evaluate")
  return how is not None and how.every > 0


def check(config):
  """Refuses unknown and missing fields, numbers out of range, other metrics."""
  from diffflow_jax import scoring

  how = config.get("evaluate")
  if how is None:
    return
  need(hasattr(how, "items"), "evaluate", how, "a dict of settings")
  known = {*NEEDED, *MAY_HAVE}
  for key in sorted(set(NEEDED) - set(how)):
    raise Refusal(f"config.evaluate.{key} is missing")
  for key in sorted(set(how) - known):
    raise Refusal(
      f"config.evaluate.{key} is not a field of it; {unknown(key, known)}"
    )
  in_range("config.evaluate.every", how.every, MAYBE)
  for key in sorted({"num_samples", "batch_size"} & set(how)):
    in_range(f"config.evaluate.{key}", how[key], COUNT)
  if "guidance" in how:
    in_range("config.evaluate.guidance", how.guidance, "finite")
  if "num_steps" in how:
    allowed = ["an integer >= 1", f"<= {settings.MOST_STEPS}"]
    in_range("config.evaluate.num_steps", how.num_steps, allowed)
  stride = config.steps_per_dispatch
  need(how.every % stride == 0, "evaluate.every", how.every,
        "0 for never, or a multiple of config.steps_per_dispatch = "
        f"{stride}")  # fmt: skip
  scoring.metrics_of(how.metrics, "config.evaluate.metrics")


def check_best(config):
  """Refuses a best checkpoint by numbers that checkpoints do not have."""
  best, by, save = config.keep.best, config.keep.get("by"), "checkpoint_every"
  if by is None:
    every, source = "sample_every", "held-out data"
    held_out = config.held_out
    if best and not held_out.get("num") and held_out.get("fraction") is None:
      raise Refusal(f"config.keep.best goes by {source}: set held_out.num")
  else:
    every, source = "evaluate.every", repr(by)
    _check_by(config, by)
  value = config.evaluate.every if by is not None else config.sample_every
  if best and value % config[save]:
    raise Refusal(
      f"config.keep.best goes by {source}, so config.{every} = {value} must be "
      f"a multiple of config.{save} = {config[save]}"
    )


def _check_by(config, by):
  from diffflow_jax import scoring

  name = str(by).removeprefix(PREFIX)
  if name == by or scoring.better(name) is None:
    raise Refusal(
      "config.keep.by must be a number of config.evaluate that is better low, "
      f"or better high, as 'eval/fd_pixels', not {by!r}"
    )
  if not is_asked(config):
    raise Refusal(
      f"config.keep.by = {by!r} needs config.evaluate.every above 0"
    )
  if not config.keep.best:
    raise Refusal(f"config.keep.by = {by!r} needs config.keep.best above 0")


def samplers(config):
  """{section: {setting: value}} of the samplers that a config names.

  Of "evaluate" those that it does not say are of "sampler"; `auto` chooses its
  grid by itself.
  """
  found = {"sampler": {name: config.sampler[name] for name in SAMPLER}}
  if is_asked(config):
    asked = config.evaluate
    own = {name: asked[name] for name in SAMPLER if name in asked}
    how = found["sampler"] | own
    if how["solver"] == "auto" and "grid" not in own:
      how["grid"] = "auto"
    found["evaluate"] = how
  return found
