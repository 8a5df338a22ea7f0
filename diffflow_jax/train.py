"""python -m diffflow_jax.train: see commands/train.py."""

from diffflow_jax import cli
from diffflow_jax.commands.train import main

if __name__ == "__main__":
  cli.run(main)
