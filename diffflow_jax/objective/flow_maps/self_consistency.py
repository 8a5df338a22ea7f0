"""Self-consistency: a long step is two shorter ones of the same network.

    ū(z_s; s -> t) = w ū(z_s; s -> m) + (1 - w) ū(z_m; m -> t)

with w = (s - m)/(s - t) in flow time. Every ODE's flow map has it, so that it
is the examples with t = s, trained on eps - x, that select ours.
"""

import jax
import jax.numpy as jnp

from diffflow_jax.objective import densities
from diffflow_jax.objective.flow_maps import pairs, velocity as lib
from diffflow_jax.objective.flow_maps.progressive import two_legs
from diffflow_jax.process import flow_maps, ranges


@ranges.checked(share="in [0, 1]")
def shortcut(
  objective, apply, params, key, x, cond=None, *, share=0.25, finest=128
):
  """Shortcut models: a step of 2d is two of d, d a power of ½.

      ‖ū(z; 2d) - sg[½ ū(z; d) + ½ ū(z_m; d)]‖²    and flow matching at d = 0

  Frans et al., arXiv:2410.12557 algorithm 1; their s(x, t, d) is -ū.
  Steps are in the objective's schedule's time, w is ½ if that is flow time.

  Equation (self_consistency) of docs/math.

  Args:
    apply: (params, z, logsnr, cond, to) -> ŷ.
    key: PRNG key; x: (batch, ...) clean data; cond: passed on as it is.
    share: of the batch, its first examples, on self-consistency.
    finest: the least d is 1/finest.
  Returns:
    Terms.
  Raises:
    ValueError: share is no share, or finest no power of 2.
  """
  return _shared(
    objective, apply, params, key, x, cond, share, True,
    lambda key, num: pairs.dyadic(key, objective.schedule, num, finest),
  )  # fmt: skip


@ranges.checked(share="in [0, 1]")
def split_mean_flow(objective, apply, params, key, x, cond=None, *, share=0.5):
  """SplitMeanFlow: a step is split anywhere, and no derivative is taken.

      ‖ū(z_s; s -> t) - sg[w ū(z_s; s -> m) + (1 - w) ū(z_m; m -> t)]‖²

  Guo et al., arXiv:2507.16884 algorithm 1: s, t of the objective's density, m
  uniform between them. As m nears s, MeanFlow's.

  Equation (self_consistency) of docs/math.

  Args:
    share: of the batch, its first examples, on self-consistency; the rest is
      flow matching. Others as of `shortcut`.
  Returns:
    Terms.
  """
  return _shared(
    objective, apply, params, key, x, cond, share, True,
    lambda key, num: _anywhere(objective, key, num),
  )  # fmt: skip


@ranges.checked(share="in [0, 1]")
def progressive_map(
  objective, apply, params, key, x, cond=None, *, share=0.5, teacher=None
):
  """Progressive flow map matching: the map is the composition of its parts.

      ‖Φ_st(z_s) - Φ_mt(Φ_sm(z_s))‖² / (s - t)²,   with gradient through all

  Boffi et al., arXiv:2406.07507 and, without a teacher,
  arXiv:2505.18825; in flow time, as an error of ū.

  Equation (progressive_map) of docs/math.

  Args:
    share: of the batch, its first examples, on this; the rest, with t = s, is
      the teacher's velocity, or flow matching without one.
    teacher: predict(z, lv, cond) -> (x̂, ε̂), guided or not.
  Returns:
    Terms.
  """
  return _shared(
    objective, apply, params, key, x, cond, share, False,
    lambda key, num: _anywhere(objective, key, num), teacher,
  )  # fmt: skip


def self_consistency_at(
  objective,
  apply,
  params,
  x,
  eps,
  s,
  m,
  t,
  cond=None,
  *,
  num=None,
  stop=True,
  teacher=None,
):
  """The Terms of all three at levels s, m, t (batch,) by logsnr, and noise.

  Equation (self_consistency) of docs/math.
  Equation (progressive_map) of docs/math.

  Args:
    num: how many of the first examples are compared with their two legs, all if
      None; the others are at rest, their m and t not looked at.
    stop: whether the legs have no gradient: False is `progressive_map`.
    teacher: whose velocity those at rest learn; eps - x, if None.
  """
  u_c, z, s, m, t = lib.noisy(x, eps, s, m, t)
  num = x.shape[0] if num is None else num
  first = lambda tree: jax.tree.map(lambda leaf: leaf[:num], tree)
  rest = lambda tree: jax.tree.map(lambda leaf: leaf[num:], tree)
  velocity = lib.mean_velocity(objective, apply, params, first(cond))
  a, b, c, z_s = first((s, m, t, z))
  leg = velocity(z_s, a, b)
  legs = two_legs(
    leg, velocity(flow_maps.flow_step(leg, z_s, a, b), b, c), a, b, c
  )
  legs = jax.lax.stop_gradient(legs) if stop else legs
  anchor = rest(u_c)
  if teacher is not None and num < x.shape[0]:
    anchor = lib.ask(teacher, rest(z), rest(s), rest(cond), to=rest(s))
    anchor = jax.lax.stop_gradient(anchor)
  to = jnp.concatenate([c, rest(s)])
  u_bar = lib.mean_velocity(objective, apply, params, cond)(z, s, to)
  want = jnp.concatenate([legs, anchor])
  return lib.weighted(objective, u_bar - want, s)


def _anywhere(objective, key, num):
  """s, t of the objective's density, and m between them."""
  keys = jax.random.split(key)
  s, t = pairs.two_times(keys[0], objective.density, num, 1.0)
  return s, pairs.between(keys[1], objective.schedule, s, t), t


def _shared(
  objective, apply, params, key, x, cond, share, stop, triples, teacher=None
):
  x, eps, level_key = lib.begin(objective, apply, key, x)
  batch = x.shape[0]
  num = round(share * batch)
  keys = jax.random.split(level_key)
  s, m, t = triples(keys[0], max(num, 1))
  still = densities.draw(objective.density, keys[1], batch)[num:]
  levels = (jnp.concatenate([one[:num], still]) for one in (s, m, t))
  return self_consistency_at(
    objective, apply, params, x, eps, *levels, cond,
    num=num, stop=stop, teacher=teacher,
  )  # fmt: skip
