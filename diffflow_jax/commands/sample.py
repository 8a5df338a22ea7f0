"""Draws samples from a trained run, as a picture or as arrays.

  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png
  python -m diffflow_jax.sample --workdir=runs/digits --num_samples=1000 \\
      --solver=dpmpp_2m --num_steps=20 --guidance=2.0 --labels=0,1,2 \\
      --seed=0 --out=digits.npz
  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png \\
      --solver=sde_dpmpp_2m:eta=0.5 --grid=uniform_flow:shift=3 \\
      --guidance=3 --guidance_interval=-3,4 --trajectory=way.gif

A solver or grid may have settings, as name:setting=value,setting=value; a
solver may also be the .npz file of a learned one. Labels are gone through over
and over; all classes by default. An .npz holds `samples` and `labels`. Sample i
of a seed is the same whatever the number of samples and the batch size.
"""

import math
import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal

SETTINGS = ("solver", "grid", "num_steps", "guidance", "num_samples")


def define(values):
  """The flags; of SETTINGS, those left out are the config's."""
  for kind, name, default, text in (
    (flags.DEFINE_string, "workdir", None, "Directory of a trained run."),
    (flags.DEFINE_string, "out", None, "File to write, .png or .npz."),
    (flags.DEFINE_integer, "num_samples", None, "How many samples."),
    (flags.DEFINE_string, "solver", None, "Solver, as unipc or ddim:eta=1."),
    (flags.DEFINE_string, "grid", None, "Grid, as uniform_t or karras:rho=5."),
    (flags.DEFINE_integer, "num_steps", None, "Steps from noise to data."),
    (flags.DEFINE_float, "guidance", None, "Guidance strength, 1 is off."),
    (flags.DEFINE_string, "guidance_interval", None, "Only in logsnr LO,HI."),
    (flags.DEFINE_float, "guidance_rescale", 0.0, "CFG-rescale, 0 to 1."),
    (flags.DEFINE_boolean, "cfg_plus_plus", False, "CFG++, strength 0 to 1."),
    (flags.DEFINE_string, "weak_workdir", None, "Weaker run: autoguidance."),
    (flags.DEFINE_string, "clip", None, "Threshold x̂: static or dynamic."),
    (flags.DEFINE_string, "labels", None, "Classes, as 0,1,2."),
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
  for name in ("num_samples", "num_steps"):
    if settings[name] < 1:
      raise Refusal(f"--{name} must be at least 1, not {settings[name]}")
  if values.batch_size < 1:
    raise Refusal(f"--batch_size must be at least 1, not {values.batch_size}")
  if not 0 <= values.seed < 2**32:
    raise Refusal(f"--seed must be in [0, 2^32), not {values.seed}")
  if not math.isfinite(settings["guidance"]):
    raise Refusal(f"--guidance must be finite, not {settings['guidance']}")
  if values.clip not in (None, "static", "dynamic"):
    raise Refusal(f"--clip must be static or dynamic, not {values.clip!r}")
  if not 0.0 <= values.guidance_rescale <= 1.0:
    raise Refusal(
      f"--guidance_rescale must be in [0, 1], not {values.guidance_rescale}"
    )
  return settings


def guiding(values):
  """The settings of guidance as `Guided` takes them."""
  settings = {
    "rescale": values.guidance_rescale,
    "plus_plus": values.cfg_plus_plus,
  }
  if values.guidance_interval is not None:
    low_high = cli.numbers(values.guidance_interval, "guidance_interval")
    if len(low_high) != 2 or not low_high[0] < low_high[1]:
      raise Refusal(
        "--guidance_interval must be LO,HI with LO < HI, not "
        f"{values.guidance_interval!r}"
      )
    settings["interval"] = tuple(low_high)
  return settings


def labels_of(values, run, num_samples):
  """The label of every sample, or None for all classes in turn."""
  import numpy as np

  if values.labels is None:
    return None
  num_classes = run.dataset.num_classes
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


def main(argv):
  values = cli.new_flags()
  define(values)
  cli.parse(values, argv, __doc__, required=("workdir", "out"))
  check_files(values)

  from diffflow_jax.training import workdir as workdir_lib

  config = workdir_lib.load_config(values.workdir)
  how = check_settings(values, config)

  from diffflow_jax.training import generate, loop, resolve, restore

  run = resolve.resolve(config)
  tableau = generate.make_tableau(
    run.objective,
    how["solver"],
    how["grid"],
    how["num_steps"],
    ("--solver", "--grid"),
  )
  labels = labels_of(values, run, how["num_samples"])
  settings = guiding(values)
  if values.guidance not in (None, 1.0) and not run.dataset.num_classes:
    if values.weak_workdir is None:
      raise Refusal(f"--guidance: {values.workdir} was trained without classes")
  loop.use_compile_cache(values.workdir)
  step, ema = restore.load_ema(values.workdir, run)
  if values.weak_workdir is not None:
    settings["weak"] = restore.load_predictor(values.weak_workdir)
  predict = generate.make_predict(
    run, ema, how["guidance"], values.clip, **settings
  )
  if values.trajectory is not None:
    _write_way(values, run, predict, tableau, labels, how["num_samples"])
  samples, labels = generate.generate(
    run,
    predict,
    tableau,
    num_samples=how["num_samples"],
    seed=values.seed,
    labels=labels,
    batch_size=values.batch_size,
  )
  _write(values.out, run, samples, labels)
  print(
    f"{len(samples)} samples of step {step} in {values.out}, "
    f"{tableau.num_evaluations} evaluations each"
  )


def _write(out, run, samples, labels):
  import numpy as np

  from diffflow_jax.training import generate

  if out.lower().endswith(".png"):
    generate.save_picture(out, run, samples, labels)
  else:
    arrays = {"samples": samples}
    if labels is not None:
      arrays["labels"] = labels
    np.savez(out, **arrays)


def _write_way(values, run, predict, tableau, labels, num_samples):
  from diffflow_jax.plots import trajectory
  from diffflow_jax.training import generate

  num = min(num_samples, 2000 if len(run.dataset.shape) == 1 else 25)
  frames, names = generate.trajectory(
    run,
    predict,
    tableau,
    num_samples=num,
    seed=values.seed,
    labels=None if labels is None else labels[:num],
  )
  trajectory.save(values.trajectory, frames, names)
  print(f"the way of {num} of them in {values.trajectory}")
