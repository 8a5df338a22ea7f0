"""A DiT-XL/2 on latents of ImageNet 256x256 (32x32x4, 1000 classes).

  python -m diffflow_jax.train --config=configs/imagenet256_latent.py \
      --workdir=/mnt/runs/dit --config.dataset.path=data/latents.npy \
      --config.dataset.labels=data/labels.npy

latents.npy holds (num, 32, 32, 4) floats, float16 will do, from Stable
Diffusion's autoencoder before its factor 0.18215; labels.npy (num,) integers.
Flipped images are encoded too, as more examples: latents cannot be flipped.
Meant for a pod or 8 large GPUs; not run to the end by us. DiT-XL/2 took about
5.7 steps/s on a TPU v3-256 in the paper: 14 days for 7M steps.

Published counterparts, DiT (Peebles & Xie, arXiv:2212.09748 §4) and SiT (Ma et
al., arXiv:2401.08740 §4), FID 2.27 and 2.06 with guidance 1.5:
                     papers                     here
  network            DiT-XL/2, 675M parameters  the same
  objective          DiT: eps, SiT: velocity    velocity, SiT's linear path
  steps              7M, batch 256              400k, as in their ablations
  learning rate      1e-4, constant             the same, with 1000 warm-up
  optimiser          AdamW, no weight decay     the same
  EMA                0.9999                     the same
  label dropout      0.1                        the same
  sampling           250 steps                  midpoint, 25 steps

`:smoke` is the same in seconds, on discs: it needs no files.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 400_000
  config.batch_size = 256

  config.dataset = dict(
    name="arrays",
    path="data/latents.npy",
    labels="data/labels.npy",
    num_classes=1000,
    scale=0.18215,
  )
  # with latents of other images: dict(num=512, path=..., labels=...)
  config.held_out = dict(num=0)
  config.objective = dict(name="flow_matching")
  config.network = dict(name="dit_xl", patch=2, dtype="bfloat16", remat=True)
  config.optimizer = dict(name="adamw", b2=0.999, weight_decay=0.0)
  config.learning_rate = dict(
    name="warmup_constant_schedule",
    init_value=0.0,
    peak_value=1e-4,
    warmup_steps=1000,
  )
  config.clip_norm = 1.0
  config.ema = dict(name="exponential", decay=0.9999)
  config.label_dropout = 0.1

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 100
  config.sample_every = 10_000
  config.checkpoint_every = 2500
  config.keep = dict(latest=3, every=50_000, best=0)
  config.snapshot_every = 0
  config.sampler = dict(
    solver="midpoint",  # 50 evaluations, two a step
    grid="uniform_cosine",
    num_steps=25,
    guidance=1.5,
    num_samples=16,
  )

  if size == "smoke":
    config.dataset = dict(name="synthetic", side=32, channels=4)
    config.held_out = dict(num=16)
    config.num_steps = 4
    config.batch_size = 8
    config.network = dict(
      name="dit",
      width=32,
      depth=2,
      num_heads=2,
      patch=4,
      dtype="bfloat16",
      remat=True,
    )
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 4
    config.checkpoint_every = 2
    config.sampler.num_steps = 2
    config.sampler.num_samples = 4
  elif size:
    raise ValueError(f"imagenet256_latent.py has the size smoke, not {size!r}")
  return config
