"""Compilation: programs that should cost little of it, and what it has cost."""

import functools
import time

import jax
import jax.monitoring

STAGES = ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")


def quick(f, **how):
  """`jax.jit` of what runs rarely, so that its compilation is the wait.

  On CPUs LLVM optimises for longer than all runs of such a program take: of 13
  seconds for the first state of a small UNet, 10. Other backends are left as
  they are.
  """
  if jax.default_backend() == "cpu":
    how["compiler_options"] = {"xla_backend_optimization_level": 0}
  return jax.jit(f, **how)


def brisk(f, **how):
  """`jax.jit` of what runs often, compiled sooner where that costs nothing.

  On one CPU LLVM's first level makes programs as fast as its last (steps of the
  digits, of points, of a DiT: no slower within 1 %) 1 to 2 seconds sooner. Only
  at the top: JAX takes no compiler options for a program within a program.
  """
  if jax.default_backend() == "cpu" and jax.device_count() == 1:
    how["compiler_options"] = {"xla_backend_optimization_level": 1}
  return jax.jit(f, **how)


@functools.cache
def _spans():
  """[(start, end)] of what JAX compiles from now on, apart, in order."""
  spans = []

  def note(event, seconds, **_):
    if event.startswith("/jax/core/compile/") and any(
      stage in event for stage in STAGES
    ):
      end = time.monotonic()
      start = end - seconds
      while spans and spans[-1][0] >= start:  # was a part of this
        spans.pop()
      spans.append((start, end))

  jax.monitoring.register_event_duration_secs_listener(note)
  return spans


def seconds():
  """How long this process has traced and compiled since the first call."""
  return sum(end - start for start, end in _spans())
