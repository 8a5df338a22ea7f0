"""The held-out numbers of a metrics line."""

from diffflow_jax.evaluation import eps_mse_by_logsnr
from diffflow_jax.objective.objectives import predictor


def line(run, params):
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
  x, label = dataset.to_float(batch["x"]), batch.get("label")
  ours = eps_mse_by_logsnr(
    predictor(run.objective, run.network.apply, params), x, label
  )
  name = "held_out/{}_logsnr_{:g}_{:g}".format
  values = {name("eps_mse", *bin): mse for bin, mse in ours.items()}
  exact = getattr(dataset, "density", None)
  if exact is not None:
    floor = eps_mse_by_logsnr(exact, x)
    values |= {name("gap", *bin): ours[bin] - floor[bin] for bin in ours}
  return values, sum(ours.values()) / len(ours)
