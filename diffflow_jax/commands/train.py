"""Trains a config in a workdir, or goes on with the run that is there.

  python -m diffflow_jax.train --config=configs/digits.py --workdir=runs/digits
  python -m diffflow_jax.train --config=configs/digits.py:smoke --workdir=DIR
  python -m diffflow_jax.train --config=FILE --workdir=DIR --config.seed=1

The same command again resumes a run that was killed, to the same bits. SIGTERM,
SIGHUP and Ctrl-C save first. The workdir gets checkpoints/, metrics.jsonl,
tensorboard/, samples/ and the config. Several processes find each other on TPU
pods and under SLURM; elsewhere each one is given --coordinator=HOST:PORT,
--num_processes and --process_id. They share the workdir.

A run may be made longer by another --config.num_steps, and be watched or placed
otherwise (log_every, sampler, mesh and the like). --init_from=DIR starts a new
run from the averaged parameters of the run in DIR; arrays that do not fit stay
at their initial value where --init_from_skip='*.embedding,*.bias', patterns of
their names as in a shell, says so.

--wandb=PROJECT reports to Weights & Biases as well; --profile=10:15 traces
those steps into the workdir's profile/, for TensorBoard or Perfetto.
--tabulate prints the layers of the network, and trains nothing.
"""

import contextlib
import importlib.util

from absl import flags

from diffflow_jax import cli


def main(argv):
  """Trains or resumes, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  cli.define_config(values, argv)
  define_flags(values)
  flags.DEFINE_string(
    "init_from", None, "A run to start a new one from.", flag_values=values
  )
  flags.DEFINE_multi_string(
    "init_from_skip",
    [],
    "Names of arrays that --init_from leaves, with * for anything.",
    flag_values=values,
  )
  flags.DEFINE_bool(
    "tabulate", False, "Print the network's layers.", flag_values=values
  )
  cli.parse(values, argv, __doc__, required=("config",))
  config = cli.chosen_config(values)
  if values.tabulate:
    _tabulate(config)
    return
  with started(values, config) as how:
    from diffflow_jax.training.loop import train

    train(
      config,
      values.workdir,
      init_from=values.init_from,
      init_from_skip=values.init_from_skip,
      **how,
    )


def define_flags(values):
  """The flags of every command that trains."""
  for define, name, text in (
    (flags.DEFINE_string, "workdir", "Directory of the run."),
    (flags.DEFINE_string, "coordinator", "host:port of process 0."),
    (flags.DEFINE_integer, "num_processes", "How many processes train."),
    (flags.DEFINE_integer, "process_id", "Which one of them this is."),
    (flags.DEFINE_string, "wandb", "Weights & Biases project to report to."),
    (flags.DEFINE_string, "profile", "Steps FIRST:LAST to trace."),
  ):
    define(name, None, text, flag_values=values)


@contextlib.contextmanager
def started(values, config):
  """Joins the other processes; yields what `train` takes of these flags."""
  cli.check_given(values, "workdir")
  _check_wandb(values.wandb)
  from diffflow_jax.store import processes  # imports JAX

  processes.initialize(
    values.coordinator, values.num_processes, values.process_id
  )
  from diffflow_jax.training import profiler

  with processes.fail_at_once():
    window = profiler.parse(values.profile, config.get("num_steps", 1))
    yield {"wandb": values.wandb, "profile": window}


def _check_wandb(project):
  if project is not None and not project:
    raise cli.Refusal("--wandb must name a project, not ''")
  if project and importlib.util.find_spec("wandb") is None:
    raise cli.Refusal("--wandb needs Weights & Biases: pip install wandb")


def _tabulate(config):
  from diffflow_jax import networks
  from diffflow_jax.training.resolve import resolve

  run = resolve(config)
  print(networks.tabulate(run.network, run.card.shape))
