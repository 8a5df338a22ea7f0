"""What is refused of a config before anything is made of it."""

from diffflow_jax.cli import Refusal
from diffflow_jax.process import conditions, ranges


def need(ok, field, value, allowed):
  """Refuses a field's value unless ok, saying what is allowed."""
  if not ok:
    raise Refusal(f"config.{field} must be {allowed}, not {value!r}")


DEEPEST = 1000  # layers that are traced one by one
DEPTHS = ("depth", "num_blocks")


def in_range(name, value, allowed):
  """Refuses a number out of its range, in the words of `ranges`."""
  try:
    ranges.check(name, value, allowed)
  except ValueError as error:
    raise Refusal(str(error)) from error


def check_sizes(spec):
  """Refuses widths, depths and the like below 1, and depths beyond all use."""
  for key, value in spec.items():
    sizes = value if isinstance(value, (tuple, list)) else (value,)
    for size in sizes:
      if not isinstance(size, int) or isinstance(size, bool):
        continue
      if size < 1:
        raise Refusal(f"config.network.{key} must be at least 1, not {size}")
      most = DEEPEST if key in DEPTHS else 2**31 - 1
      if size > most:
        raise Refusal(
          f"config.network.{key} must be at most {most}, not {size}"
        )


def check_network(network, card):
  """Refuses a network whose output is not like the data, without running it."""
  import jax
  import jax.numpy as jnp

  for method in ("init", "apply"):
    if not callable(getattr(network, method, None)):
      raise Refusal(
        "config.network.name must name what makes a network with init and "
        f"apply, not a {type(network).__name__}"
      )
  z = jax.ShapeDtypeStruct((2, *card.shape), jnp.float32)
  logsnr = jax.ShapeDtypeStruct((2,), jnp.float32)
  cond = jax.eval_shape(lambda: conditions.zeros(card.conditions, 2))
  key = jax.eval_shape(lambda: jax.random.key(0))
  try:
    params = jax.eval_shape(network.init, key, z, logsnr, cond)
    out = jax.eval_shape(network.apply, params, z, logsnr, cond)
  except Exception as error:  # whatever layers that do not fit raise
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise Refusal(
      f"config.network does not fit data of shape {card.shape}: {reason}"
    ) from error
  if out.shape != z.shape:
    raise Refusal(
      f"config.network gives shape {out.shape[1:]} for data of shape "
      f"{card.shape}"
    )
