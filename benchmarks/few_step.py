"""Few-step methods at equal training time, in 1, 2, 4 and 8 evaluations.

    python benchmarks/few_step.py points --seconds=20   # a 2-D mixture
    python benchmarks/few_step.py RUN,FEATURES --seconds=200 --out=FOLDER
    python benchmarks/few_step.py RUN,FEATURES --steps=2000 --only=teacher
    python benchmarks/few_step.py FOLDER/*.json --write

Every method goes on from one teacher, on its network, for the same number of
seconds of CPU time, the making of pairs included, its steps counted by what one
of them costs (of time by the clock, on an accelerator); or for the arithmetic
of as many ordinary steps, where several processes share one. A learned table is
fitted and trains nothing. Progressive distillation's students of more steps are
those of its earlier stages. Of points the teacher is trained as long; they are
judged by the sliced Wasserstein distance to exact samples over that of two
exact sets, the floor. Of images it is RUN, and FEATURES the folder of a
classifier that `train_features` left: the Fréchet distance is in its features,
and the share is of samples that it reads as their label. --only takes the
methods whose names begin so. Each task leaves its numbers in FOLDER, in a file
that is a task which takes no time: files of one title and budget make one
table, several tables one page; --write keeps it and its picture, few_step.md
and .png, in benchmarks/results.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import re
import tempfile
import time

import jax
import numpy as np

import diffflow_jax as dfj
from diffflow_jax import config_files, data, evaluation
from diffflow_jax.evaluation import sliced
from diffflow_jax.evaluation.extractors.classifier import classifier
from diffflow_jax.runs import datasets, fitting
from diffflow_jax.training import few_step, programs
from diffflow_jax.training.few_step.distill import inherited
from diffflow_jax.training.few_step.pairs import CHUNK
from diffflow_jax.training.loop import train
from diffflow_jax.training.meter import model_flops
from diffflow_jax.training.resolve import resolve

HERE = pathlib.Path(__file__).resolve().parent
EVALUATIONS = (1, 2, 4, 8)
NUM_SETS, NUM_POINTS = 8, 4096
NUM_IMAGES, NUM_REAL = 1000, 4096
PAIRS_TIME = 0.35  # of a method's time, at most, goes into its pairs
# forward passes: a backward pass is two, a derivative along the way one more
COSTS = {"MeanFlow": 4, "consistency distillation": 6, "progressive": 5}
ROUNDS = 8
ABOUT = (
  "Columns are evaluations. Points: sliced Wasserstein distance to exact",
  "samples over that of two exact sets. Images: Fréchet distance in a",
  "classifier's features over that of the teacher at 20, and the share of",
  "samples that it reads as their label.",
)
# name: (config, its teacher); without one it learns from the data
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
TEACHER = f"teacher, {HAND_MADE[0]}"
LEARNED = "teacher, learned table"  # which takes two evaluations or more
ORDER = (TEACHER, LEARNED, *METHODS)
SHARED = ("dataset", "held_out", "network", "batch_size")


def clock():
  """Seconds: of CPU time, or of any where an accelerator computes."""
  on_cpu = jax.default_backend() == "cpu"
  return time.process_time() if on_cpu else time.perf_counter()


def config_of(spec, toy, source, teacher):
  """The config of a method: data and network are the teacher's."""
  config = config_files.load(f"{HERE.parent}/configs/{spec}{',toy' * toy}")
  if source is not None:
    return inherited(config, source)
  theirs = dfj.load(teacher).config
  with config.unlocked():
    for section in SHARED:
      config[section] = theirs[section]
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
  if config.get("method", {}).get("name") == "progressive_distillation":
    config.num_steps = len(EVALUATIONS) * config.method.steps_per_stage
    config.checkpoint_every = config.method.steps_per_stage
    config.keep.latest = len(EVALUATIONS)
  return config


@dataclasses.dataclass
class Seconds:
  """A budget of time, as `clock` has it."""

  amount: float
  unit = "s"

  def step(self, run, pairs, num=10):
    """Of a step of a resolved run: the least of num after a first."""
    program = programs.build(run, pairs)
    state, spent = program.init({}), []
    for batch in [program.batch(n) for n in range(num + 1)]:
      start = clock()
      state = jax.block_until_ready(program.step(state, batch))
      spent.append(clock() - start)
    return min(spent[1:])

  def chunk(self, run):
    """Of a file of pairs."""
    with tempfile.TemporaryDirectory() as folder:
      return self.pairs(run, few_step.pairs(run), folder)

  def pairs(self, run, pairs, workdir):
    """Makes all of a run's, and what that took."""
    start = clock()
    pairs.make(workdir)
    return clock() - start


