"""Few-step models: a method in the place of the ordinary loss, a teacher."""

from diffflow_jax.training.few_step.held_out import held_out
from diffflow_jax.training.few_step.method import check_sampler, counts
from diffflow_jax.training.few_step.pairs import pairs
from diffflow_jax.training.few_step.resolve import bound, prepared
from diffflow_jax.training.few_step.teacher import settle

__all__ = [
  "check_sampler",
  "bound",
  "counts",
  "held_out",
  "pairs",
  "prepared",
  "settle",
]
