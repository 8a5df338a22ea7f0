"""Flow maps: few-step training as one thing.

A flow map is a network that predicts a row at its level and is told the level
that it goes to (`process.flow_maps`). The methods differ in their loss alone:

    pairs that a teacher solved     reflow, knowledge_distillation
    two steps into one              progressive_distillation
    points of one trajectory        consistency_training, …_distillation,
                                    improved_consistency, easy_consistency
    the derivative along it         mean_flow, improved_mean_flow

Each is loss(objective, apply, params, key, x, cond, ...) -> Terms with
apply(params, z, logsnr, cond, to) -> ŷ, and `..._at` at given levels and noise.
"""

from diffflow_jax.objective.flow_maps import guidance, pairs, stabilisers
from diffflow_jax.objective.flow_maps.consistency import (
  consistency_distillation,
  consistency_distillation_at,
  consistency_training,
  consistency_training_at,
  easy_consistency,
  easy_consistency_at,
  improved_consistency,
  improved_consistency_at,
)
from diffflow_jax.objective.flow_maps.mean_flow import (
  improved_mean_flow,
  improved_mean_flow_at,
  mean_flow,
  mean_flow_at,
)
from diffflow_jax.objective.flow_maps.progressive import (
  progressive_distillation,
  progressive_distillation_at,
)
from diffflow_jax.objective.flow_maps.solved_pairs import (
  knowledge_distillation,
  knowledge_distillation_at,
  reflow,
  reflow_at,
)
from diffflow_jax.process.flow_maps import (
  check_start,
  compose,
  effective,
  gap,
  step,
  weights,
)

__all__ = [
  "check_start",
  "compose",
  "consistency_distillation",
  "consistency_distillation_at",
  "consistency_training",
  "consistency_training_at",
  "easy_consistency",
  "easy_consistency_at",
  "effective",
  "gap",
  "guidance",
  "improved_consistency",
  "improved_consistency_at",
  "improved_mean_flow",
  "improved_mean_flow_at",
  "knowledge_distillation",
  "knowledge_distillation_at",
  "mean_flow",
  "mean_flow_at",
  "pairs",
  "progressive_distillation",
  "progressive_distillation_at",
  "reflow",
  "reflow_at",
  "stabilisers",
  "step",
  "weights",
]
