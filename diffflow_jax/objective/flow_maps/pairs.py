"""Which two levels a flow map is trained between: laws of (s, t), by logsnr.

Each takes a key and the number of pairs, and returns logsnr (num,) each, the
noisier one first. What they depend on may be traced: a grid that grows as
training goes on needs no second program.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from diffflow_jax.objective import densities
from diffflow_jax.process import ranges

RHO = 7.0  # of Karras et al.'s grid, arXiv:2206.00364 eq. 5


@ranges.checked(share="in [0, 1]")
def two_times(key, density, num, share=0.25):
  """(s, t): the noisier and the cleaner of two draws; t = s for the rest.

  MeanFlow, arXiv:2505.13447 §4.3 and Table 1a. With its `logit_normal(-0.4, 1)`
  25% of the pairs have t != s on ImageNet; 75% of `logit_normal(-2, 2)` on
  CIFAR-10, and 50% in improved MeanFlow.

  Equation (meanflow_loss) of docs/math.

  Args:
    density: of either draw; share: of the pairs, with t != s.
  """
  keys = jax.random.split(key, 3)
  a, b = (densities.draw(density, k, num) for k in keys[:2])
  apart = densities.uniforms(keys[2], num) < share
  s, t = jnp.minimum(a, b), jnp.maximum(a, b)
  return jnp.where(apart, s, a), jnp.where(apart, t, a)


def between(key, schedule, s, t):
  """m of s <= m <= t, uniform in the schedule's time: SplitMeanFlow's.

  arXiv:2507.16884 algorithm 1.

  Equation (self_consistency) of docs/math.
  """
  share = densities.uniforms(key, s.shape[0])
  t_s, t_t = schedule.t(s), schedule.t(t)
  m = schedule.logsnr(jnp.clip(t_s + share * (t_t - t_s), 0.0, 1.0))
  return jnp.clip(m, s, t)


def halves(key, grid, num):
  """(s, m, t) of a student's step on a teacher's grid of 2N steps.

  s, m, t = grid[2i], grid[2i+1], grid[2i+2] with i uniform: Salimans & Ho,
  arXiv:2202.00512 algorithm 2.

  Equation (progressive) of docs/math.

  Args:
    grid: logsnr (2N+1,), increasing, of the teacher's steps.
  Raises:
    ValueError: an odd number of steps.
  """
  grid = jnp.asarray(grid)
  steps = grid.size - 1
  if steps < 2 or steps % 2:
    raise ValueError(
      "a student takes half as many steps as its teacher, which must be even, "
      f"not {steps}"
    )
  u = densities.uniforms(key, num)
  i = 2 * jnp.minimum((u * (steps // 2)).astype(jnp.int32), steps // 2 - 1)
  return tuple(grid[i + j] for j in range(3))


@ranges.checked(num_steps="an integer >= 1")
def uniform_grid(schedule, num_steps):
  """logsnr (num_steps + 1,) at equal steps in a schedule's time, increasing."""
  time = jnp.linspace(getattr(schedule, "last", 1.0), 0.0, num_steps + 1)
  return schedule.logsnr(time)


@ranges.checked(num="an integer >= 2")
def karras_grid(num, sigma_min=0.002, sigma_max=80.0):
  """logsnr (num,), increasing, of Karras et al.'s grid without its end at 0.

  Equation (karras_grid) of docs/math.
  """
  return _karras(jnp.arange(num)[::-1], num, sigma_min, sigma_max)


def _karras(i, num, sigma_min, sigma_max):
  """logsnr of the i-th least of num noise levels."""
  low, high = (one ** (1.0 / RHO) for one in (sigma_min, sigma_max))
  return -2.0 * RHO * jnp.log(low + i / (num - 1) * (high - low))


