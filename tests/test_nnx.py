"""flax.nnx modules as networks: the same functions, and nothing lost."""

import functools
import inspect

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import diffflow_jax as dfj
from diffflow_jax import networks

Z = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
LOGSNR = jnp.array([-jnp.inf, 0.0, 2.0, jnp.inf])
COND = jnp.array([0, 1, 2, 3])
INPUTS = Z, LOGSNR, COND


class Mlp(nnx.Module):
  """A small network, which may misbehave when it is called."""

  def __init__(
    self, width=8, num_classes=3, dtype=None, rate=0.0, does=None, *, rngs
  ):
    linear = functools.partial(nnx.Linear, dtype=dtype, rngs=rngs)
    self.level, self.last = linear(8, width), linear(width, 2)
    self.layers = nnx.List([linear(2, width), linear(width, width)])
    self.label = nnx.Embed(num_classes + 1, width, rngs=rngs)
    self.dropout = nnx.Dropout(rate, rngs=rngs)
    self.scale = nnx.Variable(jax.random.normal(rngs.params(), (width,)))
    self.rngs, self.does, self.num_classes = rngs, does, num_classes
    if does == "statistics":
      self.norm = nnx.BatchNorm(width, rngs=rngs)

  def __call__(self, z, logsnr, cond=None):
    none = jnp.full(z.shape[0], self.num_classes)
    h = self.level(networks.logsnr_features(logsnr, 8))
    h = h + self.label(none if cond is None else cond)
    h = nnx.silu(h + self.layers[0](z))
    for layer in list(self.layers)[1:]:
      h = self._inside(lambda m, layer, h: h + nnx.silu(layer(h)))(layer, h)
    return self.last(self.dropout(h) * self.scale[...])

  def _inside(self, fn):
    """fn(self, …), which in some cases changes this module."""
    does = self.does

    def call(module, layer, h):
      if does in ("counts", "counts in jit", "counts in remat"):
        module.scale[...] += 1.0
      if does == "learns":
        module.last.bias[...] = h[0, :2]
      if does == "draws":
        h = h + jax.random.normal(module.rngs.noise(), h.shape)
      if does == "makes":
        module.seen = nnx.Variable(h)
      if does == "replaces":
        module.scale = nnx.Variable(h[0])
      return fn(module, layer, h)

    where = (does or "").partition(" in ")[2]
    wrap = {"jit": nnx.jit, "remat": nnx.remat}.get(where, lambda f: f)
    return functools.partial(wrap(call), self)


class Linen(nn.Module):
  """The same function in linen, with the same names."""

  scale: tuple

  @nn.compact
  def __call__(self, z, logsnr, cond):
    features = networks.logsnr_features(logsnr, 8)
    h = nn.Dense(8, name="level")(features)
    h = h + nn.Embed(4, 8, name="label")(cond)
    h = nn.silu(h + nn.Dense(8, name="layers/0")(z))
    h = h + nn.silu(nn.Dense(8, name="layers/1")(h))
    return nn.Dense(2, name="last")(h * jnp.array(self.scale))


@functools.cache
def _net(**settings):
  return networks.from_nnx(Mlp, **settings)


def test_it_is_the_function_that_linen_has_with_the_same_weights():
  net = _net()
  params = jax.jit(net.init)(jax.random.key(1), *INPUTS)
  flat = {**params["params"]}
  flat |= {f"layers/{i}": layer for i, layer in flat.pop("layers").items()}
  scale = tuple(np.asarray(net.constants["scale",].get_value()).tolist())
  want = Linen(scale).apply({"params": flat}, *INPUTS)
  got = jax.jit(net.apply)(params, *INPUTS)
  assert np.abs(want).max() > 0.1
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
  none = jax.jit(net.apply)(params, Z, LOGSNR)
  np.testing.assert_array_equal(none[3], got[3])  # num_classes: no label


def test_parameters_are_a_plain_dict_and_a_function_of_the_key():
  net = _net()
  params = net.init(jax.random.key(1), *INPUTS)
  leaves, tree = jax.tree.flatten(params)
  assert all(isinstance(leaf, jax.Array) for leaf in leaves)
  assert sorted(params) == ["params"]
  assert sorted(params["params"]) == ["label", "last", "layers", "level"]
  assert sorted(params["params"]["layers"]) == ["0", "1"]

  def walk(node):
    assert type(node) is dict
    for key, value in node.items():
      assert type(key) is str
      if not isinstance(value, jax.Array):
        walk(value)

  walk(params)
  assert tree == jax.tree.structure(
    jax.eval_shape(net.init, jax.random.key(1), *INPUTS)
  )
  same, other = (net.init(jax.random.key(i), *INPUTS) for i in (1, 2))
  assert jax.tree.all(jax.tree.map(np.array_equal, same, params))
  assert not np.array_equal(jax.tree.leaves(other)[-1], leaves[-1])


