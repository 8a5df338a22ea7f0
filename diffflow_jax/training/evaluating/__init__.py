"""Evaluation while a run trains: numbers of its samples in the metrics lines.

    config.evaluate = dict(
      every=1000,  # 0 is never
      metrics="fid,precision_recall", num_samples=2000)
    config.keep = dict(latest=3, every=0, best=1, by="eval/fd_pixels")

Every so many steps, and at the last one, samples of the averaged parameters are
judged as the command `evaluate` judges them, with the same noise and labels
each time. A request to stop waits for it; a killed run has the same lines.
"""

from diffflow_jax.training.evaluating.checks import (
  check,
  check_best,
  is_asked,
  samplers,
)
from diffflow_jax.training.evaluating.evaluation import Evaluation, loss_of, of

__all__ = [
  "Evaluation", "check", "check_best", "is_asked", "loss_of", "of", "samplers",
]  # fmt: skip
