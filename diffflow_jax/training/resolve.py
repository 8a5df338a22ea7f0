"""From a config to what it names: the one place where names become objects.

Everything that cannot work is refused here, before anything compiles or is
written: unknown names (with the known ones), unknown fields, bad ranges, a
network that does not fit the data.
"""

from collections.abc import Mapping
import dataclasses
import importlib
import inspect
import math
from typing import Any

from diffflow_jax.cli import Refusal, parse_spec

OPTIMIZERS = ("adam", "adamw", "sgd", "lion", "adafactor", "lamb", "radam")
LEARNING_RATES = (
  "constant_schedule",
  "warmup_constant_schedule",
  "warmup_cosine_decay_schedule",
  "warmup_exponential_decay_schedule",
  "cosine_decay_schedule",
  "linear_schedule",
)
SECTIONS = (
  "dataset", "objective", "network", "optimizer", "learning_rate", "ema",
)  # fmt: skip
FIELDS = {
  *SECTIONS, "seed", "num_steps", "batch_size", "clip_norm", "label_dropout",
  "log_every", "sample_every", "checkpoint_every", "snapshot_every", "keep",
  "sampler", "mesh", "accumulation", "steps_per_dispatch", "held_out",
}  # fmt: skip
SAMPLER_FIELDS = {"solver", "grid", "num_steps", "guidance", "num_samples"}


@dataclasses.dataclass(frozen=True)
class Run:
  """What a config names.

  Attributes:
    config: the ConfigDict; dataset, objective, network: ours; tx: optax's.
    averages: functions step -> decay, one for each EMA.
    held_out: (dataset, num) of examples that training does not see, or None.
  """

  config: Any
  dataset: Any
  objective: Any
  network: Any
  tx: Any
  learning_rate: Any
  averages: tuple
  held_out: Any = None


def choose(field, spec, table, **given):
  """Calls table[spec.name] with the other entries of spec as arguments.

  A name "module:attribute" is imported: that is how a user's own dataset or
  network is named, from a file beside the config say.
  """
  spec = dict(spec)
  name = spec.pop("name", None)
  make = _imported(field, name) if ":" in str(name) else table.get(name)
  if make is None:
    raise Refusal(
      f"config.{field}.name is {name!r}; known: {', '.join(sorted(table))}, "
      "or module:attribute"
    )
  known = set(inspect.signature(make).parameters) - set(given)
  known -= {"parent", "name"}  # linen's own
  for key in spec:
    if key not in known:
      raise Refusal(
        f"config.{field}.{key} is not a setting of {name}; "
        f"it has: {', '.join(sorted(known)) or 'none'}"
      )
  try:
    return make(**spec, **given)
  except (TypeError, ValueError) as error:
    raise Refusal(f"config.{field}: {error}") from error


