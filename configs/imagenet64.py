"""Class-conditional EDM on ImageNet 64x64 (1000 classes), after EDM.

  python -m diffflow_jax.train --config=configs/imagenet64.py \
      --workdir=/mnt/runs/imagenet64 --config.dataset.path=data/imagenet/train

The folder holds a subfolder of images for each class. Meant for a pod or 8
large GPUs; not run to the end by us. The authors' run took 13 days on 32 A100.

Published counterpart, Karras et al., arXiv:2206.00364 appendix F, FID 1.36:
                     paper                      here
  network            ADM, 296M parameters       UNet, 280M parameters: the
                     (arXiv:2105.05233 §3)      same widths, plain up- and
                                                downsampling
  images             2500M, batch 4096          the same: 610,000 steps
  learning rate      1e-4, 10M images warm-up   the same
  optimiser          Adam (0.9, 0.999)          the same
  dropout            0.1                        none: networks have no dropout
  label dropout      none                       0.1, so that guidance works
  weighting          EDM's                      EDM's, over a learned
                                                uncertainty (2312.02696)
  EMA                half-life 50M images       power functions and snapshots,
                                                to choose it afterwards (same)
  augmentation       none                       none
  precision          mixed float16              bfloat16
  sampling           Heun with churn, 256 steps midpoint, 20 steps

`:smoke` is the same in seconds, on discs: it needs no files.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 610_000
  config.batch_size = 4096

  config.dataset = dict(
    name="folder",
    path="data/imagenet/train",
    size=64,
    undecodable="skip",
  )
  config.held_out = dict(num=512, path="data/imagenet/val")
  config.objective = dict(name="edm", weighting="uncertainty")
  config.network = dict(
    name="unet",
    channels=(192, 384, 576, 768),
    num_blocks=3,
    attention=(32, 16, 8),
    head_dim=64,
    num_groups=32,
    dtype="bfloat16",
    remat=True,
  )
  config.optimizer = dict(name="adam", b2=0.999)
  config.learning_rate = dict(
    name="warmup_constant_schedule",
    init_value=0.0,
    peak_value=1e-4,
    warmup_steps=2500,
  )
  config.clip_norm = 1.0
  config.ema = dict(name="power", sigma_rel=(0.05, 0.1))
  config.label_dropout = 0.1

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 100
  config.sample_every = 5000
  config.checkpoint_every = 1000
  config.keep = dict(latest=3, every=50_000, best=1)
  config.snapshot_every = 5000
  config.sampler = dict(
    solver="midpoint",  # 40 evaluations, two a step
    grid="uniform_cosine",
    num_steps=20,
    guidance=1.0,
    num_samples=100,
  )

  if size == "smoke":
    config.dataset = dict(name="synthetic", side=64, channels=3)
    config.held_out = dict(num=16)
    config.num_steps = 4
    config.batch_size = 8
    config.network.channels = (8, 8, 8)
    config.network.num_blocks = 1
    config.network.attention = (16,)
    config.network.num_groups = 8
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 4
    config.checkpoint_every = 2
    config.snapshot_every = 2
    config.sampler.num_steps = 2
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(f"imagenet64.py has the size smoke, not {size!r}")
  return config
