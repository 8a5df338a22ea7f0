"""All solvers by name: functions levels -> Tableau."""

from diffflow_jax.sampling.ode_solvers import dpmpp_2m, heun
from diffflow_jax.sampling.sde_solvers import ddim

SOLVERS = {"ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}