def test_a_module_that_is_made_keeps_its_parameters_and_is_not_touched():
  module = Mlp(rngs=nnx.Rngs(jax.random.key(1)))
  net = networks.from_nnx(module)
  params = net.init(jax.random.key(5), *INPUTS)
  want = _net().init(jax.random.key(1), *INPUTS)
  assert jax.tree.all(jax.tree.map(np.array_equal, params, want))
  before = module(*INPUTS)
  step = jax.jit(
    lambda params: jax.tree.map(lambda leaf: leaf + 1.0, params),
    donate_argnums=0,
  )
  step(params)  # which deletes what it is given
  np.testing.assert_array_equal(module(*INPUTS), before)
  again = net.init(jax.random.key(5), *INPUTS)
  got = net.apply(again, *INPUTS)
  np.testing.assert_allclose(got, before, rtol=1e-6, atol=1e-6)


def test_it_trains_and_samples_in_a_loop_of_ones_own():
  objective, net = dfj.objectives.flow_matching(), _net(width=16, rate=0.1)
  x = jnp.array([[1.0, -1.0]] * 64)  # all data at one point
  params = net.init(jax.random.key(0), x, jnp.zeros(64))
  tx = optax.adam(1e-2)

  @jax.jit
  def step(carry, key):
    params, state = carry
    apply = functools.partial(net.apply, rngs={"dropout": key})
    loss = lambda p: dfj.weighted_mse(objective, apply, p, key, x).loss.mean()
    value, grads = jax.value_and_grad(loss)(params)
    updates, state = tx.update(grads, state)
    return (optax.apply_updates(params, updates), state), value

  keys = jax.random.split(jax.random.key(1), 300)
  (params, _), losses = jax.lax.scan(step, (params, tx.init(params)), keys)
  assert np.mean(losses[-50:]) < 0.5 * np.mean(losses[:10])
  levels = dfj.grids.uniform_t(objective.schedule, objective.scale, 10)
  predict = dfj.predictor(objective, net.apply, params)
  samples = dfj.sample(
    predict, dfj.solvers.ddim(levels), jax.random.key(2), (64, 2)
  )
  np.testing.assert_allclose(np.mean(samples, 0), [1.0, -1.0], atol=0.25)


def test_bfloat16_computes_in_it_with_float32_parameters_and_loss():
  net = _net(dtype=jnp.bfloat16)
  params = net.init(jax.random.key(1), *INPUTS)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
  out = net.apply(params, *INPUTS)
  assert out.dtype == jnp.bfloat16
  want = _net().apply(params, *INPUTS)
  np.testing.assert_allclose(out.astype(np.float32), want, atol=0.05)
  terms = dfj.weighted_mse(
    dfj.objectives.edm(), net.apply, params, jax.random.key(0), Z, COND
  )
  assert terms.loss.dtype == jnp.float32 and np.isfinite(terms.loss).all()


def test_dropout_is_there_iff_a_key_is_given_and_is_the_keys():
  net, plain = _net(rate=0.5), _net()
  params = net.init(jax.random.key(1), *INPUTS)
  apply = jax.jit(net.apply)
  still = apply(params, *INPUTS)
  np.testing.assert_allclose(still, plain.apply(params, *INPUTS), rtol=1e-5)
  one, same, two = (
    apply(params, *INPUTS, rngs={"dropout": jax.random.key(i)})
    for i in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - two).max() > 1e-3 and np.abs(one - still).max() > 1e-3
  keys = jax.random.split(jax.random.key(2), 4000)
  call = lambda key: net.apply(params, *INPUTS, rngs={"dropout": key})
  outs = jax.jit(jax.vmap(call))(keys)
  error = np.std(outs, axis=0) / np.sqrt(len(keys))
  assert np.all(np.abs(np.mean(outs, axis=0) - still) < 4.5 * error)
  assert net.dropout and net.num_classes == 3


class Deep(nnx.Module):
  """Layers stacked and scanned, each with its own dropout."""

  def __init__(self, *, rngs):
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=0, out_axes=0)
    def make(rngs):
      return nnx.Dropout(0.5, rngs=rngs)

    self.dropout = make(rngs)
    self.one = nnx.Param(jnp.ones(()))

  def __call__(self, z, logsnr, cond=None):
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def all_layers(h, dropout):
      return h + dropout(jnp.ones_like(h))

    return self.one[...] * all_layers(z, self.dropout)


def test_scanned_layers_drop_their_own():
  net = networks.from_nnx(Deep)
  params = net.init(jax.random.key(0), Z, LOGSNR)
  z = jnp.zeros((1, 800))
  out = net.apply(params, z, LOGSNR, rngs={"dropout": jax.random.key(0)})
  values, counts = np.unique(out, return_counts=True)
  np.testing.assert_array_equal(values, [0.0, 2.0, 4.0, 6.0])
  assert np.all(np.abs(counts - [100, 300, 300, 100]) < 60)
  np.testing.assert_array_equal(net.apply(params, z, LOGSNR), z + 3.0)


