"""How a trained run is made one of few steps: what differs from its teacher.

  python -m diffflow_jax.distill --from=runs/digits \
      --config=configs/distill.py:reflow --workdir=runs/reflow

Methods: reflow. Data, objective, network, optimiser and batch are the
teacher's. `distill.py:reflow,toy` is for points in the plane, and
`distill.py:reflow,smoke` the same in seconds.
"""

import ml_collections

METHODS = {
  "reflow": dict(
    method=dict(name="reflow", pairs=0),
    teacher=dict(solver="midpoint", grid="uniform_cosine", num_steps=5),
    sampler=dict(solver="ddim", grid="uniform_flow", num_steps=2),
  ),
}


def get_config(size="reflow"):
  """The config of "method", "method,toy", "method,smoke"."""
  name, *sizes = size.split(",")
  if name not in METHODS or set(sizes) - {"toy", "smoke"}:
    raise ValueError(
      f"distill.py has the methods {', '.join(METHODS)}, each with ,toy and "
      f",smoke, not {size!r}"
    )
  config = ml_collections.ConfigDict(METHODS[name])
  config.seed = 0
  config.num_steps = 4000 if "toy" in sizes else 600
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    peak_value=1e-3,
    warmup_steps=20,
    decay_steps=config.get_ref("num_steps"),
  )
  config.label_dropout = 0.0
  config.log_every = 200 if "toy" in sizes else 25
  config.sample_every = config.num_steps // 2
  config.checkpoint_every = config.num_steps // 4
  config.keep = dict(latest=3, every=0, best=0)
  config.snapshot_every = 0
  config.sampler.guidance = 1.0

  if "smoke" in sizes:
    config.num_steps = 6
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 6
    config.checkpoint_every = 3
  return config
