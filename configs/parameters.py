"""Gaussian processes on a line, of a given length scale and amplitude.

  python -m diffflow_jax.train --config=configs/parameters.py \
      --workdir=runs/parameters
  python benchmarks/conditions.py parameters runs/parameters parameters.png

About 5 minutes of CPU time. The exact prediction is known, so the metrics have
the gap to it: 0.2 % of the exact loss at the noisy end to 3.7 % at the clean
one. The covariance of 2000 samples is off by 4 to 8 % of its norm under four
laws (of exact draws by 1 to 7 %). Positions are absolute: with rotary ones,
which know no ends, it is 12 to 19 %, most at the two ends of the line.
`--config=configs/parameters.py:smoke` is the same in seconds.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 1800
  config.batch_size = 128

  config.dataset = dict(name="gaussian_process", num_points=32)
  config.held_out = dict(num=2048)
  config.objective = dict(name="flow_matching")
  config.network = dict(
    name="dit", width=64, depth=3, num_heads=4, patch=2, positions="sincos"
  )
  config.optimizer = dict(name="adam", b2=0.99)
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    peak_value=2e-3,
    warmup_steps=50,
    decay_steps=config.get_ref("num_steps"),
  )
  config.clip_norm = 1.0
  config.ema = dict(name="exponential", decay=0.99)
  config.label_dropout = 0.0
  config.conditions = dict(parameters=dict(dropout=0.0))

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 100
  config.sample_every = 600
  config.checkpoint_every = 300
  config.keep = dict(latest=3, every=0, best=1)
  config.snapshot_every = 0
  config.sampler = dict(
    solver="midpoint",  # 20 evaluations, two a step
    grid="uniform_cosine",
    num_steps=10,
    guidance=1.0,
    num_samples=100,
  )

  if size == "smoke":
    config.num_steps = 6
    config.batch_size = 16
    config.network.width = 16
    config.network.depth = 1
    config.held_out.num = 64
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 6
    config.checkpoint_every = 3
    config.sampler.num_steps = 3
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(f"parameters.py has the size smoke, not {size!r}")
  return config
