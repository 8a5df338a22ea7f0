"""From a config to what it names: the one place where names become objects.

Everything that cannot work is refused here, before anything compiles or is
written: unknown names (with the known ones), unknown fields, bad ranges.
"""

import dataclasses
import inspect
import math
from typing import Any

from diffflow_jax.cli import Refusal

OPTIMIZERS = ("adam", "adamw", "sgd", "lion", "adafactor", "lamb", "radam")
LEARNING_RATES = (
  "constant_schedule",
  "warmup_constant_schedule",
  "warmup_cosine_decay_schedule",
  "warmup_exponential_decay_schedule",
  "cosine_decay_schedule",
  "linear_schedule",
)
FIELDS = {
  "seed", "num_steps", "batch_size", "dataset", "objective", "network",
  "optimizer", "learning_rate", "clip_norm", "ema", "label_dropout",
  "log_every", "sample_every", "checkpoint_every", "keep_checkpoints",
  "sampler", "mesh", "accumulation", "steps_per_dispatch",
}  # fmt: skip
SAMPLER_FIELDS = {"solver", "num_steps", "guidance", "num_samples"}


@dataclasses.dataclass(frozen=True)
class Run:
  """What a config names.

  Attributes:
    config: the ConfigDict; dataset, objective, network: ours; tx: optax's.
    averages: functions step -> decay, one for each EMA.
  """

  config: Any
  dataset: Any
  objective: Any
  network: Any
  tx: Any
  learning_rate: Any
  averages: tuple


def choose(field, spec, table, **given):
  """Calls table[spec.name] with the other entries of spec as arguments."""
  spec = dict(spec)
  name = spec.pop("name", None)
  if name not in table:
    raise Refusal(
      f"config.{field}.name is {name!r}; known: {', '.join(sorted(table))}"
    )
  known = set(inspect.signature(table[name]).parameters) - set(given)
  known -= {"parent"}  # linen's own
  for key in spec:
    if key not in known:
      raise Refusal(
        f"config.{field}.{key} is not a setting of {name}; "
        f"it has: {', '.join(sorted(known - {'name'})) or 'none'}"
      )
  try:
    return table[name](**spec, **given)
  except (TypeError, ValueError) as error:
    raise Refusal(f"config.{field}: {error}") from error


def _optax(field, spec, names, **given):
  import optax

  return choose(field, spec, {n: getattr(optax, n) for n in names}, **given)


def _need(ok, field, value, allowed):
  if not ok:
    raise Refusal(f"config.{field} must be {allowed}, not {value!r}")


def check_ranges(config):
  """Refuses missing and unknown fields, and numbers out of range."""
  for key in sorted(FIELDS ^ set(config)):
    what = "is missing" if key in FIELDS else "is not a field of a config"
    raise Refusal(f"config.{key} {what}")
  for key in sorted(SAMPLER_FIELDS ^ set(config.sampler)):
    what = "is missing" if key in SAMPLER_FIELDS else "is not a field of it"
    raise Refusal(f"config.sampler.{key} {what}")
  for key in (
    "num_steps", "batch_size", "log_every", "sample_every", "checkpoint_every",
    "keep_checkpoints", "sampler.num_steps", "sampler.num_samples",
    "accumulation", "steps_per_dispatch",
  ):  # fmt: skip
    value = _get(config, key)
    _need(isinstance(value, int) and value >= 1, key, value, "an integer >= 1")
  seed = config.seed
  _need(
    isinstance(seed, int) and 0 <= seed < 2**32, "seed", seed, "in [0, 2^32)"
  )
  for key in ("num_steps", "log_every", "sample_every", "checkpoint_every"):
    stride = config.steps_per_dispatch
    allowed = f"a multiple of config.steps_per_dispatch = {stride}"
    _need(config[key] % stride == 0, key, config[key], allowed)
  rate = config.label_dropout
  _need(0 <= rate <= 1, "label_dropout", rate, "in [0, 1]")
  clip = config.clip_norm
  _need(clip > 0, "clip_norm", clip, "> 0 (inf for none)")
  w = config.sampler.guidance
  _need(math.isfinite(w), "sampler.guidance", w, "finite")


def _get(config, path):
  for part in path.split("."):
    config = config[part]
  return config


def resolve(config):
  """A Run from a config, or a Refusal in one sentence."""
  import optax

  from diffflow_jax.data import DATASETS
  from diffflow_jax.networks import NETWORKS
  from diffflow_jax.objective.objectives import OBJECTIVES
  from diffflow_jax.sampling.solvers import SOLVERS
  from diffflow_jax.training import ema

  check_ranges(config)
  if config.sampler.solver not in SOLVERS:
    raise Refusal(
      f"config.sampler.solver is {config.sampler.solver!r}; "
      f"known: {', '.join(sorted(SOLVERS))}"
    )
  _check_devices(config)
  dataset = choose("dataset", config.dataset, DATASETS)
  learning_rate = _optax("learning_rate", config.learning_rate, LEARNING_RATES)
  optimizer = _optax(
    "optimizer", config.optimizer, OPTIMIZERS, learning_rate=learning_rate
  )
  if math.isfinite(config.clip_norm):
    clip = optax.clip_by_global_norm(config.clip_norm)
    optimizer = optax.chain(clip, optimizer)
  network = choose(
    "network", config.network, NETWORKS, num_classes=dataset.num_classes
  )
  objective = choose("objective", config.objective, OBJECTIVES)
  averages = choose("ema", config.ema, ema.AVERAGES)
  return Run(
    config, dataset, objective, network, optimizer, learning_rate, averages
  )


def _check_devices(config):
  """Refuses a mesh or a batch that does not fit the devices that are there."""
  import jax

  from diffflow_jax.training import sharding

  for key in sorted({"data", "fsdp"} ^ set(config.mesh)):
    raise Refusal(f"config.mesh must have data and fsdp; {key} is wrong")
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
