"""The flags of `sample`, and what they may be."""

import math
import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal

SETTINGS = ("solver", "grid", "num_steps", "guidance", "num_samples")
COUNT = ["an integer >= 1", "< 2147483648"]
SETTINGS_RANGES = {
  "num_samples": COUNT,
  "num_steps": ["an integer >= 1", "<= 10000"],  # samplers.MOST_STEPS
  "guidance": "finite",
}
RANGES = {
  "batch_size": COUNT,
  "seed": ["an integer >= 0", "< 4294967296"],
  "guidance_rescale": "in [0, 1]",
  "ema": "> 0",
  "step": "an integer >= 1",
}


def define(values):
  """The flags; of SETTINGS, those left out are the config's."""
  for kind, name, default, text in (
    (flags.DEFINE_string, "workdir", None, "Directory of a trained run."),
    (flags.DEFINE_string, "out", None, "File to write, .png or .npz."),
    (flags.DEFINE_integer, "num_samples", None, "How many samples."),
    (flags.DEFINE_string, "solver", None, "Solver, as unipc or ddim:eta=1."),
    (flags.DEFINE_string, "grid", None, "Grid, as uniform_t or karras:rho=5."),
    (flags.DEFINE_integer, "num_steps", None, "Steps from noise to data."),
    (flags.DEFINE_string, "restart", None, "Restart: levels HIGH,LOW,TIMES."),
    (flags.DEFINE_float, "guidance", None, "Guidance strength, 1 is off."),
    (flags.DEFINE_string, "guidance_interval", None, "Only in logsnr LO,HI."),
    (flags.DEFINE_float, "guidance_rescale", 0.0, "CFG-rescale, 0 to 1."),
    (flags.DEFINE_boolean, "cfg_plus_plus", False, "CFG++, strength 0 to 1."),
    (flags.DEFINE_string, "weak_workdir", None, "Weaker run: autoguidance."),
    (flags.DEFINE_integer, "negative_label", None, "Guide away from it."),
    (flags.DEFINE_boolean, "batched_guidance", True, "Both branches at once."),
    (flags.DEFINE_string, "clip", None, "Threshold x̂: static, dynamic."),
    (flags.DEFINE_string, "labels", None, "Classes, as 0,1,2."),
    (flags.DEFINE_integer, "step", None, "Checkpoint, not the newest one."),
    (flags.DEFINE_float, "ema", None, "Width of an average, from snapshots."),
    (flags.DEFINE_string, "trajectory", None, "The way, .gif or .png."),
    (flags.DEFINE_integer, "seed", 0, "Seed of the noise."),
    (flags.DEFINE_integer, "batch_size", 256, "Samples at a time."),
  ):
    kind(name, default, text, flag_values=values)


def check_files(values):
  """Refuses files to write whose name or place is wrong."""
  for name, kinds in (
    ("out", (".png", ".npz")),
    ("trajectory", (".gif", ".png")),
  ):
    path = values[name].value
    if path is not None:
      if os.path.splitext(path)[1].lower() not in kinds:
        raise Refusal(
          f"--{name} must end in {' or '.join(kinds)}, not {path!r}"
        )
      cli.open_output(path, name)


def check_settings(values, config):
  """SETTINGS from the flags and the config, in range."""
  settings = {
    name: config.sampler[name] if values[name].value is None
    else values[name].value
    for name in SETTINGS
  }  # fmt: skip
  from diffflow_jax.runs import checks

  given = settings | {name: values[name].value for name in RANGES}
  for name, allowed in (RANGES | SETTINGS_RANGES).items():
    if given[name] is not None:
      checks.in_range(f"--{name}", given[name], allowed)
  check_solver(values, settings["solver"], settings["guidance"])
  return settings


