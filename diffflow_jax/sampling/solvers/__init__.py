"""All solvers by name: functions levels -> Tableau.

A solver of one's own is such a function; nothing has to be registered.
"""

import pathlib

from diffflow_jax import cli
from diffflow_jax.sampling.solvers.adams import (
  adams_bashforth,
  deis,
  dpm_solver_2m,
  dpm_solver_2m_heun,
)
from diffflow_jax.sampling.solvers.ancestral import (
  dpm_2,
  dpm_2_ancestral,
  dpmpp_2s_ancestral,
  dpmpp_sde,
)
from diffflow_jax.sampling.solvers.churn import churned, edm
from diffflow_jax.sampling.solvers.exponential import (
  dpmpp_2s,
  dpmpp_2s_heun,
  dpmpp_3s,
  dpmpp_3s_heun,
)
from diffflow_jax.sampling.solvers.flow_map import (
  flow_map,
  flow_map_ddim,
  flow_map_tcd,
)
from diffflow_jax.sampling.solvers.multistep import (
  dpmpp_2m,
  dpmpp_2m_heun,
  dpmpp_3m,
  dpmpp_3m_half,
)
from diffflow_jax.sampling.solvers.rk import (
  bogacki_shampine,
  euler,
  heun,
  midpoint,
  ralston,
  rk4,
  rk38,
  runge_kutta as runge_kutta,  # takes a table of one's own: has no name below
)
from diffflow_jax.sampling.solvers.sde_exponential import (
  sde_dpmpp_1,
  sde_dpmpp_2m,
  sde_dpmpp_2m_heun,
  sde_dpmpp_3m,
)
from diffflow_jax.sampling.solvers.sde_solvers import (
  adjusted_ddim,
  consistency,
  ddim,
  ddpm,
  euler_ancestral,
)
from diffflow_jax.sampling.solvers.sde_steps import (
  euler_maruyama,
  langevin,
  stochastic_heun,
)
from diffflow_jax.sampling.solvers.unipc import unip, unipc

SOLVERS = {
  f.__name__: f
  for f in (
    ddim,
    ddpm,
    euler_ancestral,
    euler,
    heun,
    midpoint,
    ralston,
    bogacki_shampine,
    rk4,
    rk38,
    edm,
    churned,
    dpmpp_2s,
    dpmpp_2s_heun,
    dpmpp_3s,
    dpmpp_3s_heun,
    dpmpp_2m,
    dpmpp_2m_heun,
    dpmpp_3m,
    dpmpp_3m_half,
    unip,
    unipc,
    dpm_solver_2m,
    dpm_solver_2m_heun,
    deis,
    adams_bashforth,
    dpm_2,
    dpm_2_ancestral,
    dpmpp_2s_ancestral,
    dpmpp_sde,
    sde_dpmpp_1,
    sde_dpmpp_2m,
    sde_dpmpp_2m_heun,
    sde_dpmpp_3m,
    euler_maruyama,
    stochastic_heun,
    consistency,
    adjusted_ddim,
    langevin,
    flow_map,
    flow_map_ddim,
    flow_map_tcd,
  )
}
SOLVERS["dpmpp_1"] = ddim
LIST = "dfj.solvers.SOLVERS"  # what a message calls it


def named(name):
  """A solver by its name in SOLVERS, or a learned tableau by its .npz file.

  Raises:
    ValueError: there is no such solver.
  """
  if str(name).endswith(".npz"):
    from diffflow_jax.sampling import files

    table = files.load(pathlib.Path(name))
    return lambda levels=None: table
  if name not in SOLVERS:
    known = cli.unknown(name, SOLVERS, "a .npz file", where=LIST)
    raise ValueError(f"solver is {name!r}; {known}")
  return SOLVERS[name]
