"""How good a run is: its samples, features, metrics, comparisons.

`score` gives the numbers of one `Subject`; `evaluation.evaluate` those of many
samplers, with floors, comparisons, a JSON file and figures.
"""

from diffflow_jax.scoring.metrics import METRICS, better, metrics_of
from diffflow_jax.scoring.reference import Reference
from diffflow_jax.scoring.scores import floors, score
from diffflow_jax.scoring.subject import Subject

__all__ = [
  "METRICS",
  "Reference",
  "Subject",
  "better",
  "metrics_of",
  "floors",
  "score",
]