@dataclasses.dataclass
class Steps:
  """A budget of arithmetic, in ordinary training steps."""

  amount: float
  unit = "ordinary steps"

  def step(self, run, pairs):
    program = programs.build(run, pairs)
    size = run.config.batch_size
    like = program.like.params
    plain = model_flops(run.network.apply, like, run.dataset, size)
    return program.flops() / plain

  def chunk(self, run):
    """A forward pass of an example is a third of its part of a step."""
    passes = run.method.table.num_evaluations
    passes *= 1 if run.config.teacher.guidance == 1.0 else 2
    return CHUNK * passes / (3 * run.config.batch_size)

  def pairs(self, run, pairs, workdir):
    pairs.make(workdir)
    return self.chunk(run) * -(-len(pairs) // CHUNK)


def affordable(config, budget):
  """How many pairs PAIRS_TIME of a budget is enough for, in whole files."""
  one = config.copy_and_resolve_references()
  one.method.pairs = CHUNK
  spent = budget.chunk(resolve(one))
  return CHUNK * max(1, int(PAIRS_TIME * budget.amount / spent))


def trained(folder, name, config, budget, init_from=None):
  """The workdir of a config that used up the budget, its number of steps."""
  workdir = str(pathlib.Path(folder) / name.replace(" ", "_"))
  if "pairs" in config.get("method", {}):
    most = affordable(config, budget)
    config.method.pairs = min(config.method.pairs, most)
  run, left = resolve(config), budget.amount
  pairs = few_step.pairs(run)
  if pairs is not None:  # which `train` finds made
    left -= budget.pairs(run, pairs, workdir)
  num_steps = max(8, int(left / budget.step(run, pairs)))
  config = scaled(config, num_steps)
  train(
    config,
    workdir,
    init_from=init_from,
    init_from_skip=("*destination*",) if init_from else (),
  )
  return workdir, config.num_steps


def judge_points(run, **how):
  """Sliced Wasserstein distance to exact samples, over that of two sets."""
  shape = 2, NUM_SETS, NUM_POINTS, 2
  exact = data.ring().batch(10**6, 0, math.prod(shape[:3]))["x"].reshape(shape)
  theta = sliced.directions(64, 2)
  ordered = lambda x: np.sort(np.asarray(x) @ theta, axis=1)

  def distance(one, two):
    square = (ordered(one) - ordered(two)) ** 2
    return np.sqrt(square.mean(axis=(1, 2))).mean()

  samples = run.sample(exact[0].size // 2, seed=1, batch_size=8192, **how)
  floor = distance(*exact)
  return distance(samples.reshape(exact[0].shape), exact[0]) / floor, None


def judge_images(run, folder):
  """A judge by a classifier: (Fréchet distance, share read as its label)."""
  features = classifier(folder)
  dataset = datasets.of(run.config)[0]
  batch = dataset.batch(0, 0, min(NUM_REAL, len(dataset)))
  reference = features(np.asarray(dataset.to_float(batch["x"])))

  def judge(run, **how):
    found = features(run.sample(NUM_IMAGES, seed=1, **how))
    read = features.logits(found).argmax(axis=1)
    distance = evaluation.frechet_distance(found, reference)
    return distance, np.mean(read == np.asarray(run.labels(NUM_IMAGES)))

  return judge


def judged(judge, name, workdir, num_steps):
  """{evaluations: (distance, share)} of a student."""
  if name == "progressive":
    stages = len(EVALUATIONS)
    return {
      n: judge(dfj.load(workdir, step=num_steps * i // stages), num_steps=n)
      for i, n in enumerate(reversed(EVALUATIONS), start=1)
    }
  run = dfj.load(workdir)
  counts = EVALUATIONS[:1] if name.startswith("Luhman") else EVALUATIONS
  return {n: judge(run, num_steps=n) for n in counts}


def teacher_of(task, budget, folder):
  """(its run, its steps, the judge of samples)."""
  if task != "points":
    path, _, features = task.partition(",")
    run = dfj.load(path)
    return run, run.step, judge_images(run, features)
  config = config_files.load(f"{HERE.parent}/configs/toy2d.py")
  config.dataset, config.held_out = dict(name="ring"), dict(num=512)
  config.network.level = "angle"  # as configs/few_step.py has it
  workdir, steps = trained(folder, "teacher", config, budget)
  return dfj.load(workdir), steps, judge_points


def rows_of(task, budget, folder, teacher, steps, judge, only):
  """(name, steps, {evaluations: (distance, share)}) of a task, one by one."""
  workdirs, (solver, grid) = {"teacher": teacher.path}, HAND_MADE
  if TEACHER.startswith(only):
    found = {
      n: judge(teacher, solver=solver, grid=grid, num_steps=n)
      for n in EVALUATIONS
    }
    found[20] = judge(teacher)  # as its config has it: 20 evaluations
    yield TEACHER, steps, found
  if LEARNED.startswith(only):
    table = str(pathlib.Path(folder) / "learned.npz")
    made, about, _ = fitting.fit(teacher, EVALUATIONS[1:], num_held=16)
    fitting.write(table, made, about)
    yield (
      LEARNED,
      steps,
      {n: judge(teacher, solver=table, num_steps=n) for n in made},
    )
  for name, (spec, source) in METHODS.items():
    if not name.startswith(only):
      continue
    source = source and workdirs[source]
    config = config_of(spec, task == "points", source, teacher.path)
    start = None if source else teacher.path
    workdirs[name], steps = trained(folder, name, config, budget, start)
    yield name, steps, judged(judge, name, workdirs[name], steps)


def costs(task, teacher):
  """(name, time, FLOPs, passes) of a step, over those of an ordinary one.

  The least of ROUNDS times each, one after the other in turn; FLOPs are
  those of matrix products, over three forward passes of the same network.
  """
  path, toy = teacher.path, task == "points"
  configs = {"ordinary": teacher.config}
  for name in COSTS:
    spec, source = METHODS[name]
    configs[name] = config_of(spec, toy, source and path, path)
    if source:
      configs[name].teacher.guidance = 1.0
  built, flops = {}, {}
  for name, config in configs.items():
    run = resolve(config)
    program = programs.build(run)
    like, size = program.like.params, run.config.batch_size
    plain = model_flops(run.network.apply, like, run.dataset, size)
    flops[name] = program.flops() / plain
    batch = program.batch(0)
    built[name] = program, batch, program.step(program.init({}), batch)
  states = {name: state for name, (*_, state) in built.items()}
  least = dict.fromkeys(built, math.inf)
  for _ in range(ROUNDS):
    for name, (program, batch, _) in built.items():
      state = jax.block_until_ready(states[name])
      start = clock()
      for _ in range(3):
        state = program.step(state, batch)
      states[name] = jax.block_until_ready(state)
      least[name] = min(least[name], clock() - start)
  for name, passes in COSTS.items():
    yield name, least[name] / least["ordinary"], flops[name], passes / 3


def cost_lines(title, rows):
  """Lines of Markdown."""
  yield f"| a step on {title}, over an ordinary one | time | FLOPs | passes |"
  yield "|---|---|---|---|"
  for name, *ratios in rows:
    yield f"| {name} | " + " | ".join(f"{one:.2f}" for one in ratios) + " |"


def cell(entry, best):
  """A cell of the table: the distance, or its ratio to the best and a share."""
  if entry is None:
    return ""
  distance, share = entry
  if share is None:
    return f"{distance:.2f}"
  return f"{distance / best:.2f}, {100 * share:.1f} %"


def table(title, rows):
  """Lines of Markdown."""
  best = rows[0][2][20][0]
  columns = (*EVALUATIONS, 20)
  yield f"| {title} | steps | " + " | ".join(map(str, columns)) + " |"
  yield "|---" * (len(columns) + 2) + "|"
  for name, steps, found in rows:
    cells = (cell(found.get(n), best) for n in columns)
    yield f"| {name} | {steps} | " + " | ".join(cells) + " |"


def picture(path, tasks):
  """Distance by evaluations, a curve for each method."""
  from matplotlib.ticker import LogFormatter

  from diffflow_jax.plots.figures import subplots

  told = {}
  fig, axes = subplots(1, len(tasks), figsize=(6.4 * len(tasks), 5))
  for axis, (title, rows) in zip(
    np.atleast_1d(axes), tasks.items(), strict=True
  ):
    for name, _, found in rows:
      at, i = [n for n in EVALUATIONS if n in found], ORDER.index(name)
      style = "k--" if i == 0 else "ko:" if i == 1 else f"C{i - 2}o-"
      style = f"C{i - 10}s:" if i > 9 else style
      (line,) = axis.semilogx(at, [found[n][0] for n in at], style, ms=4)
      told[name] = line
    told["teacher, 20"] = axis.axhline(rows[0][2][20][0], color="0.7")
    axis.set_xticks(EVALUATIONS, EVALUATIONS)
    axis.minorticks_off()
    axis.set_xlabel("evaluations")
    axis.set_ylabel("distance")
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(LogFormatter())
    axis.yaxis.set_minor_formatter(LogFormatter())
    axis.set_title(title)
  fig.legend(told.values(), told, fontsize=8, loc="outside right upper")
  fig.savefig(path, dpi=80)


def measured(task, budget, only):
  """What a task leaves: its title, budget, costs of steps and rows."""
  with tempfile.TemporaryDirectory() as folder:
    found = teacher, _, _ = teacher_of(task, budget, folder)
    title = "points" if task == "points" else teacher.config.dataset.name
    cost = []
    if TEACHER.startswith(only) and budget.unit == "s":
      cost = list(costs(task, teacher))
      print(*cost_lines(title, cost), sep="\n", flush=True)
    rows = []
    for row in rows_of(task, budget, folder, *found, only):
      rows.append(row)
      print(*row, flush=True)
  title = f"{title}, {budget.amount:g} {budget.unit} each"
  return dict(title=title, costs=cost, rows=rows)


def read(paths):
  """{title: dict(costs, rows)} of what `measured` left, in METHODS' order."""
  tasks = {}
  for path in paths:
    one = json.loads(pathlib.Path(path).read_text())
    task = tasks.setdefault(one["title"], dict(costs=[], rows=[]))
    task["costs"] = one["costs"] or task["costs"]
    for name, steps, found in one["rows"]:  # JSON has no numbers as keys
      if name in [row[0] for row in task["rows"]]:
        raise SystemExit(f"{path} has {name} of {one['title']} once more")
      found = {int(n): entry for n, entry in found.items()}
      task["rows"].append((name, steps, found))
  for task in tasks.values():
    task["rows"].sort(key=lambda row: ORDER.index(row[0]))
  # what all are measured against comes first, or there is no table
  return {t: one for t, one in tasks.items() if one["rows"][0][0] == TEACHER}


def page(tasks):
  """Lines of Markdown of all tasks."""
  yield from ("# Few steps at equal training time", "", *ABOUT, "")
  for title, one in tasks.items():
    yield from (*table(title, one["rows"]), "")
    if one["costs"]:
      yield from (*cost_lines(title.partition(",")[0], one["costs"]), "")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("tasks", nargs="+")
  parser.add_argument("--seconds", type=float, default=200.0)
  parser.add_argument("--steps", type=float)
  parser.add_argument("--only", default="")
  parser.add_argument("--out", default=tempfile.gettempdir())
  parser.add_argument("--write", action="store_true")
  asked = parser.parse_args()
  budget = Steps(asked.steps) if asked.steps else Seconds(asked.seconds)
  only, paths = tuple(filter(None, asked.only.split(","))) or ("",), []
  for one in only:
    if not any(name.startswith(one) for name in ORDER):
      parser.error(f"--only={one}: there is no such method of {ORDER}")
  if asked.only and not asked.steps and "points" in asked.tasks:
    parser.error("--only: points train a teacher, which all need, in --seconds")
  for task in asked.tasks:
    if not task.endswith(".json"):
      one = measured(task, budget, only)
      words = re.sub(r"\W+", "_", f"{one['title']} {asked.only}").strip("_")
      task = pathlib.Path(asked.out) / f"{words}.json"
      task.write_text(json.dumps(one, default=float, indent=1))
    paths.append(task)
  tasks = read(paths)
  text = "\n".join(page(tasks))
  print(text)
  if asked.write and not tasks:
    parser.error(f"--write: there is no row of {TEACHER}")
  if asked.write:
    (HERE / "results" / "few_step.md").write_text(text)
    picture(
      HERE / "results" / "few_step.png",
      {title: one["rows"] for title, one in tasks.items()},
    )


if __name__ == "__main__":
  main()
