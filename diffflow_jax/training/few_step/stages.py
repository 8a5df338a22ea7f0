"""Stages: each one's average teaches the next, and is where it starts.

The teacher of the stage is a part of the state, so a run that is killed in the
middle of a stage goes on with the same one.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Stages:
  """num stages of `length` steps; what comes after them is of the last one."""

  length: int
  num: int

  def of(self, step):
    """The stage of a step, from 0 on."""
    return jnp.minimum(step // self.length, self.num - 1)

  def age(self, step):
    """How many steps of its stage were taken before a step."""
    return step - self.of(step) * self.length

  def begun(self, state, tx):
    """The state, where a stage starts with the average of the one before.

    Parameters, averages and teacher are that average, and the optimiser is new.
    """

    def anew(state):
      params = state.ema[0]
      return state.replace(
        params=params,
        ema=tuple(params for _ in state.ema),
        opt_state=tx.init(params),
        teacher=params,
      )

    starts = (state.step > 0) & (self.age(state.step) == 0)
    return jax.lax.cond(starts, anew, lambda state: state, state)
