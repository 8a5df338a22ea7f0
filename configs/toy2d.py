"""Flow matching on points in the plane: moons, checkerboard or ring.

  python -m diffflow_jax.train --config=configs/toy2d.py --workdir=runs/toy2d
  python -m diffflow_jax.train --config=configs/toy2d.py --workdir=runs/board \
      --config.dataset.name=checkerboard

About 40 seconds on a laptop CPU; samples/ shows the points fall into place.
`--config=configs/toy2d.py:smoke` is the same in seconds, and `toy2d.py:vdm` is
VDM on the ring, arXiv:2107.00630, with a schedule that is learned: the bound is
that of its ends, and its estimate has less variance than on a fixed one
(benchmarks/learned_schedule.py).
"""

import ml_collections


def get_config(size=""):
  """The config; "smoke" is a seconds-long version, "vdm" another objective."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 4000
  config.batch_size = 512

  config.dataset = dict(name="moons")
  config.held_out = dict(num=2048)
  config.objective = dict(name="flow_matching")
  config.network = dict(name="mlp", width=128, depth=3)
  config.optimizer = dict(name="adam", b2=0.99)
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    peak_value=2e-3,
    warmup_steps=100,
    decay_steps=config.get_ref("num_steps"),
  )
  config.clip_norm = 1.0
  config.ema = dict(name="exponential", decay=0.995)
  config.label_dropout = 0.0

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 200
  config.sample_every = 1000
  config.checkpoint_every = 1000
  config.keep = dict(latest=3, every=0, best=0)
  config.snapshot_every = 0
  config.evaluate = dict(every=0, metrics="fid", num_samples=2000)
  config.sampler = dict(
    solver="midpoint",  # 20 evaluations, two a step
    grid="uniform_cosine",
    num_steps=10,
    guidance=1.0,
    num_samples=2000,
  )

  if size == "vdm":
    config.dataset.name = "ring"
    config.objective = dict(name="vdm", schedule="learned")
    config.sampler.grid = "uniform_t"
    return config
  if size == "smoke":
    config.num_steps = 20
    config.batch_size = 64
    config.network.width = 32
    config.learning_rate.warmup_steps = 5
    config.log_every = 5
    config.sample_every = 20
    config.checkpoint_every = 10
    config.sampler.num_steps = 4
    config.sampler.num_samples = 200
  elif size:
    raise ValueError(f"toy2d.py has the sizes vdm and smoke, not {size!r}")
  return config
