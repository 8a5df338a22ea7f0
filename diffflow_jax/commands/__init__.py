"""What `python -m diffflow_jax.<name>` does. Imports no JAX until it runs."""
