"""Says how good a trained run is: metrics of its samples, with their errors.

  python -m diffflow_jax.evaluate --workdir=runs/digits --metrics=fid,kid
  python -m diffflow_jax.evaluate --workdir=runs/digits --num_samples=10000 \\
      --metrics=fid,precision_recall:num=1438,bpd:num=64 \\
      --solvers=auto,dpmpp_2m,sde_dpmpp_2m:eta=0.5 --num_steps=5,10,20 \\
      --guidance=1,1.5,2 --features=classifier:FOLDER --out=eval
  python -m diffflow_jax.evaluate --workdir=runs/digits --against=runs/other

Writes evaluation.json, with every number's standard error and 95 % interval,
all settings, and what two halves of the real data get; and evaluation.png. The
same command again goes on where it was killed, to the same file; more samples,
metrics or solvers use those that are there (in OUT/chunks, which may be removed
afterwards). Images become bytes before anything looks at them.

Metrics: fid (a Fréchet distance, of whatever features: it is called fid where
they are Inception's), kid, precision_recall, density_coverage, energy, mmd,
sliced_wasserstein, two_sample, memorisation; of a classifier's logits
inception_score and label_agreement; of data with a closed form mode_shares,
log_likelihood and kl; of the run itself bpd, bits per dimension in four ways.
Settings follow a name, as precision_recall:k=5,num=1000.

A solver is NAME[:setting=value][:STEPS], as in `sample`; auto takes that many
evaluations. Features: pixels, inception:FILE, dinov2:FILE, classifier:FOLDER or
module:attribute. The reference is train or held_out of the run's data, a folder
of images as folder:PATH, or an .npz of images (arr_0) or of mu and sigma.
--against is another run, or a solver as dpmpp_2m:20; differences are of equal
noise and labels. --workdir may be an export, or a run in a
bucket.
"""

from absl import flags

from diffflow_jax import cli


def main(argv):
  """Evaluates a run, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  for define, name, default, text in (
    (flags.DEFINE_string, "workdir", None, "Directory of a trained run."),
    (flags.DEFINE_string, "metrics", "fid", "Names, as fid,bpd:num=64."),
    (flags.DEFINE_integer, "num_samples", 5000, "How many, of each sampler."),
    (flags.DEFINE_string, "solvers", None, "Solvers, as auto:10,heun:5."),
    (flags.DEFINE_string, "num_steps", None, "Steps, as 5,10,20."),
    (flags.DEFINE_string, "grid", None, "Grid, as uniform_t or karras:rho=5."),
    (flags.DEFINE_string, "guidance", None, "Strengths, as 1,1.5,2."),
    (flags.DEFINE_string, "labels", None, "Classes, as 0,1,2."),
    (flags.DEFINE_string, "features", None, "What is compared [pixels]."),
    (flags.DEFINE_string, "reference", "train", "What they are compared with."),
    (flags.DEFINE_string, "against", None, "Another run, or a solver."),
    (flags.DEFINE_integer, "step", None, "Checkpoint, not the newest one."),
    (flags.DEFINE_float, "ema", None, "Width of an average, from snapshots."),
    (flags.DEFINE_integer, "seed", 0, "Seed of the noise."),
    (flags.DEFINE_integer, "batch_size", 256, "Samples at a time."),
    (flags.DEFINE_string, "out", None, "Folder to write [WORKDIR/eval]."),
  ):
    define(name, default, text, flag_values=values)
  cli.parse(values, argv, __doc__, required=("workdir",))
  several = lambda name, kind: (
    None if values[name].value is None
    else cli.numbers(values[name].value, name, kind)
  )  # fmt: skip
  asked = dict(
    num_steps=several("num_steps", int),
    guidance=several("guidance", float),
    labels=several("labels", int),
  )
  for name in (
    "metrics", "num_samples", "solvers", "features", "reference", "against",
    "seed", "batch_size", "grid",
  ):  # fmt: skip
    asked[name] = values[name].value

  from diffflow_jax.runs import loading, progress
  from diffflow_jax.scoring import evaluation, report
  from diffflow_jax.store import paths

  run = loading.opened(
    values.workdir, values.step, values.ema, lambda name: f"--{name}"
  )
  out = paths.join(run.path, "eval") if values.out is None else values.out
  result = evaluation.evaluate(run, out=out, counter=progress.Counter, **asked)
  print(report.text(result))
  print(f"written to {paths.join(out, report.RESULT)}")
