"""Networks over any number of axes, and dropout in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import networks
from diffflow_jax.networks import patches, unet

# these programs run for milliseconds: compile them quickly, not well
jit = functools.partial(
  jax.jit,
  compiler_options={
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
  },
)
UNet = functools.partial(networks.UNet, head_dim=4, num_groups=4)
SHAPES = {
  "series": (2, 8, 3),
  "image": (2, 4, 8, 2),
  "volume": (2, 4, 2, 6, 1),
  "four": (2, 2, 2, 4, 2, 1),
}


def _filled(network, z, seed=0):
  """Parameters that are nowhere zero."""
  rng = np.random.default_rng(seed)
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), z, jnp.zeros(z.shape[0])
  )
  return jax.tree.map(
    lambda leaf: rng.normal(0.0, 0.3, leaf.shape).astype(leaf.dtype), shapes
  )


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
  "make",
  [
    networks.DiT,
    functools.partial(networks.DiT, positions="rope"),
    lambda *_: UNet((4, 8), 1),
  ],
  ids=["sincos", "rope", "unet"],
)
def test_any_number_of_sides_has_an_output_like_z(make, name):
  network = make(16, 1, 2)
  z = jax.ShapeDtypeStruct(SHAPES[name], jnp.float32)
  params = jax.eval_shape(network.init, jax.random.key(0), z, jnp.zeros(2))
  out = jax.eval_shape(network.apply, params, z, jnp.zeros(2))
  assert out.shape == z.shape and out.dtype == jnp.float32


def test_an_image_of_one_column_is_a_series():
  """3x3 kernels see zeros beside a column: their middles are 1-D kernels."""
  settings = dict(channels=(4, 8), num_blocks=1, attention=(4,))
  series, image = UNet(**settings), UNet(**settings, stride=(2, 1))
  z = np.random.default_rng(1).normal(size=(2, 8, 2)).astype(np.float32)
  logsnr = jnp.array([-jnp.inf, 1.0])
  wide = _filled(image, z[:, :, None])
  middle = lambda leaf: leaf[:, 1] if leaf.ndim == 4 else leaf
  want = jit(image.apply)(wide, z[:, :, None], logsnr)
  got = jit(series.apply)(jax.tree.map(middle, wide), z, logsnr)
  assert np.abs(got).max() > 0.1
  np.testing.assert_allclose(got, want[:, :, 0], rtol=1e-4, atol=1e-4)


def test_a_video_whose_time_is_kept_is_images_where_kernels_see_one_frame():
  """Kernels that are zero off the middle frame act on each frame alone."""
  settings = dict(channels=(4, 8), num_blocks=1)
  video, image = UNet(**settings, stride=(1, 2, 2)), UNet(**settings)
  z = np.random.default_rng(1).normal(size=(1, 3, 4, 4, 1)).astype(np.float32)
  params = _filled(image, z[:, 0])
  # group norms and attention mix frames, so all frames are the same one
  z[:] = z[:, :1]

  def deep(leaf):
    if leaf.ndim != 4:
      return leaf
    return np.stack([np.zeros_like(leaf), leaf, np.zeros_like(leaf)])

  want = jit(image.apply)(params, z[:, 0], jnp.array([0.5]))
  got = jit(video.apply)(jax.tree.map(deep, params), z, jnp.array([0.5]))
  assert np.abs(want).max() > 0.1
  for frame in range(3):
    np.testing.assert_allclose(got[:, frame], want, rtol=1e-3, atol=1e-4)


def test_a_transformer_on_a_series_is_its_formula():
  """One block on four patches of a series, written out in NumPy."""
  network = networks.DiT(16, 1, 2, patch=2)
  rng = np.random.default_rng(1)
  z = rng.normal(size=(1, 8, 3)).astype(np.float32)
  logsnr = np.array([1.5], np.float32)
  params = _filled(network, z)
  got = network.apply(params, z, logsnr)
  p = params["params"]
  b = jax.tree.map(lambda a: a[0], p["blocks"])
  dense = lambda at, name, a: a @ at[name]["kernel"] + at[name].get("bias", 0.0)
  silu = lambda a: a / (1.0 + np.exp(-a))

  def norm(a):
    a = a - a.mean(-1, keepdims=True)
    return a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6)

  angle = logsnr[:, None] * 2 * np.pi / 80 * 40 ** (np.arange(128) / 128)
  features = np.concatenate([np.cos(angle), np.sin(angle)], -1)
  c = p["Conditioning_0"]
  emb = silu(dense(c, "Dense_1", silu(dense(c, "Dense_0", features))))
  h = dense(p, "Dense_0", z.reshape(1, 4, 6))
  at = np.arange(4)[:, None] * 10000.0 ** (-np.arange(8) / 8)
  h = h + np.concatenate([np.sin(at), np.cos(at)], -1)
  six = np.split(dense(b, "Dense_0", emb)[:, None], 6, -1)
  qkv = dense(b, "Dense_1", norm(h) * (1 + six[1]) + six[0])
  q, k, v = np.moveaxis(qkv.reshape(1, 4, 3, 2, 8), 2, 0)
  w = np.exp(np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(8))
  w /= w.sum(-1, keepdims=True)
  y = np.einsum("bhts,bshd->bthd", w, v).reshape(1, 4, 16)
  h = h + six[2] * dense(b, "Dense_2", y)
  y = dense(b, "Dense_3", norm(h) * (1 + six[4]) + six[3])
  y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
  h = h + six[5] * dense(b, "Dense_4", y)
  two = np.split(dense(p, "Dense_1", emb)[:, None], 2, -1)
  want = dense(p, "Dense_2", norm(h) * (1 + two[1]) + two[0]).reshape(1, 8, 3)
  np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)


def test_patches_of_three_axes_are_boxes_in_order():
  z = np.random.default_rng(0).normal(size=(2, 4, 6, 4, 3))
  cut = patches.to_patches(z, (2, 3, 1))
  assert cut.shape == (2, 2 * 2 * 4, 2 * 3 * 1 * 3)
  # the patch at (1, 0, 2) of a grid of 2 x 2 x 4
  np.testing.assert_array_equal(cut[1, 10], z[1, 2:4, 0:3, 2:3].ravel())
  np.testing.assert_array_equal(
    patches.from_patches(cut, (2, 2, 4), (2, 3, 1)), z
  )


@pytest.mark.parametrize("grid", [(9,), (3, 5), (2, 3, 4)])
def test_positions_are_sums_of_cosines_of_the_distance_along_each_axis(grid):
  width = 32  # three axes share it in fives, and leave two channels at zero
  freqs = 10000.0 ** (-np.arange(w := width // (2 * len(grid))) / w)
  at = np.indices(grid).reshape(len(grid), -1).T
  apart = (at[:, None] - at[None])[..., None] * freqs
  p = np.asarray(patches.sincos(grid, width))
  assert p.shape == (len(at), width)
  np.testing.assert_allclose(p @ p.T, np.cos(apart).sum((2, 3)), atol=2e-5)

  q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, width))
  put = lambda a: patches.rotate(
    jnp.broadcast_to(a, (1, len(at), 1, width)), patches.angles(grid, w)
  )[0, :, 0]
  dots = np.asarray(put(q) @ put(k).T)
  ways = {}
  for i, j in np.ndindex(dots.shape):
    ways.setdefault(tuple(at[i] - at[j]), []).append(dots[i, j])
  spread = [np.ptp(same) for same in ways.values()]
  assert max(spread) < 1e-4 and np.std([w[0] for w in ways.values()]) > 0.1


def test_a_short_time_axis_is_kept_and_attention_is_at_heights():
  def names(**settings):
    net = UNet((4, 4, 4), 2, **settings)
    params = jax.eval_shape(
      net.init, jax.random.key(0), jnp.zeros((1, 3, 16, 8, 1)), jnp.zeros(1)
    )
    return sum(name.startswith("Attention") for name in params["params"])

  assert names(stride=(1, 2, 2)) == 1
  assert names(stride=(1, 2, 2), attention=(8,)) == 1 + 5
  with pytest.raises(ValueError, match=r"sides out of \[16, 8, 4\], not 3"):
    names(stride=(1, 2, 2), attention=(3,))


@pytest.mark.parametrize(
  "network,shape,message",
  [
    (UNet((4, 8)), (1, 3, 4, 4, 1), "sides divisible by 2, not 3 x 4 x 4"),
    (UNet((4, 8)), (1, 4), "UNet takes z of shape .* not \\(1, 4\\)"),
    (networks.DiT(), (1, 4), "DiT takes z of shape .* not \\(1, 4\\)"),
    (
      UNet((4, 8), stride=(1, 2)),
      (1, 8, 1),
      r"stride must be an integer or one for each of 1 axes, not \(1, 2\)",
    ),
    (
      networks.DiT(patch=(1, 2, 2)),
      (1, 8, 8, 1),
      r"patch must be an integer or one for each of 2 axes, not \(1, 2, 2\)",
    ),
    (
      networks.DiT(patch=(1, 2, 2)),
      (1, 3, 5, 8, 1),
      "divisible by the patch of 1 x 2 x 2, not 3 x 5 x 8",
    ),
    (
      networks.DiT(16, 1, 4, positions="rope"),
      (1, 2, 2, 2, 1),
      "positions='rope' on 3 axes need at least 6 channels a head, and width "
      "is 16 in 4 heads",
    ),
  ],
)
def test_data_that_do_not_fit_are_refused(network, shape, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      network.init, jax.random.key(0), jnp.zeros(shape), jnp.zeros(1)
    )


@pytest.mark.parametrize(
  "make,settings,message",
  [
    (UNet, dict(stride=3), "stride must be 1 or 2 for each axis, not 3"),
    (UNet, dict(stride=(1, 0)), "stride must be 1 or 2 for each axis, not 0"),
    (networks.DiT, dict(patch=(2, 0)), "patch must be an integer >= 1, not 0"),
  ],
)
def test_settings_of_axes_that_cannot_work_are_refused(make, settings, message):
  with pytest.raises(ValueError, match=message):
    make(**settings)


NETS = {
  "unet": (UNet((4, 8), 1), (2, 8, 2)),
  "dit": (networks.DiT(16, 2, 2, patch=1), (2, 8, 2)),
}


@pytest.mark.parametrize("name", NETS)
def test_dropout_is_there_iff_a_key_is_given_and_is_the_keys(name):
  network, shape = NETS[name]
  z = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  params, logsnr = _filled(network, z), jnp.zeros(2)
  wet = network.clone(dropout=0.3)
  assert jax.tree.structure(_filled(wet, z)) == jax.tree.structure(params)

  def traced(network, **rngs):
    call = functools.partial(network.apply, rngs=rngs or None)
    return str(jax.make_jaxpr(call)(params, z, logsnr))

  key = jax.random.key(1)
  plain = traced(network)
  assert traced(wet) == traced(wet, noise=key) == plain
  assert "random_bits" in traced(wet, dropout=key)
  assert "random_bits" not in plain + traced(network, dropout=key)

  @functools.partial(jit, static_argnums=0)
  def run(network, key):
    return network.apply(params, z, logsnr, rngs={"dropout": key})

  one, two = (run(wet, jax.random.key(i)) for i in range(2))
  assert np.abs(one - two).max() > 0.01
  again = run(wet.clone(remat=True), jax.random.key(0))
  np.testing.assert_allclose(again, one, rtol=1e-3, atol=1e-4)


def test_dropout_keeps_the_mean_of_what_a_block_adds():
  block, num = unet.ResBlock(4, 4, dropout=0.3), 4000
  rng = np.random.default_rng(0)
  h, emb = rng.normal(size=(1, 6, 4)), rng.normal(size=(1, 4))
  h, emb = h.astype(np.float32), emb.astype(np.float32)
  params = jax.tree.map(
    lambda leaf: rng.normal(0.0, 0.3, leaf.shape).astype(leaf.dtype),
    jax.eval_shape(block.init, jax.random.key(0), h, emb),
  )
  call = lambda key: block.apply(params, h, emb, rngs={"dropout": key})
  outs = jit(jax.vmap(call))(jax.random.split(jax.random.key(1), num))
  want = block.apply(params, h, emb)
  error = np.std(outs, axis=0) / np.sqrt(num)
  assert error.min() > 0.0
  assert np.all(np.abs(np.mean(outs, axis=0) - want) < 4.5 * error)


def test_each_layer_of_the_scan_drops_its_own():
  """Blocks that add 1 each, before dropout: both, one or neither is left."""
  network = networks.DiT(64, 2, 2, patch=1, positions="rope", dropout=0.5)
  z = jnp.zeros((1, 4, 64))
  params = jax.tree.map(jnp.zeros_like, _filled(network, z))
  p = params["params"]
  # the gate of the MLP, whose output is its bias
  six = p["blocks"]["Dense_0"]["bias"]
  p["blocks"]["Dense_0"]["bias"] = six.at[:, 5 * 64 :].set(1.0)
  p["blocks"]["Dense_4"]["bias"] += 1.0
  p["Dense_2"]["kernel"] = jnp.eye(64)
  out = network.apply(
    params, z, jnp.zeros(1), rngs={"dropout": jax.random.key(0)}
  )
  values, counts = np.unique(np.round(out[0, 0], 4), return_counts=True)
  # 0, 2 and 4 before the last LayerNorm, with shares 1/4, 1/2, 1/4
  assert len(values) == 3
  np.testing.assert_allclose(np.diff(values)[0], np.diff(values)[1], rtol=1e-3)
  assert np.all(np.abs(counts - [16, 32, 16]) < 4 * np.array([3.5, 4.0, 3.5]))
