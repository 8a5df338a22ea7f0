"""Trains a student that samples in few steps, of a run that is its teacher.

  python -m diffflow_jax.distill --from=runs/digits \
      --config=configs/distill.py:reflow --workdir=runs/reflow
  python -m diffflow_jax.distill --from=RUN --config=FILE --workdir=DIR \
      --config.teacher.guidance=2

--from is the workdir of a run or a folder that `export` wrote. The student has
its data, network, objective and whatever else the config leaves out, starts
from its averaged parameters where they fit, and is a run like any other: it can
be sampled, loaded, exported, and be a teacher in its turn.

The same command again resumes a run that was killed, to the same bits, with the
same teacher: the workdir's teacher.json says which one that was. The other
flags and files are those of `train`.
"""

from absl import flags

from diffflow_jax import cli
from diffflow_jax.commands import train


def main(argv):
  """Trains or resumes, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  cli.define_config(values, argv)
  train.define_flags(values)
  flags.DEFINE_string("from", None, "The run that teaches.", flag_values=values)
  cli.parse(values, argv, __doc__, required=("config", "from"))
  config = cli.chosen_config(values)
  with train.started(values, config) as how:
    from diffflow_jax.training.few_step.distill import distill

    distill(config, values["from"].value, values.workdir, **how)