@ranges.checked(num_levels=">= 2")
def adjacent(
  key, num, num_levels, p_mean=-1.1, p_std=2.0, sigma_min=0.002, sigma_max=80.0
):
  """(s, t): neighbours on a Karras grid, by improved consistency's law.

      P(sigma_i) ∝ Φ((ln sigma_i+1 - p_mean)/p_std) - Φ((ln sigma_i - …)/p_std)

  Song & Dhariwal, arXiv:2310.14189 Table 1, so the pair whose interval holds a
  log-normal draw within the grid.

  Equation (adjacent) of docs/math.

  Args:
    num_levels: on the grid, `num_levels_at`; it may be traced.
  """
  normal = lambda sigma: ndtr((math.log(sigma) - p_mean) / p_std)
  low, high = normal(sigma_min), normal(sigma_max)
  u = densities.uniforms(key, num)
  log_sigma = p_mean + p_std * ndtri(low + u * (high - low))
  a, b = (one ** (1.0 / RHO) for one in (sigma_min, sigma_max))
  place = (jnp.exp(log_sigma / RHO) - a) / (b - a) * (num_levels - 1)
  i = jnp.clip(jnp.floor(place), 0, num_levels - 2)
  level = lambda i: _karras(i, num_levels, sigma_min, sigma_max)
  return level(i + 1), level(i)


@ranges.checked(num_steps="> 0")
def num_levels_at(step, num_steps, first=10, last=1280):
  """N(k): how many levels the grid has at a step, doubling 8 times by default.

      N(k) = min(s_0 2^⌊k/K'⌋, s_1) + 1,  K' = ⌊K/(log2⌊s_1/s_0⌋ + 1)⌋

  arXiv:2310.14189 §3.4: 11, 21, 41, … 1281 of K = num_steps.

  Equation (curriculum) of docs/math.
  """
  each = max(int(num_steps / (math.log2(last // first) + 1)), 1)
  most = math.ceil(math.log2(last / first))  # 2^stage is not to overflow
  stage = jnp.minimum(step // each, most)
  return jnp.minimum(first * 2**stage, last) + 1


@ranges.checked(stage=">= 0")
def easy(key, num, stage, p_mean=-1.1, p_std=2.0, q=2.0, k=8.0, b=1.0):
  """(s, t) of easy consistency training: log-normal σ_s, and σ_t from it.

      σ_t = max(0, σ_s (1 - q^-(stage + 1) (1 + k sigmoid(-b σ_s))))

  Geng et al., arXiv:2406.14548 §3.2, with the constants of their code. At stage
  0 most of σ_t are 0, plain denoising; t nears s from stage to stage.

  Equation (easy_pairs) of docs/math.

  Args:
    stage: 0, 1, …, as training goes on; it may be traced.
  """
  u = densities.uniforms(key, num)
  sigma = jnp.exp(p_mean + p_std * ndtri(u))
  ratio = 1.0 - q ** -(stage + 1.0) * (1.0 + k * jax.nn.sigmoid(-b * sigma))
  return -2.0 * jnp.log(sigma), -2.0 * jnp.log(sigma * jnp.maximum(ratio, 0.0))


def dyadic(key, schedule, num, finest=128):
  """(s, m, t) of a shortcut: 2d, halved, with d a power of ½ down to 1/finest.

  s is a multiple of 2d in the schedule's time: Frans et al., arXiv:2410.12557
  §3.1.

  Equation (self_consistency) of docs/math.

  Raises:
    ValueError: finest is no power of 2, at least 2.
  """
  if finest != int(finest) or finest < 2 or int(finest) & (int(finest) - 1):
    raise ValueError(f"finest must be a power of 2, at least 2, not {finest}")
  pick, place = jax.random.split(key)
  sizes = finest.bit_length() - 1  # of 2d: 1, 1/2, … 2/finest
  j = jnp.minimum(
    (densities.uniforms(pick, num) * sizes).astype(int), sizes - 1
  )
  whole = 2**j
  u = jax.random.uniform(place, (num,))
  i = jnp.minimum((u * whole).astype(int), whole - 1)
  last = getattr(schedule, "last", 1.0)
  at = lambda n: schedule.logsnr(last * n / (2.0 * whole))
  return at(2 * i + 2), at(2 * i + 1), at(2 * i)


def to_data(schedule, s, m):
  """(s, m, t) with t a schedule's cleanest level, beyond which there is none.

  A schedule that ends short of the data clips s and m to that level.
  """
  end = schedule.logsnr(jnp.asarray(0.0))
  t = jnp.broadcast_to(end, s.shape).astype(s.dtype)
  return jnp.minimum(s, t), jnp.minimum(m, t), t


@ranges.checked(low="> 0", high="> low")
def strengths(key, num, low=1.0, high=8.0):
  """Guidance strengths w in [low, high], density ∝ 1/w: improved MeanFlow's.

  arXiv:2512.02012; the network is told w as a condition.

  Equation (strengths) of docs/math.
  """
  return low * (high / low) ** densities.uniforms(key, num)
