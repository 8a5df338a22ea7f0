"""flax.nnx modules by the contract of the others.

An nnx module holds its parameters and changes as it is called. Here it is two
functions of plain dicts, as linen's are: init gives {"params": ...}, apply
changes nothing. What a module would change of itself is refused, not lost.
"""

import dataclasses
import functools
import inspect
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

KINDS = (nnx.Param, nnx.RngState, ...)


def from_nnx(module, **settings):
  """A network of an nnx module that is called as module(z, logsnr, cond).

      net = dfj.networks.from_nnx(Mine, width=64)   # Mine(width=64, rngs=...)
      params = net.init(key, z, logsnr, cond)       # {"params": nested dict}
      out = net.apply(params, z, logsnr, cond)      # or rngs={"dropout": key}

  A module with the attribute destination = True is a flow map's, and is called
  as module(z, logsnr, cond, to), to (batch,) as logsnr.

  With a "dropout" rng the module is in its train mode and all that it draws
  comes of that key; without one it is in its eval mode and may draw nothing.
  Variables that are no parameters are constants, as rngs of seed 0 make them.

  Args:
    module: its class or another function of settings and rngs, or the module
      itself: then init gives the parameters that it has, whatever the key.

  Raises:
    ValueError: no nnx module, or one without parameters or with batch
      statistics; when applied, one
      that sets or makes variables as it is called, that draws without a key, or
      whose parameters are not those given.
  """
  if isinstance(module, nnx.Module):
    if settings:
      raise ValueError(
        f"{', '.join(settings)}: a module that is made takes no more settings"
      )
    made = nnx.clone(module)  # which may change after this
    make = lambda key: nnx.clone(made)
  else:
    make = functools.partial(_make, module, settings)
    made = nnx.eval_shape(functools.partial(make, jax.random.key(0)))
  graph, params, rngs, rest = nnx.split(made, *KINDS)
  if not nnx.to_flat_state(params):
    raise ValueError(
      "the nnx module has no nnx.Param: nothing would be trained"
    )
  for path, leaf in nnx.to_flat_state(rest):
    if isinstance(leaf, nnx.BatchStat):
      raise ValueError(
        f"the nnx module has batch statistics at {_name(path)}, which mix "
        "examples of different levels and are not kept: use GroupNorm or "
        "LayerNorm"
      )
  if nnx.to_flat_state(rest):
    constants = lambda: nnx.split(make(jax.random.key(0)), *KINDS)[3]
    rest = jax.jit(constants)()
  return Adapted(
    make,
    graph,
    dict(nnx.to_flat_state(params)),
    dict(nnx.to_flat_state(rngs)),
    dict(nnx.to_flat_state(rest)),
    getattr(made, "num_classes", None),
    bool(getattr(made, "destination", False)),
  )


def adapted(make):
  """make of the same settings, which gives networks where make gives modules.

  Args:
    make: what a config names: an nnx class, or a function of settings, and
      perhaps of rngs, that gives an nnx module or any network.
  """
  known = _parameters(make)
  other = inspect.isclass(make) and not issubclass(make, nnx.Module)
  of_rngs = "rngs" in known and not other

  def network(*args, **settings):
    if of_rngs:
      return from_nnx(lambda rngs: make(*args, rngs=rngs, **settings))
    made = make(*args, **settings)
    return from_nnx(made) if isinstance(made, nnx.Module) else made

  network.__signature__ = inspect.Signature(
    [p for p in known.values() if not (of_rngs and p.name == "rngs")]
  )
  return network


