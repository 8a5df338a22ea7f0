"""Three learning rates, each with two seeds: a sweep over any config of ours.

  python -m diffflow_jax.sweep --config=configs/toy2d.py \\
      --sweep=configs/sweeps/learning_rate.py --out=runs/learning_rate

About 4 minutes on a laptop CPU with toy2d.py. `--sweep=FILE:one_seed` is half
of it. A sweep is a function that yields what of the config is changed.
"""


def sweep(size=""):
  """Overrides, {field: value}, of one run after the other."""
  for rate in (5e-4, 2e-3, 8e-3):
    for seed in (0,) if size == "one_seed" else (0, 1):
      yield {"learning_rate.peak_value": rate, "seed": seed}
