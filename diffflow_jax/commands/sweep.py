"""Trains a config with one change after another, and compares what came of it.

  python -m diffflow_jax.sweep --config=configs/toy2d.py \\
      --sweep=configs/sweeps/learning_rate.py --out=runs/learning_rate
FILE.py has a function that yields what is changed, {field: value}:

  def sweep():
    for rate in (5e-4, 2e-3, 8e-3):
      yield {"learning_rate.peak_value": rate}

Each run is a process of `train` in a workdir of its own below --out, named by
its changes, as learning_rate.peak_value=0.002; --config.field=value changes all
of them. With --evaluate, flags of `evaluate`, that command judges each of them
when it is trained. In the end there are a table (sweep.csv) and a picture
(sweep.png) of --metric, a name of the evaluation or of metrics.jsonl.

The same command again goes on: what is finished is left as it is, what was
killed resumes, and runs that were added to the file are made. What fails is
said, the others go on, and the exit status is 1.

--list shows the runs with their numbers and trains none. --index=N trains the
run of this number alone, and so does each task of a SLURM array:

  sbatch --array=0-5 --gpus=1 --wrap="python -m diffflow_jax.sweep --config=…"

The same command without --index, when all are done, makes table and picture.
"""

import os
import shlex

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Failure, Refusal

INDEX = "SLURM_ARRAY_TASK_ID"


def main(argv):
  """Sweeps, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  cli.define_config(values, argv)
  for define, name, text in (
    (flags.DEFINE_string, "sweep", "FILE.py with a function sweep()."),
    (flags.DEFINE_string, "out", "Folder of the runs."),
    (flags.DEFINE_string, "metric", "What to compare, by its name."),
    (flags.DEFINE_string, "evaluate", "Flags of `evaluate`, in one text."),
    (flags.DEFINE_integer, "index", f"This run alone; by itself ${INDEX}."),
  ):
    define(name, None, text, flag_values=values)
  flags.DEFINE_bool("list", False, "Show the runs only.", flag_values=values)
  cli.parse(values, argv, __doc__, required=("config", "sweep"))

  from diffflow_jax.commands import sweep_file

  given = values["config"].override_values
  filename = values["config"].config_filename
  entries = sweep_file.read(values.sweep, filename, given)
  if values.list:
    for number, entry in enumerate(entries):
      print(f"{number:3d}  {entry.name}")
    return
  cli.check_given(values, "out")
  _check_evaluate(values.evaluate)
  only = _index(values.index, len(entries))
  _sweep(entries, only, values)


def _check_evaluate(text):
  """Refuses what are no flags, and those that the sweep gives itself."""
  try:
    parts = shlex.split(text or "")
  except ValueError:  # a quote that does not end
    parts = None
  ours = ("--workdir", "--out")
  fits = lambda part: part.startswith("--") and not part.startswith(ours)
  if parts is None or not all(map(fits, parts)):
    raise Refusal(
      "--evaluate must be flags of `evaluate` but --workdir and --out, as "
      f"'--metrics=fid --num_samples=2000', not {text!r}"
    )


def _index(index, num):
  """Which run alone, or None."""
  name, task = "--index", os.environ.get(INDEX)
  if index is None and task:
    name, index = f"${INDEX}", int(task)
  if index is not None and not 0 <= index < num:
    raise Refusal(f"{name} must be in [0, {num}), not {index}: see --list")
  return index


def _sweep(entries, only, values):
  from diffflow_jax.commands import sweep_runs
  from diffflow_jax.commands.children import Children

  out, judge = values.out, values.evaluate
  chosen = entries if only is None else [entries[only]]
  config = cli.chosen_config(values)
  sweep_runs.claim(out, entries, config, write=only is None)
  new = [e for e in chosen if not sweep_runs.is_trained(out, e)]
  sweep_runs.check(new)
  states = []
  with Children() as children:
    for entry in chosen:
      place = f"[{entries.index(entry) + 1}/{len(entries)}] {entry.name}"
      print(place, "" if entry in new else "is there", flush=True)
      states.append(sweep_runs.make(out, entry, judge, children))
      if states[-1] != sweep_runs.FINISHED:
        print(f"{place} {states[-1]}", flush=True)
      if children.stopped:
        break
  states += ["not begun"] * (len(chosen) - len(states))
  _report(chosen, states, values, only)
  unfinished = len(states) - states.count(sweep_runs.FINISHED)
  if unfinished:
    why = f"{children.stopped}: " if children.stopped else ""
    raise Failure(
      f"{why}{unfinished} of {len(states)} runs are not finished; the same "
      "command goes on"
    )


def _report(entries, states, values, only):
  """The table on the screen; of the whole sweep also as files."""
  from diffflow_jax.commands import sweep_results, sweep_runs

  out = values.out
  judge = values.evaluate
  found = [
    sweep_results.numbers(
      sweep_runs.workdir(out, entry),
      judge is not None and sweep_runs.is_judged(out, entry, judge),
    )
    for entry in entries
  ]
  metric = sweep_results.chosen(values.metric, found)
  rows = sweep_results.rows_of(entries, states, found, metric)
  print(sweep_results.as_text(rows, metric))
  if only is None:
    written = sweep_results.write(out, rows, metric)
    print(f"{' and '.join(written)} in {out}")
