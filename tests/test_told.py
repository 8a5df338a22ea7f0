"""Conditions of every kind in the networks: each said, not said, and masked."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import networks
from diffflow_jax.networks import blocks, layers, told
from diffflow_jax.process import conditions
from diffflow_jax.process.conditions import Condition, Given

BATCH = 3
POINTS = {
  "label": Condition("label", num_classes=3),
  "kind": Condition("label", num_classes=2),
  "law": Condition("vector", (5,)),
  "turn": Condition("vector", (2,), null="zero"),
  "text": Condition("sequence", (4, 6)),
  "tags": Condition("sequence", (3, 2), null="zero"),
}
ALL = POINTS | {
  "low": Condition("image", (2, 4, 1)),
  "edges": Condition("image", (4, 8, 2), null="zero"),
}
unet = functools.partial(networks.UNet, (8,), 1, head_dim=4, num_groups=4)
dit = functools.partial(networks.DiT, 16, 2, 2)
NETWORKS = {
  "mlp": (networks.MLP(16, 1, conditions=POINTS), (BATCH, 2)),
  "unet": (unet(attention=(4,), conditions=ALL), (BATCH, 4, 8, 1)),
  "dit": (dit(conditions=ALL), (BATCH, 4, 8, 1)),
  "joint": (
    dit(conditions=ALL, sequences="joint", positions="rope"),
    (BATCH, 4, 8, 1),
  ),
}
EACH = pytest.mark.parametrize("name", NETWORKS)


def _entry(condition, seed=0):
  """Something said in all three examples."""
  rng = np.random.default_rng(seed)
  if condition.kind == "label":
    return (np.arange(BATCH, dtype=np.int32) + seed) % condition.num_classes
  value = rng.normal(size=(BATCH, *condition.shape)).astype(np.float32)
  mask = np.ones((BATCH, *conditions.mask_shape(condition)), bool)
  return Given(value, mask)


@functools.cache
def _run(name):
  """(run, network, cond): run(cond) gives (output, gradient of its square)."""
  network, shape = NETWORKS[name]
  specs = dict(network.conditions)
  rng = np.random.default_rng(0)
  z = rng.normal(size=shape).astype(np.float32)
  logsnr = jnp.array([-jnp.inf, 2.0, jnp.inf])
  params = jax.tree.map(
    lambda leaf: rng.normal(0.0, 0.2, leaf.shape).astype(leaf.dtype),
    jax.eval_shape(
      network.init, jax.random.key(0), z, logsnr, conditions.zeros(specs, BATCH)
    ),
  )

  def run(cond):
    def loss(params):
      out = network.apply(params, z, logsnr, cond)
      return (out**2).mean(), out

    grads, out = jax.grad(loss, has_aux=True)(params)
    return out, grads

  quick = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
  }
  cond = {n: _entry(one) for n, one in specs.items()}
  return jax.jit(run, compiler_options=quick), network, cond


def _differ(a, b, example=slice(None)):
  return np.abs(a[example] - b[example]).max() > 1e-4 * np.abs(a).max()


@EACH
def test_every_condition_changes_its_own_examples_and_no_other(name):
  run, network, cond = _run(name)
  out, _ = run(cond)
  for key, one in network.conditions.items():
    other, entry = _entry(one, seed=1), cond[key]
    first = lambda a, b: np.concatenate([b[:1], a[1:]])
    got, _ = run(cond | {key: jax.tree.map(first, entry, other)})
    assert _differ(out, got, 0), key
    np.testing.assert_allclose(got[1:], out[1:], rtol=1e-4, atol=1e-4)


@EACH
def test_what_is_not_said_is_the_null_whatever_its_value(name):
  run, network, cond = _run(name)
  out, _ = run(cond)
  dropped = np.array([True, False, False])
  for key, one in network.conditions.items():
    null, _ = run(cond | {key: conditions.drop(one, cond[key], dropped)})
    assert np.isfinite(null).all() and _differ(out, null, 0), key
    np.testing.assert_allclose(null[1:], out[1:], rtol=1e-4, atol=1e-4)
    if one.kind != "label":
      value = np.where(dropped.reshape(-1, *(1,) * len(one.shape)), np.nan, 1.0)
      lost = Given(cond[key].value * value.astype(np.float32), cond[key].mask)
      got, _ = run(cond | {key: conditions.drop(one, lost, dropped)})
      np.testing.assert_array_equal(got, null)


@EACH
def test_a_masked_token_has_no_influence_and_order_has_none(name):
  run, network, cond = _run(name)
  mask = np.array([[True, False, True, True]] * BATCH)
  text = Given(cond["text"].value, mask)
  out, grads = run(cond | {"text": text})
  lost = np.where(mask[..., None], text.value, np.float32(np.nan))
  got, got_grads = run(cond | {"text": Given(lost, mask)})
  np.testing.assert_array_equal(got, out)
  assert jax.tree.all(jax.tree.map(np.array_equal, got_grads, grads))
  order = np.array([3, 1, 0, 2])
  got, _ = run(cond | {"text": jax.tree.map(lambda a: a[:, order], text)})
  np.testing.assert_allclose(got, out, rtol=1e-4, atol=1e-4)
  assert _differ(out, run(cond)[0])


def test_padding_a_sequence_changes_nothing():
  _, network, cond = _run("mlp")
  z, logsnr = jnp.ones((BATCH, 2)), jnp.zeros(BATCH)
  params = network.init(jax.random.key(0), z, logsnr, cond)
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)
  whole = cond["text"]
  padded = Given(whole.value, whole.mask & (np.arange(4) < 3))
  short = jax.tree.map(lambda a: a[:, :3], whole)
  out = network.apply(params, z, logsnr, cond | {"text": padded})
  got = network.apply(params, z, logsnr, cond | {"text": short})
  np.testing.assert_allclose(got, out, rtol=1e-5)
  assert _differ(out, network.apply(params, z, logsnr, cond))


@EACH
def test_every_parameter_gets_a_finite_gradient_nulls_too(name):
  run, network, cond = _run(name)
  dropped = np.array([True, True, False])
  some = {
    key: conditions.drop(one, cond[key], np.roll(dropped, i))
    for i, (key, one) in enumerate(network.conditions.items())
  }
  for path, leaf in jax.tree_util.tree_leaves_with_path(run(some)[1]):
    assert np.isfinite(leaf).all() and np.any(leaf != 0.0), path


@EACH
def test_in_bfloat16_recomputed_and_dropped_the_output_is_float32(name):
  network, shape = NETWORKS[name]
  changes = {} if name == "mlp" else dict(remat=True, dropout=0.1)
  network = network.clone(dtype="bfloat16", **changes)
  z, logsnr = jnp.zeros(shape), jnp.zeros(BATCH)
  cond = conditions.zeros(network.conditions, BATCH)
  params = jax.eval_shape(network.init, jax.random.key(0), z, logsnr, cond)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
  apply = functools.partial(network.apply, rngs={"dropout": jax.random.key(1)})
  out = jax.eval_shape(apply, params, z, logsnr, cond)
  assert out.shape == shape and out.dtype == jnp.float32


def test_what_cond_does_not_name_is_not_said():
  z = jnp.ones((2, 4, 8, 1))
  specs = told.named(ALL)
  whole = told.read(specs, None, z)
  assert list(whole) == sorted(ALL)
  for name, one in ALL.items():
    empty = conditions.zeros({name: one, "law": ALL["law"]}, 2)[name]
    empty = conditions.drop(one, empty, np.array([True, True]))
    given = told.read(specs, {name: empty}, z)
    jax.tree.map(np.testing.assert_array_equal, given, whole)
    null = told.read(specs, {name: conditions.null(one)}, z)
    jax.tree.map(np.testing.assert_array_equal, null, whole)
  bare = told.read(specs, {"text": jnp.ones((2, 9, 6))}, z)["text"]
  assert bare.mask.shape == (2, 9) and bare.mask.all()


def test_attention_to_a_context_is_the_softmax_over_what_was_said():
  rng = np.random.default_rng(0)
  h, context = rng.normal(size=(3, 5, 8)), rng.normal(size=(3, 4, 6))
  h, context = h.astype(np.float32), context.astype(np.float32)
  mask = np.array([[1, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
  module = layers.CrossAttention(2)
  shapes = jax.eval_shape(module.init, jax.random.key(0), h, context, mask)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )
  p = params["params"]
  heads = lambda a: a.reshape(*a.shape[:2], 2, 4)
  q = heads(h @ p["query"]["kernel"] + p["query"]["bias"])
  k = heads(context @ p["key"]["kernel"])
  v = heads(context @ p["value"]["kernel"] + p["value"]["bias"])
  want = np.zeros((3, 5, 2, 4))
  for i in range(2):
    said = mask[i]
    w = np.exp(np.einsum("thd,shd->hts", q[i], k[i][said]) / 2.0)
    w /= w.sum(-1, keepdims=True)
    want[i] = np.einsum("hts,shd->thd", w, v[i][said])
  want = want.reshape(3, 5, 8) @ p["out"]["kernel"]
  got = module.apply(params, h, context, mask)
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
  assert np.all(got[2] == 0.0)


def test_jointly_each_stream_attends_to_both_with_its_own_weights():
  """The block's formula, written out, at zero modulation but for the gates."""
  rng = np.random.default_rng(0)
  h, context = rng.normal(size=(2, 5, 8)), rng.normal(size=(2, 3, 8))
  mask = np.array([[1, 0, 1], [0, 0, 0]], bool)
  emb = rng.normal(size=(2, 8))
  h, context, emb = (a.astype(np.float32) for a in (h, context, emb))
  module = blocks.JointBlock(2)
  shapes = jax.eval_shape(
    module.init, jax.random.key(0), (h, context), emb, None, mask
  )
  params = jax.tree.map(
    lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes
  )
  p = params["params"]
  dense = lambda name, a: a @ p[name]["kernel"] + p[name].get("bias", 0.0)

  def norm(a):
    a = a - a.mean(-1, keepdims=True)
    return a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6)

  def stream(a, prefix):
    six = np.split(dense(f"{prefix}Dense_0", emb)[:, None], 6, -1)
    qkv = dense(f"{prefix}Dense_1", norm(a) * (1 + six[1]) + six[0])
    return six, qkv.reshape(*a.shape[:2], 3, 2, 4)

  def rest(a, y, six, prefix):
    a = a + six[2] * dense(f"{prefix}Dense_2", y)
    y = dense(f"{prefix}Dense_3", norm(a) * (1 + six[4]) + six[3])
    y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
    return a + six[5] * dense(f"{prefix}Dense_4", y)

  (six, qkv), (six_c, qkv_c) = stream(h, ""), stream(context, "context_")
  qkv = np.concatenate([qkv, qkv_c], 1)
  logits = np.einsum("bthd,bshd->bhts", qkv[:, :, 0], qkv[:, :, 1]) / 2.0
  seen = np.concatenate([np.ones((2, 5), bool), mask], 1)[:, None, None]
  w = np.where(seen, np.exp(logits), 0.0)
  w /= w.sum(-1, keepdims=True)
  y = np.einsum("bhts,bshd->bthd", w, qkv[:, :, 2]).reshape(2, 8, 8)
  want = rest(h, y[:, :5], six, ""), rest(context, y[:, 5:], six_c, "context_")
  got, _ = module.apply(params, (h, context), emb, None, mask)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_images_on_a_coarser_grid_are_interpolated_linearly():
  value = np.random.default_rng(0).normal(size=(1, 4, 3, 1)).astype(np.float32)
  specs = {"low": Condition("image", (4, 3, 1), null="zero")}
  given = {"low": Given(jnp.asarray(value), jnp.array([True]))}
  z = jnp.full((1, 8, 9, 2), 7.0)
  out = told.Images(specs).apply({}, z, given)
  along = lambda n, k: (np.arange(n * k) + 0.5) / k - 0.5
  rows = np.stack(
    [np.interp(along(3, 3), np.arange(3), row) for row in value[0, ..., 0]]
  )
  want = np.stack(
    [np.interp(along(4, 2), np.arange(4), col) for col in rows.T], axis=1
  )
  np.testing.assert_allclose(out[0, ..., 2], want, rtol=1e-5, atol=1e-5)
  assert np.all(out[..., :2] == 7.0) and np.all(out[..., 3] == 1.0)


