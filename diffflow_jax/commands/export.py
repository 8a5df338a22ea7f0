"""Writes a trained run as a small folder to share.

  python -m diffflow_jax.export --workdir=runs/digits --out=digits
  python -m diffflow_jax.export --workdir=runs/digits --out=digits \\
      --batch=16 --sampler=dpmpp_2m --num_steps=20 --guidance=2.0

The folder gets the averaged parameters (params.safetensors), the config, what
the run knows of its data, a picture of samples and a model card (README.md)
whose licence is yours to fill in. `dfj.load` and `sample --workdir` read it as
they read the run, to the same samples.

With --batch, the whole sampler becomes one file as well, sampler.jaxexport:
network, parameters, guidance and table, for batch samples a call. It runs with
jax alone (and flatbuffers), or by `dfj.load_exported(FILE)(key, labels)`. Of
sampler, grid, num_steps and guidance, those left out are the config's.
"""

from absl import flags

from diffflow_jax import cli


def main(argv):
  """Exports a run, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  for define, name, text in (
    (flags.DEFINE_string, "workdir", "Directory of a trained run."),
    (flags.DEFINE_string, "out", "Folder to write, a new one."),
    (flags.DEFINE_integer, "step", "Checkpoint, not the newest one."),
    (flags.DEFINE_float, "ema", "Width of an average, from snapshots."),
    (flags.DEFINE_integer, "batch", "Samples of one call of the sampler."),
    (flags.DEFINE_string, "sampler", "Solver, as unipc or ddim:eta=1."),
    (flags.DEFINE_string, "grid", "Grid, as uniform_t or karras:rho=5."),
    (flags.DEFINE_integer, "num_steps", "Steps from noise to data."),
    (flags.DEFINE_float, "guidance", "Guidance strength, 1 is off."),
  ):
    define(name, None, text, flag_values=values)
  cli.parse(values, argv, __doc__, required=("workdir", "out"))

  from diffflow_jax.runs import loading

  run = loading.opened(values.workdir, values.step, values.ema, _flag)
  run.export(
    values.out,
    batch=values.batch,
    solver=values.sampler,
    grid=values.grid,
    num_steps=values.num_steps,
    guidance=values.guidance,
  )
  print(f"step {run.step} of {run.path} in {values.out}: see its README.md")


def _flag(name):
  """The flag of a setting."""
  return "--sampler" if name == "solver" else f"--{name}"
