"""Optimisers and learning rates: optax's, by name."""

from collections.abc import Mapping
import inspect
import math
import numbers

import jax
import optax

from diffflow_jax.runs import checks
from diffflow_jax.runs.lookup import choose

OPTIMIZERS = ("adam", "adamw", "sgd", "lion", "adafactor", "lamb", "radam")
LEARNING_RATES = (
  "constant_schedule",
  "warmup_constant_schedule",
  "warmup_cosine_decay_schedule",
  "warmup_exponential_decay_schedule",
  "cosine_decay_schedule",
  "linear_schedule",
)


BETA = "in [0, 1)"
# where a number of optax's is not just finite and >= 0
RANGES = {
  **dict.fromkeys(("b1", "b2", "momentum", "decay", "nesterov_decay"), BETA),
  **dict.fromkeys(("decay_steps", "transition_steps"), "an integer >= 1"),
  **dict.fromkeys(("warmup_steps", "transition_begin"), "an integer >= 0"),
}


def _optax(field, spec, names, **given):
  make = getattr(optax, spec["name"]) if spec.get("name") in names else None
  taken = inspect.signature(make).parameters if make else {}
  for key, value in spec.items():
    default = getattr(taken.get(key), "default", None)
    needed = default is inspect.Parameter.empty
    if needed or _is_number(value) or _is_number(default):
      checks.in_range(f"config.{field}.{key}", value, RANGES.get(key, ">= 0"))
  if {"warmup_steps", "decay_steps"} <= taken.keys() & spec.keys():
    warmup, most = spec["warmup_steps"], spec["decay_steps"]
    checks.need(
      warmup < most, f"{field}.warmup_steps", warmup, f"< decay_steps = {most}"
    )
  return choose(field, spec, {n: getattr(optax, n) for n in names}, **given)


def _is_number(value):
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def make_optimizer(config):
  """(optax transformation with clipping, learning-rate schedule).

  The schedule is one program: left alone it is a dozen, one an operation.
  """
  rate = config.learning_rate
  if isinstance(rate, numbers.Real):
    rate = {"name": "constant_schedule", "value": rate}
  schedule = _optax("learning_rate", rate, LEARNING_RATES)
  constant = rate["name"] == "constant_schedule"
  learning_rate = schedule if constant else jax.jit(schedule)
  for step in (0, config.num_steps // 2, config.num_steps - 1):
    rate = float(learning_rate(step))
    checks.need(
      math.isfinite(rate) and rate >= 0,
      "learning_rate",
      rate,
      f"finite and >= 0 at step {step}",
    )
  given = {"learning_rate": schedule}
  for mask in ("mask", "weight_decay_mask"):  # as optimisers with decay call it
    name = config.optimizer.get("name")
    known = name in OPTIMIZERS  # if not, `choose` says so
    if known and mask in inspect.signature(getattr(optax, name)).parameters:
      given[mask] = decays
  optimizer = _optax("optimizer", config.optimizer, OPTIMIZERS, **given)
  if math.isfinite(config.clip_norm):
    optimizer = optax.chain(clipping(config.clip_norm), optimizer)
  return optimizer, learning_rate


def clipping(norm):
  """Clips the network's gradient by its norm, and not that of a schedule.

  Of a learned schedule's gradient the largest come with the largest losses:
  less of them would be another mean, and its ends would drift off.
  """
  clip = optax.clip_by_global_norm(norm)

  def update(grads, state, params=None):
    learned = grads.get("objective", {}) if isinstance(grads, Mapping) else {}
    if "schedule" not in learned:
      return clip.update(grads, state)
    network = {k: v for k, v in grads.items() if k != "objective"}
    network, state = clip.update(network, state)
    return {**network, "objective": learned}, state

  return optax.GradientTransformation(clip.init, update)


def decays(params):
  """Which arrays weight decay acts on: kernels, not biases, norms, embeddings.

  By their name, since blocks that are scanned stack their biases to matrices.
  """
  return jax.tree_util.tree_map_with_path(
    lambda path, _: getattr(path[-1], "key", None) == "kernel", params
  )