def check_solver(values, solver, strength):
  """Refuses flags that the solver would ignore."""
  name = solver.partition(":")[0]
  flags_of = lambda *names: [n for n in names if values[n].value is not None]
  ignored, cause = [], f"--solver={solver}"
  if name.endswith(".npz"):
    ignored = flags_of("num_steps", "grid", "restart")
  elif name == "adaptive":
    ignored = flags_of("num_steps", "restart", "trajectory")
  elif (values.grid or "").startswith("file:"):
    ignored, cause = flags_of("num_steps"), f"--grid={values.grid}"
  if ignored:
    raise Refusal(f"--{ignored[0]} has no effect with {cause}")
  if strength == 1.0 and not values.cfg_plus_plus:
    ignored = flags_of("guidance_interval", "negative_label", "weak_workdir")
    ignored += ["guidance_rescale"] * (values.guidance_rescale != 0.0)
    for n in ignored:
      raise Refusal(f"--{n} has no effect at a guidance strength of 1")
  if values.cfg_plus_plus:
    from diffflow_jax.sampling.sde_solvers import EPS_AS_IT_COMES

    if name not in EPS_AS_IT_COMES:
      raise Refusal(
        "--cfg_plus_plus needs a solver that renoises with the reference's "
        f"noise, {', '.join(EPS_AS_IT_COMES)}, not {name}"
      )
    if not 0.0 <= strength <= 1.0:
      raise Refusal(
        f"--guidance must be in [0, 1] with --cfg_plus_plus, not {strength}"
      )


def restart_of(values):
  """(high, low, times) of --restart, or None."""
  if values.restart is None:
    return None
  parts = cli.numbers(values.restart, "restart", int)
  if len(parts) != 3:
    raise Refusal(f"--restart must be HIGH,LOW,TIMES, not {values.restart!r}")
  return parts


def guiding(values, num_classes):
  """The settings of guidance as `make_predict` takes them."""
  settings = {
    "rescale": values.guidance_rescale,
    "plus_plus": values.cfg_plus_plus,
    "batched": values.batched_guidance,
    "null": values.negative_label,
  }
  label = values.negative_label
  if label is not None and not 0 <= label < (num_classes or 0):
    raise Refusal(
      f"--negative_label must be 0 to {num_classes - 1}, not {label}"
      if num_classes
      else f"--negative_label: {values.workdir} was trained without classes"
    )
  if values.guidance_interval is not None:
    low_high = cli.numbers(values.guidance_interval, "guidance_interval")
    if len(low_high) != 2 or not low_high[0] < low_high[1]:
      raise Refusal(
        "--guidance_interval must be LO,HI with LO < HI, not "
        f"{values.guidance_interval!r}"
      )
    settings["interval"] = tuple(low_high)
  return settings


def check_memory(run, num_samples, batch_size):
  """Refuses more samples than the host's memory holds."""
  from diffflow_jax.runs import memory

  example = 2 * 4 * math.prod(run.card.shape)  # batch by batch, then joined
  memory.need(
    f"--num_samples={num_samples}", num_samples * example, memory.host()
  )
  size = min(batch_size, num_samples)
  memory.need(f"--batch_size={batch_size}", size * example)


def check_weak(values, run):
  """Refuses a weaker run that is of other data than the run."""
  if values.weak_workdir is None:
    return
  from diffflow_jax.runs import restore

  weak = restore.load_recipe(values.weak_workdir).card
  for what in ("shape", "num_classes"):
    ours, theirs = getattr(run.card, what), getattr(weak, what)
    if ours != theirs:
      raise Refusal(
        f"--weak_workdir: {values.weak_workdir} was trained on data of {what} "
        f"{theirs}, {values.workdir} of {ours}"
      )


def labels_of(values, run, num_samples):
  """The label of every sample, or None for all classes in turn."""
  import numpy as np

  if values.labels is None:
    return None
  num_classes = run.card.num_classes
  if not num_classes:
    raise Refusal(f"--labels: {values.workdir} was trained without classes")
  wanted = cli.numbers(values.labels, "labels", int)
  if len(wanted) > num_samples:
    raise Refusal(
      f"--labels names {len(wanted)} classes for {num_samples} samples"
    )
  for label in wanted:
    if not 0 <= label < num_classes:
      raise Refusal(f"--labels must be 0 to {num_classes - 1}, not {label}")
  return np.resize(wanted, num_samples)
