"""Flow maps: few-step training as one thing.

A flow map is a network that predicts a row at its level and is told the level
that it goes to (`process.flow_maps`). The methods differ in their loss alone:

    pairs that a teacher solved     reflow, knowledge_distillation
    two steps into one              progressive_distillation
    points of one trajectory        consistency_training, …_distillation,
                                    improved_consistency, easy_consistency
                                    continuous_consistency
    the derivative along it         mean_flow, improved_mean_flow
    a step is two of one's own      shortcut, split_mean_flow, progressive_map
    the map's own equations         lagrangian, eulerian
    a guided denoiser as one        guidance_distillation

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
from diffflow_jax.objective.flow_maps.continuous import (
  continuous_consistency,
  continuous_consistency_at,
)
from diffflow_jax.objective.flow_maps.guidance_distillation import (
  guidance_distillation,
  guidance_distillation_at,
)
from diffflow_jax.objective.flow_maps.map_matching import (
  eulerian,
  eulerian_at,
  lagrangian,
  lagrangian_at,
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
from diffflow_jax.objective.flow_maps.self_consistency import (
  progressive_map,
  self_consistency_at,
  shortcut,
  split_mean_flow,
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
  "continuous_consistency",
  "continuous_consistency_at",
  "easy_consistency",
  "easy_consistency_at",
  "effective",
  "eulerian",
  "eulerian_at",
  "gap",
  "guidance",
  "guidance_distillation",
  "guidance_distillation_at",
  "improved_consistency",
  "improved_consistency_at",
  "improved_mean_flow",
  "improved_mean_flow_at",
  "knowledge_distillation",
  "knowledge_distillation_at",
  "lagrangian",
  "lagrangian_at",
  "mean_flow",
  "mean_flow_at",
  "pairs",
  "progressive_distillation",
  "progressive_distillation_at",
  "progressive_map",
  "reflow",
  "reflow_at",
  "self_consistency_at",
  "shortcut",
  "split_mean_flow",
  "stabilisers",
  "step",
  "weights",
]
