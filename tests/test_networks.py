"""Networks: shapes, zero at the start, what they are conditioned on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffflow_jax import networks

CASES = {
  "mlp": (networks.MLP(width=16, depth=1, num_classes=3), (4, 2)),
  "unet": (networks.UNet((8, 8), 1, num_classes=3), (4, 4, 4, 1)),
}
ALL = pytest.mark.parametrize("name", CASES)


@functools.cache
def _made(name, noise=0.0):
  """(jitted apply, params, z, logsnr, cond), compiled once for all tests."""
  network, shape = CASES[name]
  z = jax.random.normal(jax.random.key(1), shape)
  logsnr = jnp.array([-jnp.inf, -2.0, 5.0, jnp.inf])
  cond = jnp.array([0, 1, 2, 3])
  params = jax.jit(network.init)(jax.random.key(0), z, logsnr, cond)
  if noise:
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [
      x + noise * jax.random.normal(k, x.shape)
      for k, x in zip(keys, leaves, strict=True)
    ]
    params = jax.tree.unflatten(tree, leaves)
  return jax.jit(network.apply), params, z, logsnr, cond


@ALL
def test_output_has_the_inputs_shape_and_starts_at_zero(name):
  apply, params, *inputs = _made(name)
  out = apply(params, *inputs)
  assert out.shape == inputs[0].shape and out.dtype == jnp.float32
  assert np.all(out == 0.0)


@ALL
def test_level_class_and_exact_ends_matter_and_are_finite(name):
  apply, params, z, logsnr, cond = _made(name, noise=0.1)
  out = apply(params, z, logsnr, cond)
  assert np.isfinite(out).all()
  assert not np.allclose(out, apply(params, z, logsnr[::-1], cond))
  assert not np.allclose(out, apply(params, z, logsnr, cond[::-1]))
  # no condition is the class num_classes
  np.testing.assert_allclose(
    apply(params, z, logsnr, None),
    apply(params, z, logsnr, jnp.full(4, 3)),
    rtol=1e-5,
    atol=1e-5,
  )


@ALL
def test_examples_do_not_see_each_other(name):
  apply, params, z, logsnr, cond = _made(name, noise=0.1)
  out = apply(params, z, logsnr, cond)
  other = apply(params, z.at[1:].set(0.0), logsnr, cond)
  np.testing.assert_allclose(out[0], other[0], rtol=1e-4, atol=1e-5)


@ALL
def test_gradients_are_finite_everywhere(name):
  apply, params, *inputs = _made(name, noise=0.1)
  grads = jax.jit(jax.grad(lambda p: (apply(p, *inputs) ** 2).sum()))(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(leaf).all(), path