LABEL = {"label": Condition("label", num_classes=3)}
BARE = {
  "mlp": (
    networks.MLP(16, 1),
    (2, 2),
    "Conditioning_0 Dense_0 Dense_1 Dense_2 Dense_3 Dense_4 LayerNorm_0",
  ),
  "unet": (
    unet(),
    (2, 4, 8, 1),
    "Attention_0 Conditioning_0 Conv_0 Conv_1 GroupNorm_0 "
    + " ".join(f"ResBlock_{i}" for i in range(5)),
  ),
  "dit": (
    dit(),
    (2, 4, 8, 1),
    "Conditioning_0 Dense_0 Dense_1 Dense_2 blocks",
  ),
}


@pytest.mark.parametrize("name", BARE)
def test_labels_alone_make_no_new_parameter(name):
  """Names as in checkpoints from before there were other conditions."""
  network, shape, names = BARE[name]

  def params(cond, **settings):
    net = network.clone(**settings)
    return jax.eval_shape(
      net.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(2), cond
    )["params"]

  labels = params(jnp.zeros(2, jnp.int32), num_classes=3)
  assert sorted(labels) == names.split()
  assert sorted(labels["Conditioning_0"]) == ["Dense_0", "Dense_1", "Embed_0"]
  assert params(jnp.zeros(2, jnp.int32), conditions=LABEL) == labels
  assert params(None, conditions={}) == params(None)
  if name == "dit":
    assert sorted(labels["blocks"]) == [f"Dense_{i}" for i in range(5)]
  if name == "unet":
    assert sorted(labels["Attention_0"]) == [
      "Dense_0",
      "Dense_1",
      "GroupNorm_0",
    ]


