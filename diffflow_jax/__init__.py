"""diffflow_jax: diffusion models and Gaussian flow matching as one thing.

    import diffflow_jax as dfj

Names are loaded when they are first used, so importing the package is instant
and reads no JAX.
"""

import importlib

__version__ = "0.1.0"

_MODULES = {
  # process
  "schedules": "process.schedules",
  "levels": "process.levels",
  "targets": "process.targets",
  "sde": "process.sde",
  "conditions": "process.conditions",
  "closed_form": "process.closed_form",
  "gaussians": "process.gaussians",
  # objective
  "densities": "objective.densities",
  "weightings": "objective.weightings",
  "omegas": "objective.omegas",
  "bound": "objective.bound",
  "objectives": "objective.objectives",
  "flow_maps": "objective.flow_maps",
  # sampling
  "grids": "sampling.grids",
  "solvers": "sampling.solvers",
  "guidance": "sampling.guidance",
  "adaptive": "sampling.adaptive",
  "learned": "sampling.learned",
  "introspection": "sampling.introspection",
  # networks, data, training, plots
  "networks": "networks",
  "data": "data",
  "training": "training",
  "plots": "plots",
  "evaluation": "evaluation",
}
_FUNCTIONS = {
  "config": ("config_files", "load"),
  "inspect": "data.inspection",
  "train": "training.loop",
  "distill": "training.few_step.distill",
  "train_state": ("training.state", "create"),
  "make_train_step": "training.state",
  "with_loss": "training.state",
  "Level": "process.levels",
  "Predictor": "process.predictors",
  "weighted_mse": "objective.losses",
  "terms_at": "objective.losses",
  "conditional_flow_matching": "objective.losses",
  "denoising_score_matching": "objective.losses",
  "variational_bound": "objective.bound",
  "minibatch_ot": "objective.coupling",
  "compare": "objective.comparison",
  "predictor": "objective.objectives",
  "predictor_of": "process.predictors",
  "Tableau": "sampling.tableau",
  "sample": "sampling.tableau",
  "contributions": "sampling.introspection",
  "pad": "sampling.compose",
  "join": "sampling.compose",
  "restart": "sampling.compose",
  "Guided": "sampling.guidance",
  "load": "runs.loading",
  "evaluate": "scoring.evaluation",
  "load_exported": "runs.exported_sampler",
}
__all__ = ["__version__", *_MODULES, *_FUNCTIONS]


def __getattr__(name):
  if name in _MODULES:
    return importlib.import_module(f"diffflow_jax.{_MODULES[name]}")
  if name in _FUNCTIONS:
    home = _FUNCTIONS[name]
    home, inner = (home, name) if isinstance(home, str) else home
    return getattr(importlib.import_module(f"diffflow_jax.{home}"), inner)
  raise AttributeError(f"module 'diffflow_jax' has no attribute {name!r}")


def __dir__():
  return sorted(__all__)
