"""python -m diffflow_jax.sample: see commands/sample.py."""

import sys

from diffflow_jax import start

if __name__ == "__main__":
  start.command("sample")
else:  # dfj.sample is the function, also where this module was imported
  from diffflow_jax.sampling.tableau import sample

  sys.modules[__name__] = sample
