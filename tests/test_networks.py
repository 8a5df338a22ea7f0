"""Networks: shapes, zero at the start, what they are conditioned on."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import networks
from diffflow_jax.networks import embeddings, layers, patches
from diffflow_jax.process import conditions
from diffflow_jax.process.conditions import Condition

CASES = {
  "mlp": (networks.MLP(width=16, depth=1, num_classes=3), (4, 2)),
  "unet": (
    networks.UNet((8, 16), 1, 3, attention=(4,), head_dim=4, num_groups=4),
    (4, 4, 8, 2),  # not square
  ),
  "dit": (networks.DiT(16, 2, 2, num_classes=3), (4, 4, 8, 1)),
  "dit_rope": (
    networks.DiT(16, 2, 2, patch=1, num_classes=3, positions="rope"),
    (4, 4, 2, 2),
  ),
}
ALL = pytest.mark.parametrize("name", CASES)
# these programs run for milliseconds: compile them quickly, not well
jit = functools.partial(
  jax.jit,
  compiler_options={
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
  },
)


@pytest.mark.parametrize("sequences", ["cross", "joint"])
@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_a_transformer_keeps_z_s_precision_in_x64(positions, sequences, x64):
  told = {"text": Condition("sequence", (3, 5))}
  network = networks.DiT(
    16, 2, 2, conditions=told, positions=positions, sequences=sequences
  )
  cond = conditions.zeros(told, 2)
  for z_type, logsnr_type, want in (
    (jnp.float32, jnp.float64, jnp.float32),
    (jnp.float64, jnp.float32, jnp.float64),
    (jnp.float32, jnp.float32, jnp.float32),
  ):
    z, logsnr = jnp.ones((2, 4, 4, 1), z_type), jnp.zeros(2, logsnr_type)
    params = jax.eval_shape(network.init, jax.random.key(0), z, logsnr, cond)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    out = jax.eval_shape(network.apply, params, z, logsnr, cond)
    assert out.dtype == want


def _inputs(shape):
  """z, logsnr with exact ends, and cond with the null class, of 4 examples."""
  z = jax.random.normal(jax.random.key(1), shape)
  logsnr = jnp.array([-jnp.inf, -2.0, 5.0, jnp.inf])
  return z, logsnr, jnp.array([0, 1, 2, 3])


@functools.cache
def _run(name, **changes):
  """(run, params): run gives (output, gradient of its mean square)."""
  network, shape = CASES[name]
  network = network.clone(**changes)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: rng.normal(0.0, 0.2, leaf.shape).astype(leaf.dtype),
    jax.eval_shape(network.init, jax.random.key(0), *_inputs(shape)),
  )

  @jit
  def run(params, *inputs):
    def loss(params):
      out = network.apply(params, *inputs)
      return (out**2).mean(), out

    grads, out = jax.grad(loss, has_aux=True)(params)
    return out, grads

  return run, params, _inputs(shape)


def _leaves(tree):
  return jax.tree_util.tree_leaves_with_path(tree)


def _norm(tree):
  return np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))


@ALL
def test_output_has_the_inputs_shape_and_starts_at_zero(name):
  network, shape = CASES[name]
  inputs = _inputs(shape)

  @jit
  def start(key):
    params = network.init(key, *inputs)
    return network.apply(params, *inputs), params

  out, params = start(jax.random.key(0))
  assert out.shape == shape and out.dtype == jnp.float32
  assert np.all(out == 0.0)
  assert _norm(params) > 1.0


@ALL
def test_level_class_and_exact_ends_matter_and_are_finite(name):
  run, params, (z, logsnr, cond) = _run(name)
  out, _ = run(params, z, logsnr, cond)
  assert np.isfinite(out).all()
  for other in (
    run(params, z, logsnr[::-1], cond)[0],
    run(params, z, logsnr, cond[::-1])[0],
  ):
    assert np.abs(out - other).max() > 1e-2 * np.abs(out).max()


@ALL
def test_examples_do_not_see_each_other(name):
  run, params, (z, *rest) = _run(name)
  out, _ = run(params, z, *rest)
  other, _ = run(params, z.at[1:].set(0.0), *rest)
  np.testing.assert_allclose(out[0], other[0], rtol=1e-4, atol=1e-4)
  assert np.abs(out[1] - other[1]).max() > 1e-2


@ALL
def test_every_parameter_gets_a_finite_gradient(name):
  run, params, inputs = _run(name)
  for path, leaf in _leaves(run(params, *inputs)[1]):
    assert np.isfinite(leaf).all() and np.any(leaf != 0.0), path


@ALL
def test_bfloat16_has_float32_parameters_and_is_near_float32(name):
  run, params, inputs = _run(name)
  low, low_params, _ = _run(name, dtype="bfloat16")
  assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(low_params))
  (want, want_grads), (got, grads) = run(params, *inputs), low(params, *inputs)
  assert got.shape == want.shape and got.dtype == jnp.float32
  for path, leaf in _leaves(grads):
    assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all(), path
  # 8 bits of mantissa through some ten layers; and really in bfloat16
  assert 1e-4 < _norm(got - want) / _norm(want) < 0.1
  off = jax.tree.map(np.subtract, grads, want_grads)
  assert _norm(off) < 0.15 * _norm(want_grads)


def _equations(jaxpr):
  """All equations, those of scans and inner functions too."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from _equations(inner)