def _parameters(make):
  """What a function takes; nnx hides that of its classes."""
  if inspect.isclass(make) and issubclass(make, nnx.Module):
    make = functools.partial(make.__init__, None)
  return inspect.signature(make).parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Adapted:
  """What `from_nnx` gives: init and apply, as linen has them.

  Attributes:
    make: key -> module; graph: nnx's.
    variables, rngs, constants: {path: Variable} of its parameters, of what it
      draws with, and of all else.
    num_classes: the module's own, or None.
    destination: whether the module says that it is a flow map's.
  """

  make: Any
  graph: Any
  variables: Any
  rngs: Any
  constants: Any
  num_classes: Any
  destination: bool

  @property
  def dropout(self):
    """Whether it has rngs: training gives it a key."""
    return bool(self.rngs)

  def init(self, key, z, logsnr, cond=None):
    """{"params": ...}, float32 unless the module says otherwise."""
    del z, logsnr, cond  # nnx modules know their shapes
    params = nnx.split(self.make(key), *KINDS)[1]
    tree = {}
    for path, variable in nnx.to_flat_state(params):
      *folders, last = map(str, path)
      here = tree
      for folder in folders:
        here = here.setdefault(folder, {})
      # a copy: a step that donates its state must not take the module's own
      here[last] = jnp.array(variable.get_value())
    return {"params": tree}

  def apply(self, params, z, logsnr, cond=None, to=None, *, rngs=None):
    """The module's output; nothing of it changes.

    It is told to, where a flow map goes, as its fourth argument; logsnr itself
    if that is None.

    Raises:
      ValueError: as `from_nnx`; or to is given, and it is no flow map.
    """
    way = ()
    if self.destination:
      way = (logsnr if to is None else to,)
    elif to is not None:
      raise ValueError(
        "the network is told where it goes, and its nnx module has no "
        "attribute destination = True, which makes it a flow map's"
      )
    key = (rngs or {}).get("dropout")
    state = self._state(params, key)
    module = nnx.merge(self.graph, nnx.from_flat_state(state))
    module.eval() if key is None else module.train()
    out = module(z, logsnr, cond, *way)
    for path, leaf in nnx.to_flat_state(nnx.state(module)):
      if (
        path not in state or _is_watched(state[path]) and not _is_watched(leaf)
      ):
        raise ValueError(
          f"the nnx module makes {_name(path)}, a variable of the kind "
          f"{type(leaf).__name__}, as it is called, which would be lost"
        )
    return out

  def _state(self, params, key):
    """{path: Variable} of a whole module."""
    state = {p: self._given(params, p, v) for p, v in self.variables.items()}
    state |= {p: _kept(leaf) for p, leaf in self.constants.items()}
    return state | _streams(self.rngs, key)

  def _given(self, params, path, variable):
    value = params["params"]
    try:
      for name in path:
        value = value[str(name)]
    except KeyError as error:
      raise ValueError(f"params have no {_name(path)}") from error
    want = variable.get_value().shape
    if jnp.shape(value) != want:
      raise ValueError(
        f"params: {_name(path)} must have the shape {want}, not "
        f"{jnp.shape(value)}"
      )
    return _watched(variable.replace(value), _refuse_change)

  def tabulate(self, key, z, logsnr, cond=None, **settings):
    """A table of its layers as text, as linen gives it."""
    text = []

    def trace(key):  # without making its parameters
      module = self.make(key)
      module.eval()
      text.append(nnx.tabulate(module, z, logsnr, cond, **settings))

    jax.eval_shape(trace, key)
    return text[0]


def _make(function, settings, key):
  """The module of a key."""
  rngs = nnx.Rngs(key)
  if "rngs" in _parameters(function):
    made = function(rngs=rngs, **settings)
  else:
    made = function(rngs, **settings)
  if not isinstance(made, nnx.Module):
    raise ValueError(
      "from_nnx takes an nnx module or what makes one of rngs, not what makes "
      f"a {type(made).__name__}"
    )
  return made


def _name(path):
  return "/".join(map(str, path))


def _streams(rngs, key):
  """The state of a module's own rngs, from one key, or frozen without one."""
  state = {}
  for i, (path, leaf) in enumerate(
    sorted(rngs.items(), key=lambda e: _name(e[0]))
  ):
    shape = leaf.get_value().shape
    if isinstance(leaf, nnx.RngKey):
      own = jax.random.fold_in(jax.random.key(0) if key is None else key, i)
      leaf = leaf.replace(jax.random.split(own, shape) if shape else own)
    else:
      leaf = leaf.replace(jnp.zeros(shape, jnp.uint32))
      leaf = _watched(leaf, _refuse_draw) if key is None else leaf
    state[path] = leaf
  return state


def _kept(leaf):
  if not isinstance(leaf, nnx.Variable):
    return leaf  # an array of the module's
  return _watched(leaf.replace(leaf.get_value()), _refuse_change)


def _watched(variable, hook):
  """A variable that calls hook where the module sets it.

  Also inside nnx.jit or nnx.remat, where its value comes back as another.
  """
  variable.set_metadata(on_set_value=(hook,))
  return variable


def _is_watched(leaf):
  return (
    isinstance(leaf, nnx.Variable) and "on_set_value" in leaf.get_metadata()
  )


def _refuse_change(variable, value):
  raise ValueError(
    f"the nnx module sets a {type(variable).__name__} of shape "
    f"{jnp.shape(value)} as it is called, which would be lost: a network is a "
    "function of its parameters"
  )


def _refuse_draw(variable, value):
  del variable, value
  raise ValueError(
    "the nnx module draws random numbers in its eval mode, as apply was given "
    'no rngs={"dropout": key}'
  )