def _imported(field, name):
  """The attribute of a module that "module:attribute" names."""
  module, _, attribute = name.partition(":")
  try:
    return getattr(importlib.import_module(module), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise Refusal(f"config.{field}.name is {name!r}: {error}") from error


def named(field, name, table):
  """table[name], or a Refusal that lists the known names."""
  if name not in table:
    raise Refusal(
      f"config.{field} is {name!r}; known: {', '.join(sorted(table))}"
    )
  return table[name]


def _optax(field, spec, names, **given):
  import optax

  return choose(field, spec, {n: getattr(optax, n) for n in names}, **given)


def _need(ok, field, value, allowed):
  if not ok:
    raise Refusal(f"config.{field} must be {allowed}, not {value!r}")


def check_ranges(config):
  """Refuses missing and unknown fields, and numbers out of range."""
  _check_fields(FIELDS, config, "")
  for key in (*SECTIONS, "sampler", "mesh", "held_out", "keep"):
    _need(isinstance(config[key], Mapping) or hasattr(config[key], "items"),
          key, config[key], "a dict of settings")  # fmt: skip
  _check_fields(SAMPLER_FIELDS, config.sampler, "sampler.")
  _check_fields({"data", "fsdp"}, config.mesh, "mesh.")
  _check_fields({"latest", "every", "best"}, config.keep, "keep.")
  for key in (
    "num_steps", "batch_size", "log_every", "sample_every", "checkpoint_every",
    "keep.latest", "sampler.num_steps", "sampler.num_samples",
    "accumulation", "steps_per_dispatch",
  ):  # fmt: skip
    value = _get(config, key)
    _need(isinstance(value, int) and value >= 1, key, value, "an integer >= 1")
  stride = config.steps_per_dispatch
  allowed = f"a multiple of config.steps_per_dispatch = {stride}"
  for key in ("num_steps", "log_every", "sample_every", "checkpoint_every"):
    _need(config[key] % stride == 0, key, config[key], allowed)
  every = config.snapshot_every
  _need(isinstance(every, int) and every >= 0 and every % stride == 0,
        "snapshot_every", every, f"0 for never, or {allowed}")  # fmt: skip
  if every and config.ema.get("name") != "power":
    raise Refusal("config.snapshot_every needs config.ema.name = 'power'")
  num = config.held_out.get("num")
  _need(
    isinstance(num, int) and num >= 0, "held_out.num", num, "an integer >= 0"
  )
  for key in ("every", "best"):
    value = config.keep[key]
    _need(isinstance(value, int) and value >= 0, f"keep.{key}", value,
          "an integer >= 0")  # fmt: skip
  if config.keep.best and not num:
    raise Refusal("config.keep.best goes by held-out data: set held_out.num")
  seed = config.seed
  _need(
    isinstance(seed, int) and 0 <= seed < 2**32, "seed", seed, "in [0, 2^32)"
  )
  rate = config.label_dropout
  _need(0 <= rate <= 1, "label_dropout", rate, "in [0, 1]")
  clip = config.clip_norm
  _need(clip > 0, "clip_norm", clip, "> 0 (inf for none)")
  w = config.sampler.guidance
  _need(math.isfinite(w), "sampler.guidance", w, "finite")


def _check_fields(fields, config, prefix):
  for key in sorted(fields ^ set(config)):
    what = "is missing" if key in fields else "is not a field of a config"
    raise Refusal(f"config.{prefix}{key} {what}")


def _get(config, path):
  for part in path.split("."):
    config = config[part]
  return config


def resolve(config):
  """A Run from a config, or a Refusal in one sentence."""
  from diffflow_jax.data import DATASETS
  from diffflow_jax.networks import NETWORKS
  from diffflow_jax.training import ema, generate

  check_ranges(config)
  dataset = choose("dataset", config.dataset, DATASETS)
  tx, learning_rate = _optimizer(config)
  objective = _objective(config.objective)
  generate.make_tableau(  # refuses what it cannot make
    objective,
    config.sampler.solver,
    config.sampler.grid,
    config.sampler.num_steps,
    ("config.sampler.solver", "config.sampler.grid"),
  )
  averages = choose("ema", config.ema, ema.AVERAGES)
  _check_sizes(config.network)
  network = choose(
    "network", config.network, NETWORKS, num_classes=dataset.num_classes
  )
  _check_network(network, dataset)
  return Run(
    config, dataset, objective, network, tx, learning_rate, averages,
    _held_out(config),
  )  # fmt: skip


def _held_out(config):
  """The dataset with the settings of config.held_out over its own, and num."""
  from diffflow_jax.data import DATASETS

  settings = dict(config.held_out)
  num = settings.pop("num")
  if not num:
    return None
  return choose("held_out", {**config.dataset, **settings}, DATASETS), num


def _objective(spec):
  """A recipe by name, with what the config exchanges of it.

  Schedule, target, scale are names; weighting and density too, or "name:
  setting=value". What is minimised stays the recipe's unless the weighting is
  exchanged. Another schedule moves the levels that training draws, where the
  recipe draws times uniformly, and those that sampling walks over.
  """
  from diffflow_jax.objective import densities, weightings
  from diffflow_jax.objective.objectives import OBJECTIVES, on_schedule
  from diffflow_jax.process.levels import SCALES
  from diffflow_jax.process.schedules import SCHEDULES
  from diffflow_jax.process.targets import TARGETS

  spec = dict(spec)
  tables = {"schedule": SCHEDULES, "target": TARGETS, "scale": SCALES}
  other = {
    key: named(f"objective.{key}", spec.pop(key), table)
    for key, table in tables.items()
    if key in spec
  }
  # the weighting first: its formula may be of the recipe's own density
  makers = {"weighting": weightings.make, "density": densities.make}
  made = {key: spec.pop(key) for key in makers if key in spec}
  objective = choose("objective", spec, OBJECTIVES)
  if "schedule" in other:
    objective = on_schedule(objective, other.pop("schedule")())
  objective = objective.replace(**other)
  for key, text in made.items():
    name, settings = parse_spec(text, f"config.objective.{key}")
    try:
      one = makers[key](name, objective, **settings)
    except (TypeError, ValueError) as error:
      raise Refusal(f"config.objective.{key}: {error}") from error
    objective = objective.replace(**{key: one})
  return objective


def _optimizer(config):
  """(optax transformation with clipping, learning-rate schedule)."""
  import optax

  for key in ("b1", "b2"):
    beta = config.optimizer.get(key, 0.0)
    _need(0 <= beta < 1, f"optimizer.{key}", beta, "in [0, 1)")
  learning_rate = _optax("learning_rate", config.learning_rate, LEARNING_RATES)
  for step in (0, config.num_steps // 2, config.num_steps - 1):
    rate = float(learning_rate(step))
    _need(
      math.isfinite(rate) and rate >= 0,
      "learning_rate",
      rate,
      f"finite and >= 0 at step {step}",
    )
  given = {"learning_rate": learning_rate}
  for mask in ("mask", "weight_decay_mask"):  # as optimisers with decay call it
    optimizer = getattr(optax, config.optimizer.get("name", ""), None)
    if optimizer and mask in inspect.signature(optimizer).parameters:
      given[mask] = decays
  optimizer = _optax("optimizer", config.optimizer, OPTIMIZERS, **given)
  if math.isfinite(config.clip_norm):
    clip = optax.clip_by_global_norm(config.clip_norm)
    optimizer = optax.chain(clip, optimizer)
  return optimizer, learning_rate


def decays(params):
  """Which arrays weight decay acts on: kernels, not biases, norms, embeddings.

  By their name, since blocks that are scanned stack their biases to matrices.
  """
  import jax

  return jax.tree_util.tree_map_with_path(
    lambda path, _: getattr(path[-1], "key", None) == "kernel", params
  )


def _check_sizes(spec):
  """Refuses widths, depths and the like below 1."""
  for key, value in spec.items():
    sizes = value if isinstance(value, (tuple, list)) else (value,)
    for size in sizes:
      if isinstance(size, int) and not isinstance(size, bool) and size < 1:
        raise Refusal(f"config.network.{key} must be at least 1, not {size}")


def _check_network(network, dataset):
  """Refuses a network whose output is not like the data, without running it."""
  import jax
  import jax.numpy as jnp

  z = jnp.zeros((2, *dataset.shape))
  cond = jnp.zeros((2,), jnp.int32) if dataset.num_classes else None
  try:
    params = jax.eval_shape(
      network.init, jax.random.key(0), z, jnp.zeros(2), cond
    )
    out = jax.eval_shape(network.apply, params, z, jnp.zeros(2), cond)
  except Exception as error:  # whatever layers that do not fit raise
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise Refusal(
      f"config.network does not fit data of shape {dataset.shape}: {reason}"
    ) from error
  if out.shape != z.shape:
    raise Refusal(
      f"config.network gives shape {out.shape[1:]} for data of shape "
      f"{dataset.shape}"
    )


def check_devices(config):
  """Refuses a mesh or a batch that does not fit the devices that are there."""
  import jax

  from diffflow_jax.training import sharding

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
