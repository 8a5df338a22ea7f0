"""What may differ from step to step: how much noise, and which order.

A stochastic solver's eta is one number, one for each step, or a function of the
level that a step leaves from, as `lambda lv: lv.sigma > 0.5`. A multistep
solver's order is the most that its history allows, or less where it is told so.
"""

import numpy as np

from diffflow_jax.process.levels import Level
from diffflow_jax.sampling import checks
from diffflow_jax.sampling.grids import on_host


def numbers(name, value, levels, allowed="finite and >= 0", accept=None):
  """A solver's number as () or (N,): as it is given, or of each step's level.

  Args:
    value: a number, N of them, or a function of a Level with fields (N,).
    levels: the grid, (N+1,); accept: what every number must fulfil.
  Raises:
    ValueError: there are not N of them, or one is not allowed.
  """
  s = levels[:-1]
  n = s.logsnr.shape[0]
  if callable(value):
    fn = value

    def each(lv):
      out = fn(lv)
      _one_or_each(name, out, n)
      return out * (0.0 * lv.sigma + 1.0)

    value = on_host(each, Level(s.logsnr, s.alpha, s.sigma))
  if checks.is_traced(value):
    _one_or_each(name, value, n)
    return value
  accept = accept or (lambda number: 0 <= number < np.inf)
  if np.ndim(value) == 0:
    checks.number(name, value, allowed, accept)
    return value
  value = np.asarray(value)
  _one_or_each(name, value, n)
  for i, number in enumerate(value.astype(np.float64)):
    if not accept(number):
      raise ValueError(f"{name} of step {i} must be {allowed}, not {number:g}")
  return value.astype(np.float64)


def _one_or_each(name, value, num_steps):
  value = value if hasattr(value, "dtype") else np.asarray(value)
  real = checks.is_real(value.dtype) or value.dtype == bool
  if real and value.shape in ((), (num_steps,)):
    return
  raise ValueError(
    f"{name} must be one number, a function of the level, or one number for "
    f"each of the {num_steps} steps, not {value.dtype} of shape {value.shape}"
  )


def orders(order, num_steps, orders=None, lower_order_final=False):
  """The highest order of each step, (N,) integers.

  Args:
    order: of the solver; orders: None, or one for each step, 1 … order.
    lower_order_final: the last step has order 1, the one before it 2, and so
      on, as UniPC (arXiv:2302.04867) and diffusers do in few steps.
  Raises:
    ValueError: orders are not that many, or not in that range, or
      lower_order_final is no bool.
    TypeError: orders are traced: they say what the table reads.
  """
  checks.flag("lower_order_final", lower_order_final)
  if checks.is_traced(orders):
    raise TypeError("orders must be concrete integers, not traced")
  most = np.full(num_steps, order)
  if orders is not None:
    most = np.asarray(orders)
    if most.shape != (num_steps,) or most.dtype.kind not in "iu":
      raise ValueError(
        f"orders must be one integer for each of the {num_steps} steps, not "
        f"{orders!r}"
      )
    if ((most < 1) | (most > order)).any():
      raise ValueError(f"orders must be 1 to {order}, not {orders!r}")
  if lower_order_final:
    most = np.minimum(most, num_steps - np.arange(num_steps))
  return most
