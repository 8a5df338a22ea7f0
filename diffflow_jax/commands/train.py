"""Trains a config in a workdir, or goes on with the run that is there.

  python -m diffflow_jax.train --config=configs/digits.py --workdir=runs/digits
  python -m diffflow_jax.train --config=configs/digits.py:smoke --workdir=DIR
  python -m diffflow_jax.train --config=FILE --workdir=DIR --config.seed=1

The same command again resumes a run that was killed, to the same bits. SIGTERM
and Ctrl-C save first. The workdir gets checkpoints/, metrics.jsonl,
tensorboard/, samples/ and the config.
"""

from absl import flags

from diffflow_jax import cli


def main(argv):
  values = cli.new_flags()
  cli.define_config(values, argv)
  flags.DEFINE_string(
    "workdir", None, "Directory of the run.", flag_values=values
  )
  cli.parse(values, argv, __doc__, required=("config", "workdir"))
  config = cli.chosen_config(values)
  from diffflow_jax.training.loop import train  # imports JAX

  train(config, values.workdir)
