"""Class-conditional flow matching on real handwritten digits (8x8, 10 classes).

  python -m diffflow_jax.train --config=configs/digits.py --workdir=runs/digits

About 5 minutes on a laptop CPU (2 cores). Then

  python -m diffflow_jax.sample --workdir=runs/digits --out=digits.png

shows digits that anyone can read. `--config=configs/digits.py:smoke` is the
same in seconds, to see that everything works.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 600
  config.batch_size = 128

  config.dataset = dict(name="digits", split="train")
  config.held_out = dict(num=320, split="test")
  config.objective = dict(name="flow_matching")
  config.network = dict(name="unet", channels=(32, 64), num_blocks=2)
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
  config.label_dropout = 0.1

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 25
  config.sample_every = 300
  config.checkpoint_every = 100
  config.keep = dict(latest=3, every=0, best=1)
  config.snapshot_every = 0
  config.evaluate = dict(every=0, metrics="fid", num_samples=1000)
  config.sampler = dict(
    solver="midpoint",  # 20 evaluations, two a step
    grid="uniform_cosine",
    num_steps=10,
    guidance=1.3,
    num_samples=100,
  )

  if size == "smoke":
    config.num_steps = 6
    config.batch_size = 16
    config.network.channels = (8, 16)
    config.network.num_blocks = 1
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 6
    config.checkpoint_every = 3
    config.sampler.num_steps = 3
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(f"digits.py has the size smoke, not {size!r}")
  return config
