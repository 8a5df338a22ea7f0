"""Draws samples from a trained run, as a picture or as arrays.

  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png
  python -m diffflow_jax.sample --workdir=runs/digits --num_samples=1000 \\
      --solver=dpmpp_2m --num_steps=20 --guidance=2.0 --labels=0,1,2 \\
      --seed=0 --out=digits.npz
  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png \\
      --solver=sde_dpmpp_2m:eta=0.5 --grid=uniform_flow:shift=3 \\
      --guidance=3 --guidance_interval=-3,4 --trajectory=way.gif

A solver, grid or clip may have settings, as name:setting=value,setting=value. A
solver may also be `auto`, which chooses solver and grid for --num_steps
evaluations, `adaptive:rtol=1e-4,atol=1e-4` (diffrax, between the ends of the
grid) or the .npz file of a learned one, which brings its grid; a grid may be
table_rows:spacing=leading, or file:path=LEVELS.npy,kind=sigma. Labels are gone
through over and over, once without --num_samples where they are several; all
classes by default. An .npz holds `samples`, `labels`, and what else the samples
were told, by name.

Of data with more than labels, --conditions=FILE.npz gives arrays by name, a row
for each sample (and <name>_mask, True where something is said); --held_out=0,5
takes the conditions of held-out examples, from the run's data; by default they
are those that training kept. --guided=text guides by this one alone.

Sample i of a seed is the same whatever the number of samples, the
batch size and the number of devices, all of which take part. --workdir may also
be a folder that `export` wrote. In Python: `dfj.load(workdir).sample(...)`.
"""

from diffflow_jax import cli
from diffflow_jax.cli import Failure
from diffflow_jax.commands.sample_flags import (
  check_files,
  define,
  flag,
  said,
  settings_of,
)


def main(argv):
  """Draws samples, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  define(values)
  cli.parse(values, argv, __doc__, required=("workdir", "out"))
  check_files(values)
  told = said(values)
  how = settings_of(values) | told | {"seed": values.seed}

  import numpy as np

  from diffflow_jax.runs import loading, progress

  run = loading.opened(values.workdir, values.step, values.ema, flag)
  if values.trajectory is not None:
    _write_way(values, run, how)
  samples, labels, evaluations = run.draw(
    values.num_samples,
    batch_size=values.batch_size,
    drawn=progress.Counter,
    **how,
  )
  bad = int(np.sum(~np.isfinite(samples).reshape(len(samples), -1).all(1)))
  some = values.out.lower().endswith(".npz") and bad < len(samples)
  if some or not bad:
    _write(values.out, run, samples, labels, told)
  if bad:
    raise Failure(
      f"{bad} of {len(samples)} samples are not finite (NaN or inf): "
      f"{values.out} is {'written with them' if some else 'not written'}"
    )
  print(
    f"{len(samples)} samples of step {run.step} in {values.out}, "
    f"{evaluations:g} evaluations each"
  )


def _write(out, run, samples, labels, told):
  import numpy as np

  from diffflow_jax.runs.prompts import as_arrays

  cond = run.cond(len(samples), **told)
  if out.lower().endswith(".png"):
    run.save_picture(out, samples, labels, cond)
  else:
    arrays = {"samples": samples}
    if labels is not None:
      arrays["labels"] = labels
    np.savez(out, **arrays, **as_arrays(cond))


def _write_way(values, run, how):
  """The way of the first samples."""
  from diffflow_jax.plots import trajectory

  frames, names = run.trajectory(values.num_samples, most=run.shown, **how)
  num = frames.z.shape[1]
  trajectory.save(values.trajectory, frames, names)
  print(f"the way of {num} of them in {values.trajectory}")
