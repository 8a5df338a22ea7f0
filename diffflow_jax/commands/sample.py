"""Draws samples from a trained run, as a picture or as arrays.

  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png
  python -m diffflow_jax.sample --workdir=runs/digits --num_samples=1000 \\
      --solver=dpmpp_2m --num_steps=20 --guidance=2.0 --labels=0,1,2 \\
      --seed=0 --out=digits.npz
  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png \\
      --solver=sde_dpmpp_2m:eta=0.5 --grid=uniform_flow:shift=3 \\
      --guidance=3 --guidance_interval=-3,4 --trajectory=way.gif

A solver, grid or clip may have settings, as name:setting=value,setting=value. A
solver may also be `adaptive:rtol=1e-4,atol=1e-4` (diffrax, between the ends of
the grid) or the .npz file of a learned one, which brings its grid; a grid may
be table_rows:spacing=leading, or file:path=LEVELS.npy,kind=sigma. Labels are
gone through over and over; all classes by default. An .npz holds `samples` and
`labels`. Sample i of a seed is the same whatever the number of samples, the
batch size and the number of devices, all of which take part.
"""

from diffflow_jax import cli
from diffflow_jax.cli import Failure, Refusal
from diffflow_jax.commands.sample_flags import (
  check_files,
  check_memory,
  check_settings,
  check_weak,
  define,
  guiding,
  labels_of,
  restart_of,
)


def main(argv):
  """Draws samples, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  define(values)
  cli.parse(values, argv, __doc__, required=("workdir", "out"))
  check_files(values)

  from diffflow_jax.runs import workdir as workdir_lib

  config = workdir_lib.load_config(values.workdir)
  how = check_settings(values, config)

  import jax
  import numpy as np

  from diffflow_jax.runs import (
    compile_cache,
    generate,
    progress,
    restore,
    sharding,
  )

  run = restore.load_recipe(values.workdir)
  tableau = generate.make_tableau(
    run.objective,
    how["solver"],
    how["grid"],
    how["num_steps"],
    ("--solver", "--grid"),
    restart_of(values),
  )
  check_memory(run, how["num_samples"], values.batch_size)
  check_weak(values, run)
  labels = labels_of(values, run, how["num_samples"])
  settings = guiding(values, run.card.num_classes)
  if values.guidance not in (None, 1.0) and not run.card.num_classes:
    if values.weak_workdir is None:
      raise Refusal(f"--guidance: {values.workdir} was trained without classes")
  compile_cache.use(values.workdir)
  step, ema = restore.load_ema(values.workdir, run, values.step, values.ema)
  if values.weak_workdir is not None:
    settings["weak"] = restore.load_predictor(values.weak_workdir)
  predict = generate.make_predict(
    run, ema, how["guidance"], values.clip, **settings
  )
  if values.trajectory is not None:
    _write_way(values, run, predict, tableau, labels, how["num_samples"])
  samples, labels, evaluations = generate.evaluated(
    run,
    predict,
    tableau,
    num_samples=how["num_samples"],
    seed=values.seed,
    labels=labels,
    batch_size=values.batch_size,
    mesh=sharding.make_mesh() if jax.device_count() > 1 else None,
    drawn=progress.Counter(how["num_samples"], "samples"),
  )
  bad = int(np.sum(~np.isfinite(samples).reshape(len(samples), -1).all(1)))
  some = values.out.lower().endswith(".npz") and bad < len(samples)
  if some or not bad:
    _write(values.out, run, samples, labels)
  if bad:
    raise Failure(
      f"{bad} of {len(samples)} samples are not finite (NaN or inf): "
      f"{values.out} is {'written with them' if some else 'not written'}"
    )
  print(
    f"{len(samples)} samples of step {step} in {values.out}, "
    f"{evaluations:g} evaluations each"
  )


def _write(out, run, samples, labels):
  import numpy as np

  from diffflow_jax.runs import generate

  if out.lower().endswith(".png"):
    generate.save_picture(out, run, samples, labels)
  else:
    arrays = {"samples": samples}
    if labels is not None:
      arrays["labels"] = labels
    np.savez(out, **arrays)


def _write_way(values, run, predict, tableau, labels, num_samples):
  from diffflow_jax.plots import trajectory
  from diffflow_jax.runs import generate

  num = min(num_samples, 2000 if len(run.card.shape) == 1 else 25)
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
