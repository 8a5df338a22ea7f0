"""All solvers by name: functions levels -> Tableau.

A solver of one's own is such a function; nothing has to be registered.
"""

import pathlib

from diffflow_jax.sampling.solvers.adams import adams_bashforth, deis
from diffflow_jax.sampling.solvers.exponential import dpmpp_2s, dpmpp_3s
from diffflow_jax.sampling.solvers.multistep import (
  dpmpp_2m,
  dpmpp_2m_heun,
  dpmpp_3m,
  dpmpp_3m_half,
)
from diffflow_jax.sampling.solvers.runge_kutta import (
  edm,
  euler,
  heun,
  midpoint,
  rk4,
)
from diffflow_jax.sampling.solvers.sde_exponential import (
  sde_dpmpp_1,
  sde_dpmpp_2m,
  sde_dpmpp_3m,
)
from diffflow_jax.sampling.solvers.sde_solvers import (
  adjusted_ddim,
  consistency,
  ddim,
  ddpm,
  euler_ancestral,
)
from diffflow_jax.sampling.solvers.sde_steps import euler_maruyama, langevin
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
    rk4,
    edm,
    dpmpp_2s,
    dpmpp_3s,
    dpmpp_2m,
    dpmpp_2m_heun,
    dpmpp_3m,
    dpmpp_3m_half,
    unip,
    unipc,
    deis,
    adams_bashforth,
    sde_dpmpp_1,
    sde_dpmpp_2m,
    sde_dpmpp_3m,
    euler_maruyama,
    consistency,
    adjusted_ddim,
    langevin,
  )
}
SOLVERS["dpmpp_1"] = ddim


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
    raise ValueError(
      f"solver must be one of {sorted(SOLVERS)} or a .npz file, not {name!r}"
    )
  return SOLVERS[name]
