"""Few-step methods at equal training time, in 1, 2, 4 and 8 evaluations.

    python benchmarks/few_step.py points                # a 2-D mixture
    python benchmarks/few_step.py digits --seconds=240
    python benchmarks/few_step.py points digits --write

One teacher is trained; then every method for the same number of seconds of CPU
time, its steps counted by what one of them costs. Students start from the
teacher, those that learn from data from nothing. Points are judged by the
sliced Wasserstein distance to exact samples, over that between two exact sets,
the floor; digits by the Fréchet distance in pixels over that of the
teacher at 20 evaluations, and the share that an SVM reads as its label
(digits_quality.py). --write keeps benchmarks/results/few_step.md and .png.
"""

import argparse
import pathlib
import tempfile
import time

import jax
import numpy as np

import diffflow_jax as dfj
from diffflow_jax import config_files, data
from diffflow_jax.evaluation import sliced
from diffflow_jax.training import programs
from diffflow_jax.training.few_step.distill import inherited
from diffflow_jax.training.loop import train
from diffflow_jax.training.resolve import resolve

HERE = pathlib.Path(__file__).resolve().parent
EVALUATIONS = (1, 2, 4, 8)
NUM_POINTS, NUM_DIGITS = 4096, 1000
# name: (config, its teacher)
METHODS = {
  "reflow": ("distill.py:reflow", "teacher"),
  "reflow, two rounds": ("distill.py:reflow", "reflow"),
  "Luhman & Luhman": ("distill.py:luhman", "teacher"),
  "progressive": ("distill.py:progressive", "teacher"),
  "consistency distillation": ("distill.py:consistency", "teacher"),
  "consistency training": ("few_step.py:consistency", None),
  "sCM distillation": ("distill.py:scm", "teacher"),
  "sCM training": ("few_step.py:scm", None),
  "MeanFlow": ("few_step.py:meanflow", None),
  "improved MeanFlow": ("few_step.py:imf", None),
  "shortcut": ("few_step.py:shortcut", None),
  "Lagrangian": ("distill.py:lagrangian", "teacher"),
}
HAND_MADE = ("unipc", "uniform_flow")  # the teacher's, at few evaluations


def config_of(spec, toy, source):
  """The config of a method, completed by its teacher's."""
  config = config_files.load(f"{HERE.parent}/configs/{spec}{',toy' * toy}")
  if source is not None:
    config = inherited(config, source)
  elif toy:
    config.dataset, config.held_out = dict(name="ring"), dict(num=512)
  return config


