"""Functions of concrete numbers on the host: NumPy, and nothing is compiled.

JAX compiles a little program for every operation and shape that it is asked for
outside jit; a grid or a table asks for dozens and runs each once. So a function
of known numbers is only traced, which costs milliseconds, derivatives and all,
and what it is made of is looked up here and done by NumPy.

A function that does what is not in `OPERATIONS` is run by JAX as it is.
"""

import jax
import jax.numpy as jnp
import numpy as np

NUMBERS = (float, int, np.generic, np.ndarray, jax.Array)


class _Unknown(Exception):
  """An operation that NumPy is not told how to do."""


def _broadcast(x, *, shape, broadcast_dimensions, **_):
  ones = [1] * len(shape)
  for axis, place in enumerate(broadcast_dimensions):
    ones[place] = np.shape(x)[axis]
  return np.broadcast_to(np.reshape(x, ones), shape)


def _slice(x, *, start_indices, limit_indices, strides):
  strides = strides or (1,) * len(start_indices)
  bounds = zip(start_indices, limit_indices, strides, strict=True)
  return x[tuple(slice(*b) for b in bounds)]


def _dynamic_slice(x, *starts, slice_sizes):
  places = []
  for size, length, start in zip(slice_sizes, x.shape, starts, strict=True):
    start = int(np.clip(start, 0, length - size))
    places.append(slice(start, start + size))
  return x[tuple(places)]


def _gather(x, index, *, dimension_numbers, slice_sizes, **_):
  """x[index] of a line of numbers, which is what a table of rows needs."""
  index = index[..., 0]
  inside = (0 <= index) & (index < len(x))
  if x.ndim != 1 or slice_sizes != (1,) or not inside.all():
    raise _Unknown("gather")
  return x[index, None] if dimension_numbers.offset_dims else x[index]


def _divide(x, y):
  quotient = np.true_divide(x, y)
  return quotient if np.result_type(x, y).kind == "f" else np.trunc(quotient)


def _iota(*, dtype, shape, dimension, **_):
  line = np.arange(shape[dimension], dtype=dtype)
  return _broadcast(line, shape=shape, broadcast_dimensions=(dimension,))


def _cumsum(x, *, axis, reverse):
  turn = (lambda x: np.flip(x, axis)) if reverse else lambda x: x
  return turn(np.cumsum(turn(x), axis))


def _same(x, *_, **__):
  return x


def _special(name):
  def operation(x):
    from scipy import special  # a fifth of a second, which few schedules need

    return getattr(special, name)(x)

  return operation


OPERATIONS = {
  "abs": np.abs,
  "add": np.add,
  "add_any": np.add,
  "and": np.bitwise_and,
  "atan": np.arctan,
  "atan2": np.arctan2,
  "atanh": np.arctanh,
  "asinh": np.arcsinh,
  "broadcast_in_dim": _broadcast,
  "clamp": lambda lo, x, hi: np.clip(x, lo, hi),
  "concatenate": lambda *xs, dimension: np.concatenate(xs, dimension),
  "convert_element_type": _same,  # every result gets its own dtype
  "copy": _same,
  "cos": np.cos,
  "cosh": np.cosh,
  "cumsum": _cumsum,
  "device_put": _same,
  "div": _divide,
  "dynamic_slice": _dynamic_slice,
  "eq": np.equal,
  "erf": _special("erf"),
  "erf_inv": _special("erfinv"),
  "erfc": _special("erfc"),
  "exp": np.exp,
  "expm1": np.expm1,
  "floor": np.floor,
  "gather": _gather,
  "ge": np.greater_equal,
  "gt": np.greater,
  "integer_pow": lambda x, y: x**y,
  "iota": _iota,
  "is_finite": np.isfinite,
  "le": np.less_equal,
  "le_to": np.less_equal,
  "log": np.log,
  "log1p": np.log1p,
  "logistic": lambda x: 1.0 / (1.0 + np.exp(-x)),
  "lt": np.less,
  "lt_to": np.less,
  "max": np.maximum,
  "min": np.minimum,
  "mul": np.multiply,
  "ne": np.not_equal,
  "neg": np.negative,
  "not": np.invert,
  "or": np.bitwise_or,
  "pow": np.power,
  "rem": np.fmod,
  "reduce_max": lambda x, axes, **_: np.max(x, axes),
  "reduce_min": lambda x, axes, **_: np.min(x, axes),
  "reduce_sum": lambda x, axes, **_: np.sum(x, axes),
  "reshape": lambda x, new_sizes, **_: np.reshape(x, new_sizes),
  "rev": lambda x, dimensions: np.flip(x, dimensions),
  "select_n": lambda which, no, yes: np.where(which, yes, no),
  "sign": np.sign,
  "sin": np.sin,
  "sinh": np.sinh,
  "slice": _slice,
  "sqrt": np.sqrt,
  "square": np.square,
  "squeeze": lambda x, dimensions: np.squeeze(x, dimensions),
  "stop_gradient": _same,
  "sub": np.subtract,
  "tan": np.tan,
  "tanh": np.tanh,
  "transpose": lambda x, permutation: np.transpose(x, permutation),
}


