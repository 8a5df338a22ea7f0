"""python -m diffflow_jax.fit: see commands/fit.py."""

if __name__ == "__main__":
  from diffflow_jax import start

  start.command("fit")