@pytest.mark.parametrize(
  "does,message",
  [
    ("counts", "sets a Variable of shape .* as it is called"),
    ("counts in jit", "sets a Variable of shape .* as it is called"),
    ("counts in remat", "sets a Variable of shape .* as it is called"),
    ("learns", "sets a Param of shape .* as it is called"),
    ("makes", "makes seen, a variable of the kind Variable, as it is called"),
    ("replaces", "makes scale, a variable of the kind Variable, as it is"),
    ("draws", "draws random numbers in its eval mode"),
  ],
)
def test_what_a_call_would_change_is_refused(does, message):
  net = _net(does=does)
  params = net.init(jax.random.key(0), *INPUTS)
  with pytest.raises(ValueError, match=message):
    net.apply(params, *INPUTS)


def test_what_draws_in_training_may_draw_from_the_key():
  net = _net(does="draws")
  params = net.init(jax.random.key(0), *INPUTS)
  run = lambda i: net.apply(
    params, *INPUTS, rngs={"dropout": jax.random.key(i)}
  )
  np.testing.assert_array_equal(run(0), run(0))
  assert np.abs(run(0) - run(1)).max() > 1e-3


@pytest.mark.parametrize("does", ["learning in jit", "learning in remat"])
def test_layers_inside_jit_and_remat_are_taken(does):
  net = _net(does=does)
  params = net.init(jax.random.key(1), *INPUTS)
  np.testing.assert_allclose(
    net.apply(params, *INPUTS), _net().apply(params, *INPUTS), rtol=1e-5
  )


class Empty(nnx.Module):
  def __init__(self, *, rngs):
    del rngs

  def __call__(self, z, logsnr, cond=None):
    return z


@pytest.mark.parametrize(
  "call,message",
  [
    (lambda: _net(does="statistics"), "batch statistics at norm/mean"),
    (lambda: networks.from_nnx(lambda rngs: networks.MLP()), "makes a MLP"),
    (lambda: networks.from_nnx(Empty), "nothing would be trained"),
    (
      lambda: networks.from_nnx(Mlp(rngs=nnx.Rngs(0)), width=3),
      "width: a module that is made takes no more settings",
    ),
    (lambda: _net().apply({"params": {}}, *INPUTS), "params have no label"),
    (
      lambda: _net().apply(
        _net(width=4).init(jax.random.key(0), Z, 0), *INPUTS
      ),
      r"label/embedding must have the shape \(4, 8\), not \(4, 4\)",
    ),
  ],
)
def test_what_is_no_such_module_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def mixer(width=4, *, rngs):
  return Mlp(width, rngs=rngs)


@pytest.mark.parametrize(
  "make,known",
  [
    (Mlp, ["width", "num_classes", "dtype", "rate", "does"]),
    (mixer, ["width"]),
    (lambda width=4: Mlp(width, rngs=nnx.Rngs(0)), ["width"]),
  ],
  ids=["class", "function", "made"],
)
def test_what_a_config_names_has_its_own_settings_and_gives_a_network(
  make, known
):
  made = networks.adapted(make)
  assert list(inspect.signature(made).parameters) == known
  net = made(width=8)
  params = net.init(jax.random.key(1), *INPUTS)
  assert net.apply(params, *INPUTS).shape == Z.shape


def test_what_makes_other_networks_is_left_as_it_is():
  made = networks.adapted(networks.MLP)
  assert "width" in inspect.signature(made).parameters
  assert made(width=8) == networks.MLP(width=8)


def test_layers_are_tabulated():
  table = networks.tabulate(_net(), (2,))
  assert "label" in table and "Embed" in table


class Map(nnx.Module):
  """A flow map's: what it says is of both levels."""

  destination = True

  def __init__(self, *, rngs):
    self.out = nnx.Linear(1, 1, rngs=rngs)

  def __call__(self, z, logsnr, cond, to):
    return self.out(z) * (to - logsnr)[:, None]


def test_a_module_may_be_told_where_it_goes():
  net = networks.from_nnx(Map)
  assert net.destination and not _net().destination
  z, logsnr = jnp.ones((2, 1)), jnp.array([0.0, 1.0])
  params = net.init(jax.random.key(0), z, logsnr)
  twice = [net.apply(params, z, logsnr, None, logsnr + c) for c in (1.0, 2.0)]
  np.testing.assert_allclose(twice[1], 2 * twice[0], rtol=1e-6)
  np.testing.assert_array_equal(net.apply(params, z, logsnr), 0.0)
  with pytest.raises(ValueError, match="no attribute destination = True"):
    _net().apply({"params": {}}, *INPUTS, LOGSNR)
