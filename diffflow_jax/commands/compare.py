"""Says what two recipes share, where they differ, and draws it over log-SNR.

  python -m diffflow_jax.compare --configs=flow_matching,v_diffusion
  python -m diffflow_jax.compare --configs=edm,configs/digits.py --out=FILE.png

Each of the two is the name of an objective, or a config file as FILE.py or
FILE.py:ARG, of which config.objective is taken.
"""

from collections.abc import Mapping
import os

from absl import flags

from diffflow_jax import cli
from diffflow_jax.cli import Refusal

KINDS = (".png", ".pdf", ".svg")


def _objective(name):
  """The objective of a recipe's name or of a config file."""
  from diffflow_jax.objective import objectives
  from diffflow_jax.runs import recipe

  if name.partition(":")[0].endswith(".py"):
    spec = cli.load_config(name, "configs").get("objective", None)
    if not isinstance(spec, Mapping) and not hasattr(spec, "to_dict"):
      raise Refusal(f"--configs: {name} has no objective.name")
    return recipe.objective(spec)
  if name not in objectives.OBJECTIVES:
    known = cli.unknown(name, objectives.OBJECTIVES, "or a .py file")
    raise Refusal(f"--configs names {name!r}; {known}")
  return objectives.make(name)


def main(argv):
  """Compares two recipes, as the module says; argv[0] is the program."""
  values = cli.new_flags()
  for name, text in (
    ("configs", "Two recipes, A,B: objectives or config files."),
    ("out", "Picture to draw: .png, .pdf or .svg."),
  ):
    flags.DEFINE_string(name, None, text, flag_values=values)
  cli.parse(values, argv, __doc__, required=("configs",))
  names = [name.strip() for name in values.configs.split(",")]
  if len(names) != 2 or not all(names):
    raise Refusal(f"--configs must be two names, A,B, not {values.configs!r}")
  out = values.out
  if out is not None and os.path.splitext(out)[1] not in KINDS:
    raise Refusal(f"--out must end in {', '.join(KINDS)}, not {out!r}")
  if out is not None:
    cli.open_output(out, "out")
  a, b = (_objective(name) for name in names)

  from diffflow_jax.objective.comparison import compare

  comparison = compare(a, b, [os.path.basename(name) for name in names])
  print(comparison, flush=True)
  if out is not None:
    from diffflow_jax.plots import plot_comparison

    plot_comparison(comparison).savefig(out, dpi=150)
    print(f"drawn in {out}")
