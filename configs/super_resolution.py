"""Fashion-MNIST (28x28) from 7x7: super-resolution, 4 times in each direction.

  apt install dataset-fashion-mnist
  python -m diffflow_jax.train --config=configs/super_resolution.py \
      --workdir=runs/super
  python benchmarks/conditions.py super_resolution runs/super super.png

About 5 minutes on 2 cores. On 256 held-out images: 17.96 dB of PSNR for one
sample and 19.98 for the mean of four, 15.94 for bicubic; a sample that is made
small again is within 1.46 % of the range of what was told (RMSE). With
`--config.dataset.of=digits`, 8x8 from 2x2, no package is needed;
`--config=configs/super_resolution.py:smoke` is that in seconds.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 700
  config.batch_size = 32

  config.dataset = dict(
    name="super_resolution", of="fashion_mnist", factor=4, split="train"
  )
  config.held_out = dict(num=256, split="test")
  config.objective = dict(name="flow_matching")
  config.network = dict(
    name="unet", channels=(12, 24, 48), num_blocks=1, num_groups=4
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
  config.conditions = dict(low=dict(dropout=0.0))

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 50
  config.sample_every = 350
  config.checkpoint_every = 175
  config.keep = dict(latest=3, every=0, best=1)
  config.snapshot_every = 0
  config.sampler = dict(
    solver="midpoint",  # 20 evaluations, two a step
    grid="uniform_cosine",
    num_steps=10,
    guidance=1.0,
    num_samples=64,
  )

  if size == "smoke":
    config.num_steps = 6
    config.batch_size = 16
    config.dataset.of = "digits"
    config.network.channels = (8, 16)
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 6
    config.checkpoint_every = 3
    config.sampler.num_steps = 3
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(f"super_resolution.py has the size smoke, not {size!r}")
  return config
