"""Evaluation while a run trains: numbers of its samples in the metrics lines.

    config.evaluate = dict(
      every=1000, metrics="fid,precision_recall", num_samples=2000)
    config.keep = dict(latest=3, every=0, best=1, by="eval/fd_pixels")

Every so many steps, and at the last one, samples of the averaged parameters are
judged as the command `evaluate` judges them: the same noise and labels each
time, so that a killed run has the same lines. A request to stop waits for it.
"""

import dataclasses
import logging
import math
import time

import jax

from diffflow_jax import evaluation, scoring
from diffflow_jax.cli import Failure, Refusal, unknown
from diffflow_jax.runs.checks import in_range, need
from diffflow_jax.runs.run import Run
from diffflow_jax.store import paths

log = logging.getLogger("diffflow_jax")

PREFIX = "eval/"
NEEDED = ("every", "metrics", "num_samples")
SAMPLER = ("solver", "grid", "num_steps", "guidance")
MAY_HAVE = ("features", "reference", "batch_size", *SAMPLER)
OWN = ("memorisation", "bpd")  # metrics of the run's training and held-out data


def check(config):
  """Refuses a config.evaluate that cannot work, before anything is made."""
  how = config.get("evaluate")
  if how is None:
    _check_best(config, None)
    return
  need(hasattr(how, "items"), "evaluate", how, "a dict of settings")
  known = {*NEEDED, *MAY_HAVE}
  for key in NEEDED:
    if key not in how:
      raise Refusal(f"config.evaluate.{key} is missing")
  for key in sorted(set(how) - known):
    raise Refusal(
      f"config.evaluate.{key} is not a field of it; {unknown(key, known)}"
    )
  counts = ["an integer >= 1", "< 2147483648"]
  for key in {"every", "num_samples", "batch_size"} & set(how):
    in_range(f"config.evaluate.{key}", how[key], counts)
  stride = config.steps_per_dispatch
  need(how.every % stride == 0, "evaluate.every", how.every,
        f"a multiple of config.steps_per_dispatch = {stride}")  # fmt: skip
  scoring.metrics_of(how.metrics, "config.evaluate.metrics")
  _check_best(config, how)
