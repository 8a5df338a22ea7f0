"""Draws samples from a trained run, as a picture or as arrays.

  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png
  python -m diffflow_jax.sample --workdir=runs/digits --num_samples=1000 \\
      --solver=dpmpp_2m --num_steps=20 --guidance=2.0 --labels=0,1,2 \\
      --seed=0 --out=digits.npz

Labels are gone through over and over; all classes by default. An .npz holds
`samples` and `labels`. Sample i of a seed is the same whatever the number of
samples and the batch size.
"""

import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal


def define(values):
  """The flags; those left out are the config's sampler settings."""
  for kind, name, default, text in (
    (flags.DEFINE_string, "workdir", None, "Directory of a trained run."),
    (flags.DEFINE_string, "out", None, "File to write, .png or .npz."),
    (flags.DEFINE_integer, "num_samples", None, "How many samples."),
    (flags.DEFINE_string, "solver", None, "Name of a solver."),
    (flags.DEFINE_integer, "num_steps", None, "Steps from noise to data."),
    (flags.DEFINE_float, "guidance", None, "Guidance strength, 1 is off."),
    (flags.DEFINE_string, "labels", None, "Classes, as 0,1,2."),
    (flags.DEFINE_integer, "seed", 0, "Seed of the noise."),
    (flags.DEFINE_integer, "batch_size", 256, "Samples at a time."),
  ):
    kind(name, default, text, flag_values=values)


def check(values, run):
  """Refuses what cannot be sampled; returns the settings of `generate`."""
  settings = run.config.sampler.to_dict()
  for name in settings:
    if values[name].value is not None:
      settings[name] = values[name].value
  from diffflow_jax.sampling.solvers import SOLVERS

  if settings["solver"] not in SOLVERS:
    raise Refusal(
      f"--solver is {settings['solver']!r}; known: {', '.join(sorted(SOLVERS))}"
    )
  for name in ("num_samples", "num_steps"):
    if settings[name] < 1:
      raise Refusal(f"--{name} must be at least 1, not {settings[name]}")
  if values.batch_size < 1:
    raise Refusal(f"--batch_size must be at least 1, not {values.batch_size}")
  if not 0 <= values.seed < 2**32:
    raise Refusal(f"--seed must be in [0, 2^32), not {values.seed}")
  settings.update(seed=values.seed, batch_size=values.batch_size)
  if values.labels is not None:
    settings["labels"] = _labels(values, run, settings["num_samples"])
  return settings


def _labels(values, run, num_samples):
  import numpy as np

  num_classes = run.dataset.num_classes
  if not num_classes:
    raise Refusal(f"--labels: {values.workdir} was trained without classes")
  wanted = cli.integers(values.labels, "labels")
  for label in wanted:
    if not 0 <= label < num_classes:
      raise Refusal(f"--labels must be 0 to {num_classes - 1}, not {label}")
  return np.resize(wanted, num_samples)


def main(argv):
  values = cli.new_flags()
  define(values)
  cli.parse(values, argv, __doc__, required=("workdir", "out"))
  kind = os.path.splitext(values.out)[1]
  if kind not in (".png", ".npz"):
    raise Refusal(f"--out must end in .png or .npz, not {values.out!r}")
  cli.need_directory_of(values.out, "out")

  from diffflow_jax.training import workdir as workdir_lib

  config = workdir_lib.load_config(values.workdir)

  import numpy as np

  from diffflow_jax.training import generate, loop, resolve, restore

  run = resolve.resolve(config)
  settings = check(values, run)
  loop.use_compile_cache(values.workdir)
  step, ema = restore.load_ema(values.workdir, run)
  samples, labels = generate.generate(run, ema, **settings)
  if kind == ".png":
    generate.save_picture(values.out, run, samples, labels)
  else:
    arrays = {"samples": samples}
    if labels is not None:
      arrays["labels"] = labels
    np.savez(values.out, **arrays)
  print(f"{len(samples)} samples of step {step} in {values.out}")