@ALL
def test_bfloat16_multiplies_in_it_between_first_and_last_layer(name):
  network, shape = CASES[name]
  network, inputs = network.clone(dtype="bfloat16"), _inputs(shape)
  params = jax.eval_shape(network.init, jax.random.key(0), *inputs)
  products = [
    equation.invars[0].aval.dtype
    for equation in _equations(
      jax.make_jaxpr(network.apply)(params, *inputs).jaxpr
    )
    if equation.primitive.name in ("dot_general", "conv_general_dilated")
  ]
  # in float32: two layers of the conditioning, the last one, its modulation
  assert products.count(jnp.float32) == (4 if "dit" in name else 3)
  assert products.count(jnp.bfloat16) == len(products) - products.count(
    jnp.float32
  )
  assert products.count(jnp.bfloat16) >= 4


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_recomputed_blocks_change_memory_and_nothing_else(name):
  run, params, inputs = _run(name)
  again, same, _ = _run(name, remat=True)
  assert jax.tree.all(jax.tree.map(np.array_equal, params, same))
  want, got = run(params, *inputs), again(params, *inputs)
  for (path, a), (_, b) in zip(_leaves(want), _leaves(got), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4, err_msg=str(path))
  if name == "dit":  # `test_a_scan_keeps_what_products_gave_and_no_more`
    return
  primitives = {
    equation.primitive.name
    for equation in _equations(
      jax.make_jaxpr(again.__wrapped__)(params, *inputs).jaxpr
    )
  }
  assert primitives & {"remat", "remat2", "checkpoint"}


@pytest.mark.parametrize("remat", [False, True])
def test_a_scan_keeps_what_products_gave_and_no_more(remat):
  """Widths a token and block: of its input, and of products unless it is rerun.

  qkv 3, the scores of 2 heads 16 tokens each: 1, attended 1, projected 1, MLP 4
  and 1; modulation 6 an example. Of all that a backward pass reads it is 41.
  """
  net = networks.DiT(width=32, depth=3, num_heads=2, patch=2, remat=remat)
  z, logsnr = jnp.zeros((4, 8, 8, 1)), jnp.zeros(4)
  params = jax.eval_shape(net.init, jax.random.key(0), z, logsnr)
  loss = lambda params: net.apply(params, z, logsnr).sum()
  kept = [
    math.prod(out.aval.shape[1:])
    for equation in jax.make_jaxpr(jax.grad(loss))(params).jaxpr.eqns
    if equation.primitive.name == "scan" and not equation.params["reverse"]
    for out in equation.outvars[1:]  # after the carry, a block's output
  ]
  assert sum(kept) / (4 * 16 * 32) == (1 if remat else 1 + 11 + 6 / 16)


