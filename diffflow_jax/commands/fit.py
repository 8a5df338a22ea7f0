"""Fits solvers of few evaluations to a trained run, without training it.

  python -m diffflow_jax.fit --workdir=runs/digits --num_evaluations=4,5,8 \\
      --out=digits_solvers.npz
  python -m diffflow_jax.sample --workdir=runs/digits --num_steps=5 \\
      --solver=digits_solvers.npz --out=digits.png

A learned table for each number of evaluations: its weights and levels are
fitted to the network's own fine solution, from the best hand-made solver on, at
the strength of guidance that it will be used with (the config's, if left out).
It serves any seed and any labels of this run; for another run, average or
strength of guidance `sample` warns. In Python: `dfj.load(workdir).sample(
solver="digits_solvers.npz", num_steps=5)`; of num_steps left out, the table of
the most evaluations.

What is printed at the end is of noise that no fit saw: the mean RMS distance to
the fine solution, and the Fréchet distance to the run's data in pixels, as a
multiple of that of two halves of the data.
"""

from absl import flags

from diffflow_jax import cli

SHOWN = 5  # hand-made solvers in the printed table


def main(argv):
  """Fits tables to a run, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  for define, name, default, text in (
    (flags.DEFINE_string, "workdir", None, "Directory of a trained run."),
    (flags.DEFINE_string, "num_evaluations", None, "Tables, as 4,5,8,10."),
    (flags.DEFINE_string, "out", None, "File to write, a new .npz."),
    (flags.DEFINE_float, "guidance", None, "Guidance strength, 1 is off."),
    (flags.DEFINE_float, "average", None, "Width of one, from snapshots."),
    (flags.DEFINE_integer, "step", None, "Checkpoint, not the newest one."),
    (flags.DEFINE_integer, "batch", 16, "Samples at a time."),
    (flags.DEFINE_integer, "seed", 0, "Seed of the noise."),
  ):
    define(name, default, text, flag_values=values)
  cli.parse(
    values, argv, __doc__, required=("workdir", "num_evaluations", "out")
  )
  counts = cli.numbers(values.num_evaluations, "num_evaluations", int)

  from diffflow_jax.runs import fitting, loading

  fitting.check_out(values.out, "--out")
  cli.open_output(values.out, "out")
  run = loading.opened(values.workdir, values.step, values.average, _flag)
  made, about, rows = fitting.fit(
    run,
    counts,
    guidance=values.guidance,
    batch=values.batch,
    seed=values.seed,
    say=lambda line: print(line, flush=True),
  )
  fitting.write(values.out, made, about)
  print(_table(rows))
  print(f"tables of step {run.step} of {run.path} in {values.out}")


def _flag(name):
  """The flag of a setting."""
  return "--average" if name == "ema" else f"--{name}"


def _table(rows):
  """The learned tables beside the best hand-made ones, as text."""
  lines = ["evaluations  solver, grid                    error     Fréchet"]
  for count, found in rows.items():
    best = sorted(found[1:-1], key=lambda row: row[2] or row[1])[:1]
    shown = [found[0], *found[1 : 1 + SHOWN], *best, found[-1]]
    for name, error, ratio in dict.fromkeys(shown):
      worth = "      -" if ratio is None else f"{ratio:7.3f}"
      lines.append(f"{count:11d}  {name:30s}  {error:7.4f}   {worth}")
  return "\n".join(lines)
