"""Compiled programs stay in the workdir, so that a second start is fast."""

import os

import jax


def use(workdir):
  """Keeps compiled programs in the workdir, unless JAX was told otherwise."""
  cache = os.path.join(workdir, "compile_cache")
  now = jax.config.jax_compilation_cache_dir
  if now and os.path.basename(now) != "compile_cache":
    return
  if now and now != cache:  # an earlier run of this process
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
  jax.config.update("jax_compilation_cache_dir", cache)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