def test_the_order_of_conditions_does_not_matter():
  network = NETWORKS["unet"][0]
  turned = network.clone(conditions=dict(reversed(ALL.items())))
  z, cond = jnp.zeros((2, 4, 8, 1)), conditions.zeros(ALL, 2)
  make = lambda net: jax.make_jaxpr(net.init)(
    jax.random.key(0), z, jnp.zeros(2), cond
  )
  assert str(make(network)) == str(make(turned))


def test_layers_are_tabulated_with_conditions():
  table = networks.tabulate(NETWORKS["joint"][0], (4, 8, 1))
  assert "Sequences_0" in table and "JointBlock" in table


@pytest.mark.parametrize(
  "make,settings,message",
  [
    (dit, dict(conditions=3), "must be a dict of name: Condition, not 3"),
    (
      dit,
      dict(conditions={"a": "vector"}),
      "must be a dict of name: Condition",
    ),
    (
      unet,
      dict(conditions=LABEL, num_classes=4),
      "is 4, but the label .* has 3",
    ),
    (
      unet,
      dict(conditions={"a": ALL["law"]}, num_classes=4),
      "is 4, but the label of conditions has 0",
    ),
    (
      networks.MLP,
      dict(conditions=ALL),
      "label, vector, sequence, but low is of the kind image",
    ),
    (dit, dict(sequences="both"), "one of cross, joint, not 'both'"),
    (dit, dict(sequences="joint"), "needs a condition that is a sequence"),
    (dit, dict(dropout=1.0), r"dropout must be in \[0, 1\), not 1.0"),
    (unet, dict(dropout=-0.1), r"dropout must be in \[0, 1\), not -0.1"),
  ],
)
def test_settings_that_cannot_be_meant_are_refused(make, settings, message):
  with pytest.raises(ValueError, match=message):
    make(**settings)


