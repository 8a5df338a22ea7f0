"""What keeps losses with a derivative of the network in them steady.

All of it acts on one example's own error. Where that is noisy (no teacher),
such a weight moves the fixed point: E[w R | z] is not 0 though E[R | z] is,
unless the posterior of x is symmetric. A weight of the levels alone does not.
"""

import jax

from diffflow_jax.objective.flow_maps.velocity import mean_square
from diffflow_jax.process.levels import bcast


def adaptive(power, c=1e-3):
  """error -> error/sg(error + c)^power, MeanFlow's adaptive weight.

  arXiv:2505.13447: its gradient is that of (error + c)^(1 - power)/(1 -
  power): ½ is pseudo-Huber, 1 a logarithm, 0 the error. The trap of per-sample
  weights above is its price. error is a mean over dimensions.

  Equation (damped) of docs/math.
  """
  return lambda error: error / jax.lax.stop_gradient(error + c) ** power


def normalised(tangent, c=0.1):
  """g/(‖g‖ + c), with the root mean square over a sample: sCM's.

  Lu & Song, arXiv:2410.11081. With a teacher g is 0 at the solution, and
  nothing moves; without one the trap of per-sample weights is its price.

  Equation (normalised) of docs/math.
  """
  norm = mean_square(tangent) ** 0.5
  return tangent / (bcast(norm, tangent) + c)


def warmed_up(step, num_steps=10_000):
  """r: 0 -> 1 over the first steps: how much of the tangent counts in sCM.

  arXiv:2410.11081: r = 0 is diffusion training.

  Equation (continuous) of docs/math.
  """
  return jax.numpy.minimum(step / num_steps, 1.0)
