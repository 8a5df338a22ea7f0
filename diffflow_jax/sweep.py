"""python -m diffflow_jax.sweep: see commands/sweep.py."""

if __name__ == "__main__":
  from diffflow_jax import start

  start.command("sweep")
