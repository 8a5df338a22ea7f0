"""The flags of `sample`, and how they say what `runs.settings` knows."""

import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal


def define(values):
  """The flags; what is left out is the config's."""
  for kind, name, default, text in (
    (flags.DEFINE_string, "workdir", None, "Directory of a trained run."),
    (flags.DEFINE_string, "out", None, "File to write, .png or .npz."),
    (flags.DEFINE_integer, "num_samples", None, "How many samples."),
    (flags.DEFINE_string, "solver", None, "Solver, as auto or ddim:eta=1."),
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
    (flags.DEFINE_string, "conditions", None, "File .npz of conditions."),
    (flags.DEFINE_string, "held_out", None, "Held-out examples, as 0,5,7."),
    (flags.DEFINE_string, "guided", None, "Guide by these, as text,label."),
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


def flag(name):
  """The flag of a setting."""
  return "--weak_workdir" if name == "weak" else f"--{name}"


def settings_of(values):
  """The settings of `Run.sample` that the flags ask for."""
  interval, restart = values.guidance_interval, values.restart
  if interval is not None:
    interval = cli.numbers(interval, "guidance_interval")
  if restart is not None:
    restart = cli.numbers(restart, "restart", int)
  return dict(
    solver=values.solver,
    grid=values.grid,
    num_steps=values.num_steps,
    restart=restart,
    guidance=values.guidance,
    guidance_interval=interval,
    guidance_rescale=values.guidance_rescale,
    cfg_plus_plus=values.cfg_plus_plus,
    batched_guidance=values.batched_guidance,
    weak=values.weak_workdir,
    negative_label=values.negative_label,
    guided=None if values.guided is None else tuple(values.guided.split(",")),
    clip=values.clip,
  )


def said(values):
  """labels, conditions and held_out of `Run.sample`, as the flags have them."""
  integers = lambda name, text: (
    text if text is None else cli.numbers(text, name, int)
  )
  indices = {n: integers(n, values[n].value) for n in ("labels", "held_out")}
  path = values.conditions
  if path is None:
    return {**indices, "conditions": None}
  if os.path.splitext(path)[1].lower() != ".npz":
    raise Refusal(f"--conditions must be an .npz of arrays, not {path!r}")
  from diffflow_jax.runs import conditions_file

  return {
    **indices,
    "conditions": conditions_file.from_file(path, "--conditions"),
  }
