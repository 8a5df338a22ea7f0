"""python -m diffflow_jax.train_features: see commands/train_features.py."""

if __name__ == "__main__":
  from diffflow_jax import start

  start.command("train_features")