@pytest.mark.parametrize(
  "specs,cond,message",
  [
    (ALL, {"txt": 1}, "cond has 'txt', but .* told edges, kind, label, law"),
    (ALL, jnp.zeros(2, jnp.int32), "must be a dict with entries out of edges"),
    (LABEL, {"label": 1}, "cond is a dict, but .* without conditions"),
    (
      ALL,
      {"law": jnp.zeros((2, 4))},
      r"law must have .* \(2, 5\), not \(2, 4\)",
    ),
    (
      ALL,
      {"law": jnp.zeros((1, 5))},
      r"law must have .* \(2, 5\), not \(1, 5\)",
    ),
    (ALL, {"text": jnp.zeros((2, 6))}, r"text must have .* \(2, 4, 6\)"),
    (
      ALL,
      {"text": Given(jnp.zeros((2, 4, 6)), jnp.ones((2, 3), bool))},
      r"text's mask must have the shape \(2, 4\), not \(2, 3\)",
    ),
    (ALL, {"label": jnp.array([0, 4])}, "labels must be 0 to 2, or 3 for none"),
    (ALL, {"low": jnp.zeros((2, 3, 4, 1))}, "divides z's 4 x 8, not on 3 x 4"),
    (ALL, {"low": jnp.zeros((2, 2, 4, 3))}, r"low must have .* \(2, 2, 4, 1\)"),
  ],
)
def test_what_a_network_cannot_be_told_is_refused(specs, cond, message):
  z = jnp.zeros((2, 4, 8, 1))
  with pytest.raises(ValueError, match=message):
    entries = told.read(told.named(specs), cond, z)
    told.Images(told.named(specs)).init(jax.random.key(0), z, entries)
