"""How fast a run is: examples/s, FLOP/s, share of the peak, waits."""

import math
import re

import jax
import jax.extend
import jax.numpy as jnp

from diffflow_jax.process import conditions

# dense bf16 FLOP/s of one chip with float32 sums, from the data sheets of their
# vendors, by the name that the driver gives
PEAK_FLOPS = {
  "NVIDIA A10": 125e12,
  "NVIDIA A10G": 70e12,
  "NVIDIA A30": 165e12,
  "NVIDIA A40": 149.7e12,
  "NVIDIA A100": 312e12,
  "NVIDIA L4": 121e12,
  "NVIDIA L40": 181e12,
  "NVIDIA L40S": 362e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H200": 989e12,
  "NVIDIA H200 NVL": 835e12,
  "NVIDIA GH200": 989e12,
  "NVIDIA B200": 2250e12,
  "NVIDIA GB200": 2500e12,
  "NVIDIA RTX A6000": 154.8e12,
  "NVIDIA RTX 6000 Ada Generation": 364.2e12,
  "NVIDIA GeForce RTX 3090": 71e12,
  "NVIDIA GeForce RTX 4090": 165.2e12,
  "NVIDIA GeForce RTX 5090": 209.5e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
}
OTHER_CHIPS = {"Ti", "D", "Laptop", "MIG"}  # of the same first words


def peak_of(device_kind):
  """(data sheet's name, peak) of a device by its first words, or None."""
  words = re.split(r"[ -]", device_kind)
  for count in range(len(words), 1, -1):
    name = " ".join(words[:count])
    if name in PEAK_FLOPS and not OTHER_CHIPS & set(words[count:]):
      return name, PEAK_FLOPS[name]
  return None


def peak_flops(device_kind):
  """The peak of a device by the start of its name, or None if unknown."""
  found = peak_of(device_kind)
  return found and found[1]


def model_flops(apply, params, dataset, batch_size):
  """FLOPs of the matrix products of a training step: three forward passes.

      3 batch Σ 2 (multiply-adds of a product, a convolution, an attention)

  Counted from the traced network, so that recomputation, accumulation, the mesh
  and the backend's own counting make no difference.
  """
  z = jax.ShapeDtypeStruct((1, *dataset.shape), jnp.float32)
  logsnr = jax.ShapeDtypeStruct((1,), jnp.float32)
  cond = jax.eval_shape(lambda: conditions.zeros(conditions.of(dataset), 1))
  traced = jax.make_jaxpr(apply)(params, z, logsnr, cond)
  return 3 * batch_size * _matmul_flops(traced.jaxpr)


def traced_flops(traced):
  """FLOPs of the matrix products of a traced program, all of them counted."""
  return _matmul_flops(traced.jaxpr.jaxpr)


def _matmul_flops(jaxpr):
  """2 for each multiply-add of products and convolutions, loops unrolled.

  Of several branches the longest counts.
  """
  total = 0
  for eqn in jaxpr.eqns:
    size = eqn.outvars[0].aval.size if eqn.outvars else 0
    if eqn.primitive.name == "dot_general":
      (contracted, _), _ = eqn.params["dimension_numbers"]
      shape = eqn.invars[0].aval.shape
      total += 2 * size * math.prod(shape[i] for i in contracted)
    elif eqn.primitive.name == "conv_general_dilated":
      kernel = eqn.invars[1].aval
      features = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
      total += 2 * size * kernel.size // features
    elif eqn.primitive.name.startswith("dot_product_attention_fwd"):  # cuDNN's
      q, k = (v.aval for v in eqn.invars[:2])  # (batch, tokens, heads, size)
      total += 2 * 2 * q.size * k.shape[1]
    times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
    inner = jax.extend.core.jaxprs_in_params(eqn.params)
    joined = max if eqn.primitive.name == "cond" else sum
    total += times * joined([0, *map(_matmul_flops, inner)])
  return total


class Meter:
  """Rates between one metrics line and the next.

  Args:
    batch_size: examples a step; flops_per_step: of all devices.
  """

  def __init__(self, batch_size, flops_per_step):
    self._batch_size = batch_size
    self._flops = flops_per_step
    self._waited = 0.0

  def line(self, steps_per_second, num_steps, waited):
    """Rates as a dict.

    Args:
      steps_per_second, num_steps: since the last line; waited: the total wait
        for input so far, in seconds.
    """
    wait, self._waited = waited - self._waited, waited
    values = {
      "examples_per_second": steps_per_second * self._batch_size,
      "input_wait": wait * steps_per_second / num_steps,
      "flops_per_second": self._flops * steps_per_second,
    }
    peak = peak_flops(jax.devices()[0].device_kind)
    if peak:
      total = peak * jax.device_count()
      values["fraction_of_peak"] = values["flops_per_second"] / total
    return values
