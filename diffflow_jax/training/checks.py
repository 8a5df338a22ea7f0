"""What training refuses before anything is made: fields, ranges, devices."""

from collections.abc import Mapping
import math
import numbers

from diffflow_jax.cli import Refusal, unknown
from diffflow_jax.runs import memory, settings
from diffflow_jax.runs.checks import in_range, need
from diffflow_jax.training import evaluating

SECTIONS = (
  "dataset", "objective", "network", "optimizer", "learning_rate", "ema",
)  # fmt: skip
FIELDS = {
  *SECTIONS, "seed", "num_steps", "batch_size", "clip_norm", "label_dropout",
  "log_every", "sample_every", "checkpoint_every", "snapshot_every", "keep",
  "sampler", "mesh", "accumulation", "steps_per_dispatch", "held_out",
}  # fmt: skip
# of data that has more than labels, of few-step models, of what is judged
MAY_LACK = {"conditions", "drop_all", "method", "teacher", "evaluate"}
COUNT = ["an integer >= 1", "< 2147483648"]
MAYBE = ["an integer >= 0", "< 2147483648"]
RANGES = {
  **dict.fromkeys((
    "num_steps", "batch_size", "log_every", "sample_every", "checkpoint_every",
    "keep.latest", "sampler.num_samples", "accumulation", "steps_per_dispatch",
  ), COUNT),
  **dict.fromkeys(("keep.every", "keep.best", "snapshot_every"), MAYBE),
  "sampler.num_steps": ["an integer >= 1", f"<= {settings.MOST_STEPS}"],
  "seed": ["an integer >= 0", "< 4294967296"],
  "label_dropout": "in [0, 1)",
  "clip_norm": "in (0, inf]",
  "sampler.guidance": "finite",
}  # fmt: skip
SAMPLER_FIELDS = {"solver", "grid", "num_steps", "guidance", "num_samples"}


def check_ranges(config):
  """Refuses missing and unknown fields, and numbers out of range."""
  _check_fields(FIELDS, config, "", MAY_LACK)
  for key in (*SECTIONS, "sampler", "mesh", "held_out", "keep"):
    if key == "learning_rate" and isinstance(config[key], numbers.Real):
      continue
    need(isinstance(config[key], Mapping) or hasattr(config[key], "items"),
          key, config[key], "a dict of settings")  # fmt: skip
  _check_fields(SAMPLER_FIELDS, config.sampler, "sampler.")
  _check_fields({"data", "fsdp"}, config.mesh, "mesh.")
  _check_fields({"latest", "every", "best"}, config.keep, "keep.", {"by"})
  for key, allowed in RANGES.items():
    in_range(f"config.{key}", _get(config, key), allowed)
  stride = config.steps_per_dispatch
  allowed = f"a multiple of config.steps_per_dispatch = {stride}"
  for key in ("num_steps", "log_every", "sample_every", "checkpoint_every"):
    need(config[key] % stride == 0, key, config[key], allowed)
  every = config.snapshot_every
  need(every % stride == 0, "snapshot_every", every,
        f"0 for never, or {allowed}")  # fmt: skip
  if every and config.ema.get("name") != "power":
    raise Refusal("config.snapshot_every needs config.ema.name = 'power'")
  fraction = config.held_out.get("fraction")
  num = config.held_out.get("num", None if fraction is None else 0)
  in_range("config.held_out.num", num, MAYBE)
  evaluating.check(config)
  evaluating.check_best(config)


def _check_fields(fields, config, prefix, more=frozenset()):
  for key in sorted(fields - set(config)):
    raise Refusal(f"config.{prefix}{key} is missing")
  known = fields | more
  for key in sorted(set(config) - known):
    raise Refusal(
      f"config.{prefix}{key} is not a field of a config; {unknown(key, known)}"
    )


def _get(config, path):
  for part in path.split("."):
    config = config[part]
  return config


def check_devices(config):
  """Refuses a mesh or a batch that does not fit the devices that are there."""
  import jax

  from diffflow_jax.runs import sharding

  try:
    sharding.mesh_shape(config.mesh.data, config.mesh.fsdp, jax.device_count())
  except ValueError as error:
    raise Refusal(f"config.{error}") from error
  parts = jax.device_count() * config.accumulation
  if config.batch_size % parts:
    times = f" times accumulation = {config.accumulation}"
    raise Refusal(
      f"config.batch_size must be divisible by the {jax.device_count()} "
      f"devices{times if config.accumulation > 1 else ''}, "
      f"not {config.batch_size}"
    )


def check_memory(run, like):
  """Refuses what the devices cannot hold, before anything compiles.

  The state of a step, its gradient, and the batch: all of it on the host's
  memory where the devices are CPUs. Activations come on top and are not known.

  Args:
    like: the abstract state, with its shardings.
  """
  import jax

  state = memory.per_device(like) + memory.per_device(like.params)
  if run.teacher is not None:
    state += memory.per_device(jax.eval_shape(lambda: run.teacher.predict))
  for name, num in (
    ("config.batch_size", run.config.batch_size),
    ("config.sampler.num_samples", run.config.sampler.num_samples),
  ):
    check_examples(name, num, run.card)
  memory.need("the parameters, their averages, gradient and optimiser", state)


def check_examples(name, num, card):
  """Refuses more examples at a time than a device can hold."""
  # at least x, eps, z, the target, the prediction and its gradient
  example = 6 * 4 * math.prod(card.shape)
  example += memory.of_conditions(card.conditions)
  memory.need(f"{name} = {num}", num * example)
