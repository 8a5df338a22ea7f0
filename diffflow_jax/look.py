"""python -m diffflow_jax.look: see commands/look.py."""

if __name__ == "__main__":
  from diffflow_jax import start

  start.command("look")
