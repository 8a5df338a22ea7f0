"""What training refuses before anything is made: fields, ranges, devices."""

from collections.abc import Mapping
import math

from diffflow_jax.cli import Refusal
from diffflow_jax.runs.checks import need

SECTIONS = (
  "dataset", "objective", "network", "optimizer", "learning_rate", "ema",
)  # fmt: skip
FIELDS = {
  *SECTIONS, "seed", "num_steps", "batch_size", "clip_norm", "label_dropout",
  "log_every", "sample_every", "checkpoint_every", "snapshot_every", "keep",
  "sampler", "mesh", "accumulation", "steps_per_dispatch", "held_out",
}  # fmt: skip
SAMPLER_FIELDS = {"solver", "grid", "num_steps", "guidance", "num_samples"}


def check_ranges(config):
  """Refuses missing and unknown fields, and numbers out of range."""
  _check_fields(FIELDS, config, "")
  for key in (*SECTIONS, "sampler", "mesh", "held_out", "keep"):
    need(isinstance(config[key], Mapping) or hasattr(config[key], "items"),
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
    need(isinstance(value, int) and value >= 1, key, value, "an integer >= 1")
  stride = config.steps_per_dispatch
  allowed = f"a multiple of config.steps_per_dispatch = {stride}"
  for key in ("num_steps", "log_every", "sample_every", "checkpoint_every"):
    need(config[key] % stride == 0, key, config[key], allowed)
  every = config.snapshot_every
  need(isinstance(every, int) and every >= 0 and every % stride == 0,
        "snapshot_every", every, f"0 for never, or {allowed}")  # fmt: skip
  if every and config.ema.get("name") != "power":
    raise Refusal("config.snapshot_every needs config.ema.name = 'power'")
  fraction = config.held_out.get("fraction")
  num = config.held_out.get("num", None if fraction is None else 0)
  need(
    isinstance(num, int) and num >= 0, "held_out.num", num, "an integer >= 0"
  )
  for key in ("every", "best"):
    value = config.keep[key]
    need(isinstance(value, int) and value >= 0, f"keep.{key}", value,
          "an integer >= 0")  # fmt: skip
  if config.keep.best and config.sample_every % config.checkpoint_every:
    raise Refusal(
      "config.keep.best goes by held-out data, so config.sample_every = "
      f"{config.sample_every} must be a multiple of config.checkpoint_every = "
      f"{config.checkpoint_every}"
    )
  if config.keep.best and not num and fraction is None:
    raise Refusal("config.keep.best goes by held-out data: set held_out.num")
  seed = config.seed
  need(
    isinstance(seed, int) and 0 <= seed < 2**32, "seed", seed, "in [0, 2^32)"
  )
  rate = config.label_dropout
  need(0 <= rate <= 1, "label_dropout", rate, "in [0, 1]")
  clip = config.clip_norm
  need(clip > 0, "clip_norm", clip, "> 0 (inf for none)")
  w = config.sampler.guidance
  need(math.isfinite(w), "sampler.guidance", w, "finite")


def _check_fields(fields, config, prefix):
  for key in sorted(fields ^ set(config)):
    what = "is missing" if key in fields else "is not a field of a config"
    raise Refusal(f"config.{prefix}{key} {what}")


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
