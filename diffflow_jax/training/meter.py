"""How fast a run is: examples/s, FLOP/s, share of the peak, waits."""

import time

import jax

# dense bf16 FLOP/s of one chip, from the vendors' data sheets
PEAK_FLOPS = {
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
}


def peak_flops(device_kind):
  """The peak of a device by the start of its name, or None if unknown."""
  for name, peak in PEAK_FLOPS.items():
    if device_kind.startswith(name):
      return peak
  return None


def program_flops(jitted, *args):
  """FLOPs of one call on one device, as the compiler counts; None if not.

  A scan's body is counted once, whatever its length.
  """
  costs = jitted.lower(*args).cost_analysis() or {}
  costs = costs[0] if isinstance(costs, list) else costs
  return costs.get("flops")


class Meter:
  """Rates between one metrics line and the next.

  Args:
    batch_size: examples a step; flops_per_step: of all devices, or None.
  """

  def __init__(self, batch_size, flops_per_step=None):
    self._batch_size = batch_size
    self._flops = flops_per_step
    self._waited = 0.0
    self._time = time.monotonic()

  def line(self, steps_per_second, waited):
    """Rates as a dict; `waited` is the total wait for input so far."""
    now = time.monotonic()
    elapsed, self._time = now - self._time, now
    wait, self._waited = waited - self._waited, waited
    values = {
      "examples_per_second": steps_per_second * self._batch_size,
      "input_wait": wait / max(elapsed, 1e-9),
    }
    if self._flops:
      values["flops_per_second"] = self._flops * steps_per_second
      peak = peak_flops(jax.devices()[0].device_kind)
      if peak:
        total = peak * jax.device_count()
        values["fraction_of_peak"] = values["flops_per_second"] / total
    return values