def test_no_condition_is_the_class_num_classes():
  module = embeddings.Conditioning(8, num_classes=3)
  logsnr = jnp.array([-1.0, 2.0])
  params = module.init(jax.random.key(0), logsnr)
  none = module.apply(params, logsnr, None)
  np.testing.assert_array_equal(
    none, module.apply(params, logsnr, jnp.array([3, 3]))
  )
  other = module.apply(params, logsnr, jnp.array([3, 2]))
  assert np.all(none[0] == other[0]) and np.any(none[1] != other[1])


@pytest.mark.parametrize(
  "size,millions", [("s", 33), ("b", 130), ("l", 458), ("xl", 675)]
)
def test_dit_sizes_are_the_papers(size, millions):
  """arXiv:2212.09748 Table 4: parameters with patch 2, ImageNet latents."""
  net = networks.NETWORKS[f"dit_{size}"](patch=2, num_classes=1000)
  params = jax.eval_shape(
    net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 4)), jnp.zeros(1)
  )
  assert round(networks.count(params) / 1e6) == millions


def test_parameters_are_counted_and_tabulated():
  network, shape = CASES["unet"]
  params = _run("unet")[1]
  count = networks.count(params)
  assert count == sum(np.size(x) for x in jax.tree.leaves(params))
  table = networks.tabulate(network, shape[1:])
  assert "ResBlock_0" in table and f"{count:,}" in table


def test_attention_is_at_the_asked_sides_and_in_the_middle():
  def attentions(**settings):
    net = networks.UNet((8, 8, 8), 2, **settings)
    params = jax.eval_shape(
      net.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)), jnp.zeros(1)
    )
    return sum(name.startswith("Attention") for name in params["params"])

  assert attentions() == 1
  # after each of 2 blocks on the way down and 3 on the way up
  assert attentions(attention=(8,)) == 1 + 5
  assert attentions(attention=(8, 4)) == 1 + 10


def test_patches_are_squares_of_the_image_row_by_row():
  z = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
  cut = patches.to_patches(z, (2, 2))
  assert cut.shape == (2, 6, 12)
  np.testing.assert_array_equal(cut[1, 4], z[1, 2:4, 2:4].ravel())
  np.testing.assert_array_equal(patches.from_patches(cut, (2, 3), (2, 2)), z)


def test_rotated_queries_and_keys_see_relative_positions_only():
  q, k = jax.random.normal(jax.random.key(0), (2, 16))
  put = lambda x: patches.rotate(
    jnp.broadcast_to(x, (1, 35, 1, 16)), patches.angles((5, 7), 4)
  ).reshape(5, 7, 16)
  q, k = put(q), put(k)
  dot = lambda a, b: float(q[a] @ k[b])
  np.testing.assert_allclose(
    dot((0, 0), (2, 3)), dot((1, 2), (3, 5)), rtol=1e-4
  )
  assert abs(dot((0, 0), (2, 3)) - dot((0, 0), (3, 2))) > 1e-3
  assert abs(dot((0, 0), (2, 3)) - dot((2, 3), (0, 0))) > 1e-3
  np.testing.assert_allclose(
    jnp.sum(q**2, -1), jnp.sum(q[0, 0] ** 2), rtol=1e-5
  )


def test_fixed_positions_tell_all_tokens_apart_by_their_distance():
  p = patches.sincos((6, 7), 32)
  dots = np.asarray(p @ p.T).reshape(6, 7, 6, 7)
  np.testing.assert_allclose(dots[1, 2, 3, 5], dots[2, 1, 4, 4], rtol=1e-5)
  # p·p' = sum of cos(freq (a - a')) over both axes: largest at itself
  np.testing.assert_allclose(dots[0, 0, 0, 0], 16.0, rtol=1e-6)
  away = np.asarray(p @ p.T) - 100.0 * np.eye(42)
  assert away.max() < 15.9


