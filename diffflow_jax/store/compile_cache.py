"""Compiled programs are kept, so that a second start is fast."""

import os

import jax

from diffflow_jax.store import paths

LEAST_TIME = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def use(workdir):
  """Keeps compiled programs in the workdir, unless JAX was told otherwise.

  Those of a run in a bucket are in the user's cache on this machine.
  """
  if paths.is_remote(workdir):
    workdir = paths.cache_directory()
  cache = os.path.abspath(os.path.join(workdir, "compile_cache"))
  now = jax.config.jax_compilation_cache_dir
  if now and os.path.basename(now) != "compile_cache":
    return
  if now and now != cache:  # an earlier run of this process
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
  jax.config.update("jax_compilation_cache_dir", cache)
  # XLA's own caches put this path into each program's key: a run that is moved
  # or copied would compile anew
  jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
  if LEAST_TIME not in os.environ:
    jax.config.update(LEAST_TIME.lower(), 0.3)