def scaled(config, num_steps):
  """config with another length, and all that follows it."""
  whole = config.num_steps
  config.num_steps = num_steps
  for section, field in (
    ("learning_rate", "decay_steps"), ("method", "num_steps"),
    ("method", "warmup"), ("method", "steps_per_stage"),
  ):  # fmt: skip
    part = config.get(section, {})
    if field in part and part[field] != num_steps:
      part[field] = max(part[field] * num_steps // whole, 1)
  rate = config.learning_rate
  if "warmup_steps" in rate:
    rate.warmup_steps = min(rate.warmup_steps, rate.decay_steps // 4)
  for field in ("log_every", "sample_every", "checkpoint_every"):
    config[field] = num_steps
  config.keep.best = 0
  return config


def step_seconds(config, num=8):
  """CPU seconds of a step, without its compilation."""
  program = programs.build(resolve(config))
  state = program.init({})
  batches = [program.batch(n) for n in range(num)]
  state = jax.block_until_ready(program.step(state, batches[0]))
  start = time.process_time()
  for batch in batches[1:]:
    state = program.step(state, batch)
  jax.block_until_ready(state)
  return (time.process_time() - start) / (num - 1)


def trained(folder, name, config, seconds):
  """The run of a config that trained for so long, and its number of steps."""
  pairs = config.get("method", {}).get("pairs", 0)
  if pairs:  # the same step, but for its input
    config.method.pairs = 0
  cost = step_seconds(config)
  if pairs:
    config.method.pairs = pairs
  config = scaled(config, max(8, int(seconds / cost)))
  workdir = str(pathlib.Path(folder) / name.replace(" ", "_"))
  train(config, workdir)
  return dfj.load(workdir), config.num_steps


def judge_points(run, **how):
  """Sliced Wasserstein distance to exact samples, over that of two sets."""
  ring = data.ring()
  exact = [ring.batch(seed, 0, NUM_POINTS)["x"] for seed in (10**6, 10**6 + 1)]
  theta = sliced.directions(256, 2)
  ordered = lambda x: np.sort(np.asarray(x) @ theta, axis=0)
  distance = lambda x: np.sqrt(np.mean((ordered(x) - ordered(exact[0])) ** 2))
  samples = run.sample(NUM_POINTS, seed=1, batch_size=NUM_POINTS, **how)
  return distance(samples) / distance(exact[1]), None


def judge_digits(run, **how):
  """(Fréchet distance in pixels, share read as its label)."""
  import digits_quality

  found = digits_quality.judge(
    run.sample(NUM_DIGITS, seed=1, **how), run.labels(NUM_DIGITS)
  )
  ratio = found["Frechet distance, ratio to two halves"]
  return ratio, found["samples that it reads as their label"]


def rows_of(task, seconds, folder):
  """[(name, steps, {evaluations: (distance, share)})] of a task."""
  toy = task == "points"
  judge = judge_points if toy else judge_digits
  file = "toy2d" if toy else "digits"
  config = config_files.load(f"{HERE.parent}/configs/{file}.py")
  if toy:
    config.dataset, config.held_out = dict(name="ring"), dict(num=512)
  teacher, steps = trained(folder, "teacher", config, seconds)
  runs = {"teacher": teacher}
  best = judge(teacher)  # as its config has it: 20 evaluations
  solver, grid = HAND_MADE
  found = {
    n: judge(teacher, solver=solver, grid=grid, num_steps=n)
    for n in EVALUATIONS
  }
  rows = [(f"teacher, {solver}", steps, found | {20: best})]
  yield rows[-1]
  for name, (spec, source) in METHODS.items():
    source = source and runs[source].path
    config = config_of(spec, toy, source)
    runs[name], steps = trained(folder, name, config, seconds)
    one_step = name.startswith("Luhman")
    found = {
      n: judge(runs[name], num_steps=n)
      for n in (EVALUATIONS[:1] if one_step else EVALUATIONS)
    }
    yield name, steps, found


def cell(entry, best):
  """A cell of the table: the ratio, and the share where there is one."""
  if entry is None:
    return ""
  distance, share = entry
  if share is None:
    return f"{distance:.3g}"
  return f"{distance / best:.2f}, {share:.3f}"


def table(task, rows):
  """Lines of Markdown."""
  best = rows[0][2][20][0]
  columns = (*EVALUATIONS, 20)
  yield f"| {task} | steps | " + " | ".join(map(str, columns)) + " |"
  yield "|---" * (len(columns) + 2) + "|"
  for name, steps, found in rows:
    cells = (cell(found.get(n), best) for n in columns)
    yield f"| {name} | {steps} | " + " | ".join(cells) + " |"


def picture(path, tasks):
  """Distance by evaluations, a curve for each method."""
  import matplotlib.pyplot as plt

  _, axes = plt.subplots(1, len(tasks), figsize=(7 * len(tasks), 5))
  for axis, (task, rows) in zip(
    np.atleast_1d(axes), tasks.items(), strict=True
  ):
    for name, _, found in rows:
      at = [n for n in EVALUATIONS if n in found]
      style = "k--" if name.startswith("teacher") else "o-"
      axis.loglog(at, [found[n][0] for n in at], style, label=name)
    axis.set_xticks(EVALUATIONS, EVALUATIONS)
    axis.set_xlabel("evaluations")
    axis.set_title(task)
    axis.legend(fontsize=7)
  plt.tight_layout()
  plt.savefig(path, dpi=80)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("tasks", nargs="+", choices=("points", "digits"))
  parser.add_argument("--seconds", type=float, default=240.0)
  parser.add_argument("--write", action="store_true")
  asked = parser.parse_args()
  tasks, lines = {}, []
  for task in asked.tasks:
    with tempfile.TemporaryDirectory() as folder:
      rows = []
      for row in rows_of(task, asked.seconds, folder):
        rows.append(row)
        print(*row, flush=True)
    tasks[task] = rows
    lines += [*table(task, rows), ""]
  text = "\n".join(lines)
  print(text)
  if asked.write:
    head = f"# Few steps, {asked.seconds:g} s of training each\n\n"
    (HERE / "results" / "few_step.md").write_text(head + text)
    picture(HERE / "results" / "few_step.png", tasks)


if __name__ == "__main__":
  main()
