"""python -m diffflow_jax.train: see commands/train.py."""

import sys

from diffflow_jax import start

if __name__ == "__main__":
  start.command("train")
else:  # dfj.train is the function, also where this module was imported
  from diffflow_jax.training.loop import train

  sys.modules[__name__] = train
