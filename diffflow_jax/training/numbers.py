"""The numbers of a metrics line: sums of the steps, and the held-out loss.

The sums are part of the state, so that none is lost.
"""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax.evaluation import eps_mse_by_logsnr
from diffflow_jax.objective.objectives import predictor
from diffflow_jax.process import conditions

# edges of the log-SNR bins that the loss is reported in
BIN_EDGES = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)


@struct.dataclass
class Sums:
  """Running sums since the last metrics line."""

  steps: jax.Array
  loss: jax.Array
  grad_norm: jax.Array
  bin_count: jax.Array  # (len(BIN_EDGES) + 1,)
  bin_eps_mse: jax.Array


def no_sums():
  """Sums of nothing."""
  # an array each: donating one buffer twice is an error
  zero, bins = (lambda: jnp.zeros(())), (lambda: jnp.zeros(len(BIN_EDGES) + 1))
  return Sums(zero(), zero(), zero(), bins(), bins())


def add(sums, loss, grad_norm, terms):
  """The sums with one more step."""
  index = jnp.searchsorted(jnp.array(BIN_EDGES), terms.logsnr)
  inside = jax.nn.one_hot(index, len(BIN_EDGES) + 1)
  return Sums(
    steps=sums.steps + 1.0,
    loss=sums.loss + loss,
    grad_norm=sums.grad_norm + grad_norm,
    bin_count=sums.bin_count + inside.sum(0),
    bin_eps_mse=sums.bin_eps_mse + terms.eps_mse @ inside,
  )


def summarise(sums):
  """Sums as the numbers of one metrics line (on the host)."""
  sums = jax.tree.map(np.asarray, sums)
  line = {
    "loss": float(sums.loss / sums.steps),
    "grad_norm": float(sums.grad_norm / sums.steps),
  }
  edges = ["-inf", *(f"{e:g}" for e in BIN_EDGES), "inf"]
  for i, count in enumerate(sums.bin_count):
    if count:
      name = f"eps_mse/logsnr_{edges[i]}_{edges[i + 1]}"
      line[name] = float(sums.bin_eps_mse[i] / count)
  return line


def held_out(run, params):
  """({name: float}, mean): eps-MSE on held-out data, bin by bin and over them.

  ({}, None) without such data.
  Where the closed form of the data is known, also the gap to the floor: what
  the exact prediction leaves of the same noise.
  """
  if run.held_out is None:
    return {}, None
  dataset, num = run.held_out
  # data that is drawn without end: a batch of a seed that training cannot have
  batch = dataset.batch(run.config.seed + 2**32, 0, num)
  known = run.card.conditions
  x = dataset.to_float(batch["x"])
  cond = conditions.from_batch(known, batch)
  ours = eps_mse_by_logsnr(
    predictor(run.objective, run.network.apply, params), x, cond
  )
  name = "held_out/{}_logsnr_{:g}_{:g}".format
  values = {name("eps_mse", *bin): mse for bin, mse in ours.items()}
  exact = getattr(dataset, "density", None)
  if exact is not None:
    floor = eps_mse_by_logsnr(exact, x, cond)
    values |= {name("gap", *bin): ours[bin] - floor[bin] for bin in ours}
  mean = sum(ours.values()) / len(ours)
  return {"held_out/eps_mse": mean, **values}, mean
