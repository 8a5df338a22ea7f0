"""python -m diffflow_jax.explore: see commands/explore.py."""

if __name__ == "__main__":
  from diffflow_jax import start

  start.command("explore")
