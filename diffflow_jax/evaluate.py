"""python -m diffflow_jax.evaluate: see commands/evaluate.py."""

import sys

from diffflow_jax import start

if __name__ == "__main__":
  start.command("evaluate")
else:  # dfj.evaluate is the function, also where this module was imported
  from diffflow_jax.scoring.evaluation import evaluate

  sys.modules[__name__] = evaluate
