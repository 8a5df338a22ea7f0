"""python -m diffflow_jax.look: see commands/look.py."""

from diffflow_jax import cli

if __name__ == "__main__":
  from diffflow_jax.commands.look import main

  cli.run(main)
