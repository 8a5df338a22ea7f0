"""Class-conditional EDM on CIFAR-10 (32x32x3, 10 classes), after EDM.

  python -m diffflow_jax.train --config=configs/cifar10.py \
      --workdir=runs/cifar --config.dataset.path=data/cifar-10-batches-bin

The folder is that of "CIFAR-10 binary version" (cs.toronto.edu/~kriz). Not run
to the end by us; the authors' runs took 2 days on 8 V100 GPUs.

Published counterpart, Karras et al., arXiv:2206.00364 appendix F, FID 1.79:
                     paper                      here
  network            DDPM++, 56M parameters     UNet, 67M parameters: the same
                                                widths, plain up- and
                                                downsampling
  images             200M, batch 512            the same: 390,000 steps
  learning rate      1e-3, 10M images warm-up   the same
  optimiser          Adam (0.9, 0.999)          the same
  dropout            0.13                       the same
  augmentation       12 %, non-leaky            the same transforms
  label dropout      none                       0.1, so that guidance works
  EMA                half-life 0.5M images      0.99929 a step: the same
  precision          float32                    bfloat16
  sampling           Heun, 18 steps             the same

`:smoke` is the same in seconds, on discs: it needs no files.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 390_000
  config.batch_size = 512

  config.dataset = dict(
    name="cifar10",
    path="data/cifar-10-batches-bin",
    split="train",
    augmentation=0.12,  # with flips, which no sample then has
  )
  config.held_out = dict(num=512, split="test")
  config.objective = dict(name="edm")
  config.network = dict(
    name="unet",
    channels=(256, 256, 256),
    num_blocks=4,
    attention=(16,),
    head_dim=256,
    num_groups=32,
    dropout=0.13,
    dtype="bfloat16",
  )
  config.optimizer = dict(name="adam", b2=0.999)
  config.learning_rate = dict(
    name="warmup_constant_schedule",
    init_value=0.0,
    peak_value=1e-3,
    warmup_steps=20_000,
  )
  config.clip_norm = 1.0
  config.ema = dict(name="exponential", decay=0.99929)
  config.label_dropout = 0.1

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 100
  config.sample_every = 5000
  config.checkpoint_every = 2500
  config.keep = dict(latest=3, every=0, best=1)
  config.snapshot_every = 0
  config.evaluate = dict(every=0, metrics="fid", num_samples=5000)
  config.sampler = dict(
    solver="heun", grid="uniform_t", num_steps=18, guidance=1.0, num_samples=100
  )

  if size == "smoke":
    config.dataset = dict(
      name="synthetic", side=32, channels=3, augmentation=0.12
    )
    config.held_out = dict(num=16)
    config.num_steps = 4
    config.batch_size = 16
    config.network.channels = (8, 8, 8)
    config.network.num_blocks = 1
    config.network.attention = (16,)
    config.network.head_dim = 8
    config.network.num_groups = 8
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 4
    config.checkpoint_every = 2
    config.sampler.num_steps = 2
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(f"cifar10.py has the size smoke, not {size!r}")
  return config
