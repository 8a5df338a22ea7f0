"""Class-conditional flow matching on Fashion-MNIST (28x28, 10 classes).

  apt install dataset-fashion-mnist    # or --config.dataset.path=FOLDER
  python -m diffflow_jax.train --config=configs/fashion_mnist.py \
      --workdir=runs/fashion
  python -m diffflow_jax.train --config=configs/fashion_mnist.py:cpu \
      --workdir=runs/fashion_cpu

Meant for one GPU: a UNet of 1.8M parameters, a small one of arXiv:2105.05233.
`:cpu` is a transformer of 1.6M parameters with rotary positions for 2 CPU
cores: about 15 minutes, garments that anyone can name, ragged sandals.
Published counterpart: none, class-conditional and so small. `:smoke` is the
same in seconds, on discs instead of clothes, without files.
"""

import ml_collections


def get_config(size=""):
  """The config; size "cpu" is made for CPU cores, "smoke" takes seconds."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 20_000
  config.batch_size = 128

  config.dataset = dict(
    name="fashion_mnist",
    path="/usr/share/datasets/fashion-mnist",
    split="train",
    flip=True,
  )
  config.held_out = dict(num=512, split="test")
  config.objective = dict(name="flow_matching")
  config.network = dict(
    name="unet", channels=(32, 64, 64), num_blocks=2, attention=(7,)
  )
  config.optimizer = dict(name="adam", b2=0.99)
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    peak_value=1e-3,
    warmup_steps=200,
    decay_steps=config.get_ref("num_steps"),
  )
  config.clip_norm = 1.0
  config.ema = dict(name="exponential", decay=0.999)
  config.label_dropout = 0.1

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 100
  config.sample_every = 1000
  config.checkpoint_every = 1000
  config.keep = dict(latest=3, every=0, best=1)
  config.snapshot_every = 0
  config.evaluate = dict(every=0, metrics="fid", num_samples=2000)
  config.sampler = dict(
    solver="midpoint",  # 20 evaluations, two a step
    grid="uniform_cosine",
    num_steps=10,
    guidance=1.3,
    num_samples=100,
  )

  if size == "cpu":
    config.num_steps = 2000
    config.batch_size = 64
    config.network = dict(
      name="dit", width=128, depth=5, num_heads=4, patch=4, positions="rope"
    )
    config.ema = dict(name="exponential", decay=0.99)
    config.sample_every = 500
    config.checkpoint_every = 250
  elif size == "smoke":
    config.dataset = dict(name="synthetic", side=28, channels=1)
    config.held_out = dict(num=16)
    config.num_steps = 4
    config.batch_size = 16
    config.network = dict(
      name="unet", channels=(8, 8, 8), num_blocks=1, attention=(7,)
    )
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 4
    config.checkpoint_every = 2
    config.sampler.num_steps = 3
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(
      f"fashion_mnist.py has the sizes cpu and smoke, not {size!r}"
    )
  return config