def test_attention_is_the_softmax_formula():
  q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 5, 3, 4))
  weights = np.exp(np.einsum("bthd,bshd->bhts", q, k) / 2.0)
  weights /= weights.sum(-1, keepdims=True)
  want = np.einsum("bhts,bshd->bthd", weights, v)
  np.testing.assert_allclose(layers.attend(q, k, v), want, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
  "backend,capability,dtype,head_dim,lengths,flash",
  [
    ("gpu", "9.0", "bfloat16", 64, (16, 16), True),
    ("gpu", "8.0", "bfloat16", 128, (16, 4), True),
    ("gpu", "7.5", "bfloat16", 64, (16, 16), False),
    ("gpu", "gfx942", "bfloat16", 64, (16, 16), False),
    ("gpu", "9.0", "float32", 64, (16, 16), False),
    ("gpu", "9.0", "bfloat16", 36, (16, 16), False),
    ("gpu", "9.0", "bfloat16", 136, (16, 16), False),
    ("gpu", "9.0", "bfloat16", 64, (49, 49), False),
    ("gpu", "9.0", "bfloat16", 64, (16, 77), False),
    ("cpu", "9.0", "bfloat16", 64, (16, 16), False),
    ("tpu", "", "bfloat16", 64, (16, 16), False),
  ],
)
def test_flash_attention_is_used_where_cudnn_has_it(
  monkeypatch, backend, capability, dtype, head_dim, lengths, flash
):
  device = type("Device", (), {"compute_capability": capability})
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  monkeypatch.setattr(jax, "devices", lambda: [device])
  found = layers.has_flash_attention(jnp.dtype(dtype), head_dim, *lengths)
  assert found == flash
  asked = []
  monkeypatch.setattr(
    jax.nn,
    "dot_product_attention",
    lambda *_, implementation, **__: asked.append(implementation),
  )
  q, k = (jnp.zeros((1, n, 2, head_dim), dtype) for n in lengths)
  layers.attend(q, k, k)
  assert asked == ["cudnn" if flash else "xla"]


@pytest.mark.parametrize(
  "name,settings,message",
  [
    ("mlp", dict(width=0), "width must be an integer >= 1, not 0"),
    ("mlp", dict(dtype="float16"), "dtype must be one of float32, bfloat16"),
    ("unet", dict(channels=(12,)), "divisible by the 8 groups, not 12"),
    ("unet", dict(channels=()), "at least one resolution"),
    ("unet", dict(channels=(8.0,)), "channels must be an integer >= 1"),
    ("unet", dict(channels=(112,)), "divisible by the 3 heads, not 112"),
    ("unet", dict(num_blocks=0), "num_blocks must be an integer >= 1, not 0"),
    ("dit", dict(width=20, num_heads=3), "divisible by 4 x 3 heads, not 20"),
    ("dit", dict(positions="learned"), "one of sincos, rope, not 'learned'"),
    ("dit", dict(patch=0), "patch must be an integer >= 1, not 0"),
  ],
)
def test_settings_that_cannot_work_are_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    networks.NETWORKS[name](**settings)


@pytest.mark.parametrize(
  "network,message",
  [
    (
      networks.UNet((8, 8, 8)),
      "3 resolutions need sides divisible by 4, not 6 x 8",
    ),
    (
      networks.UNet((8, 8), attention=(4,)),
      r"attention must be at sides out of \[6, 3\], not 4",
    ),
    (networks.DiT(patch=4), "divisible by the patch of 4, not 6 x 8"),
    (networks.MLP(), r"MLP takes points \(batch, d\), not z of shape \(1, 6"),
  ],
)
def test_images_that_do_not_fit_are_refused(network, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      network.init, jax.random.key(0), jnp.zeros((1, 6, 8, 1)), jnp.zeros(1)
    )
