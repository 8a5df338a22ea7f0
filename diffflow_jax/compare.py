"""python -m diffflow_jax.compare: see commands/compare.py."""

import sys

from diffflow_jax import cli

if __name__ == "__main__":
  from diffflow_jax.commands.compare import main

  cli.run(main)
else:  # dfj.compare is the function, also where this module was imported
  from diffflow_jax.objective.comparison import compare

  sys.modules[__name__] = compare
