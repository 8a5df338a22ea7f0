"""python -m diffflow_jax.distill: see commands/distill.py."""

import sys

from diffflow_jax import start

if __name__ == "__main__":
  start.command("distill")
else:  # dfj.distill is the function, also where this module was imported
  from diffflow_jax.training.few_step.distill import distill

  sys.modules[__name__] = distill
