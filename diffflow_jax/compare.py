"""python -m diffflow_jax.compare: see commands/compare.py."""

import sys

from diffflow_jax import start

if __name__ == "__main__":
  start.command("compare")
else:  # dfj.compare is the function, also where this module was imported
  from diffflow_jax.objective.comparison import compare

  sys.modules[__name__] = compare
