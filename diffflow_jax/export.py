"""python -m diffflow_jax.export: see commands/export.py."""

if __name__ == "__main__":
  from diffflow_jax import start

  start.command("export")
