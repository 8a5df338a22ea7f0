"""Averages of the parameters: exponential, power-function, and post hoc.

    exponential   θ̂ <- d θ̂ + (1 - d) θ,     d_n = min(d, (1 + n)/(10 + n))
    power         θ̂ <- β_n θ̂ + (1 - β_n) θ,  β_n = (1 - 1/n)^(γ + 1)

The power-function average weights step τ of n by (γ + 1) τ^γ / n^(γ+1): its
relative width σ_rel is the same at any n (Karras et al., arXiv:2312.02696 §3.1,
eq. 2-4). From snapshots of two such averages any other one is a least-squares
combination (§3.2, eq. 5-6, app. C): the average's length is chosen after
training.
"""

import functools

import jax.numpy as jnp
import optax

from diffflow_jax.process import ranges
from diffflow_jax.runs.averages import WIDTHS, gamma_of


def exponential_decay(decay, step):
  """d of finished step `step`, with a start that forgets the initialisation."""
  n = jnp.asarray(step, jnp.float32)
  return jnp.minimum(decay, (1.0 + n) / (10.0 + n))


def power_decay(gamma, step):
  """β of step `step`, counted from 0: (1 - 1/n)^(γ+1) with n = step + 1."""
  n = jnp.asarray(step, jnp.float32) + 1.0
  return (1.0 - 1.0 / n) ** (gamma + 1.0)


@ranges.checked(decay="in [0, 1)")
def exponential(decay=0.999):
  """One exponential average.

  Raises:
    ValueError: decay is not in [0, 1).
  """
  return (functools.partial(exponential_decay, decay),)


def power(sigma_rel=WIDTHS):
  """Power-function averages of these relative widths; samples use the first.

  Raises:
    ValueError: no width, or one out of its range.
  """
  if not isinstance(sigma_rel, (tuple, list)) or not sigma_rel:
    raise ValueError(
      f"sigma_rel must be one width or more, as (0.05, 0.1), not {sigma_rel!r}"
    )
  gammas = [gamma_of(width) for width in sigma_rel]
  return tuple(functools.partial(power_decay, gamma) for gamma in gammas)


AVERAGES = {"exponential": exponential, "power": power}


def update(average, params, decay):
  """decay · average + (1 - decay) · params."""
  return optax.incremental_update(params, average, 1.0 - decay)
