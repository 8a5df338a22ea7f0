"""What type checkers see of `__init__`, whose names are loaded when used."""

from diffflow_jax import (
  data as data,
  evaluation as evaluation,
  networks as networks,
  plots as plots,
  training as training,
)
from diffflow_jax.config_files import load as _load_config
from diffflow_jax.data.inspection import inspect as inspect
from diffflow_jax.objective import (
  bound as bound,
  densities as densities,
  flow_maps as flow_maps,
  objectives as objectives,
  omegas as omegas,
  weightings as weightings,
)
from diffflow_jax.objective.bound import variational_bound as variational_bound
from diffflow_jax.objective.comparison import compare as compare
from diffflow_jax.objective.coupling import minibatch_ot as minibatch_ot
from diffflow_jax.objective.losses import (
  conditional_flow_matching as conditional_flow_matching,
  denoising_score_matching as denoising_score_matching,
  terms_at as terms_at,
  weighted_mse as weighted_mse,
)
from diffflow_jax.objective.objectives import predictor as predictor
from diffflow_jax.process import (
  closed_form as closed_form,
  conditions as conditions,
  gaussians as gaussians,
  levels as levels,
  schedules as schedules,
  sde as sde,
  targets as targets,
)
from diffflow_jax.process.levels import Level as Level
from diffflow_jax.process.predictors import (
  Predictor as Predictor,
  predictor_of as predictor_of,
)
from diffflow_jax.runs.exported_sampler import load_exported as load_exported
from diffflow_jax.runs.loading import load as load
from diffflow_jax.sampling import (
  adaptive as adaptive,
  grids as grids,
  guidance as guidance,
  introspection as introspection,
  learned as learned,
  solvers as solvers,
)
from diffflow_jax.sampling.compose import (
  join as join,
  pad as pad,
  restart as restart,
)
from diffflow_jax.sampling.guidance import Guided as Guided
from diffflow_jax.sampling.introspection import contributions as contributions
from diffflow_jax.sampling.tableau import Tableau as Tableau, sample as sample
from diffflow_jax.scoring.evaluation import evaluate as evaluate
from diffflow_jax.training.few_step.distill import distill as distill
from diffflow_jax.training.loop import train as train
from diffflow_jax.training.state import (
  create as _create,
  make_train_step as make_train_step,
  with_loss as with_loss,
)

__version__: str

config = _load_config
train_state = _create