def _scan(consts, carry, xs, inner, *, length, reverse):
  order = range(length)[::-1] if reverse else range(length)
  stacked = [None] * length
  for i in order:
    out = _run(inner, [*consts, *carry, *(x[i] for x in xs)])
    carry, stacked[i] = out[: len(carry)], out[len(carry) :]
  return [*carry, *map(np.stack, zip(*stacked, strict=True))]


def _while(args, *, cond_nconsts, body_nconsts, cond_jaxpr, body_jaxpr):
  ahead = cond_nconsts + body_nconsts
  asks, does = args[:cond_nconsts], args[cond_nconsts:ahead]
  carry = args[ahead:]
  while _run(cond_jaxpr, [*asks, *carry])[0]:
    carry = _run(body_jaxpr, [*does, *carry])
  return carry


def _equation(equation, args):
  """The results of one line of a jaxpr, a list."""
  name, settings = equation.primitive.name, equation.params
  if name in OPERATIONS:
    return [OPERATIONS[name](*args, **_kept(settings))]
  if name == "scan":
    split = settings["num_consts"], settings["num_carry"]
    consts, rest = args[: split[0]], args[split[0] :]
    return _scan(
      consts,
      rest[: split[1]],
      rest[split[1] :],
      settings["jaxpr"],
      length=settings["length"],
      reverse=settings["reverse"],
    )
  if name == "while":
    return _while(args, **settings)
  if name == "cond":
    index = np.clip(int(args[0]), 0, len(settings["branches"]) - 1)
    return _run(settings["branches"][index], args[1:])
  inner = settings.get("jaxpr", settings.get("call_jaxpr"))
  if inner is None or not hasattr(inner, "consts"):
    raise _Unknown(name)
  return _run(inner, args)


# settings of an operation that NumPy has no use for
_UNUSED = {"accuracy", "out_dtype", "sharding"}


def _kept(settings):
  return {k: v for k, v in settings.items() if k not in _UNUSED}


def _run(closed, args):
  """A closed jaxpr on NumPy arrays, every result of the dtype it would have."""
  jaxpr = closed.jaxpr
  known = dict(
    zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True)
  )
  known |= zip(jaxpr.invars, args, strict=True)
  read = lambda v: np.asarray(v.val) if hasattr(v, "val") else known[v]
  for equation in jaxpr.eqns:
    out = _equation(equation, [read(v) for v in equation.invars])
    for var, value in zip(equation.outvars, out, strict=True):
      known[var] = np.asarray(value, var.aval.dtype)
  return [read(v) for v in jaxpr.outvars]


def evaluate(fn, *args):
  """fn(*args) as NumPy arrays, by NumPy, in the dtypes that JAX would give it.

  Where fn cannot be traced, or does what NumPy is not told how to do, JAX runs
  it one operation after the other.

  Args:
    fn: arrays -> a pytree of arrays; args: pytrees, their numbers concrete.
  """
  leaves, structure = jax.tree.flatten(args)
  given = [i for i, leaf in enumerate(leaves) if isinstance(leaf, NUMBERS)]

  def of_numbers(*values):
    filled = list(leaves)
    for i, value in zip(given, values, strict=True):
      filled[i] = value
    return fn(*structure.unflatten(filled))

  values = [leaves[i] for i in given]
  try:
    closed, shapes = jax.make_jaxpr(of_numbers, return_shape=True)(*values)
    values = [
      np.asarray(value, var.aval.dtype)
      for value, var in zip(values, closed.jaxpr.invars, strict=True)
    ]
    with np.errstate(all="ignore"):
      out = _run(closed, values)
    return jax.tree.structure(shapes).unflatten(out)
  except (_Unknown, jax.errors.JAXTypeError):
    with jax.ensure_compile_time_eval():
      arrays = (jnp.asarray(l) if hasattr(l, "dtype") else l for l in leaves)
      return jax.tree.map(np.asarray, fn(*structure.unflatten(arrays)))


def evaluate64(fn, *args):
  """`evaluate` in float64, whatever the default dtype."""
  wide = lambda leaf: (
    np.asarray(leaf, np.float64) if hasattr(leaf, "dtype") else leaf
  )
  with jax.enable_x64(True):
    return evaluate(fn, *jax.tree.map(wide, args))
