"""A classifier of Fashion-MNIST, whose features metrics can be made of.

  apt install dataset-fashion-mnist    # or --config.dataset.path=FOLDER
  python -m diffflow_jax.train_features \
      --config=configs/features_fashion_mnist.py --workdir=runs/features_fashion

About 3 minutes on a laptop CPU (2 cores): 91 % of the test images right.
Then `--features=classifier:runs/features_fashion` judges samples of garments.
`:smoke` is the same in seconds, on discs instead of clothes, without files.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 1500
  config.batch_size = 128
  config.optimizer = dict(name="adamw", weight_decay=0.05)
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    peak_value=3e-3,
    warmup_steps=150,
    decay_steps=config.get_ref("num_steps"),
  )
  config.clip_norm = 1.0
  config.shift = 1  # pixels, at random

  config.dataset = dict(
    name="fashion_mnist",
    path="/usr/share/datasets/fashion-mnist",
    split="train",
    flip=True,
  )
  config.held_out = dict(num=10_000, split="test")
  config.network = dict(channels=(16, 32, 64), width=64)

  if size == "smoke":
    config.dataset = dict(name="synthetic", side=28, channels=1)
    config.held_out = dict(num=16)
    config.num_steps = 4
    config.batch_size = 16
    config.learning_rate.warmup_steps = 2
    config.network = dict(channels=(8, 8, 8), width=16)
  elif size:
    raise ValueError(
      f"features_fashion_mnist.py has the size smoke, not {size!r}"
    )
  return config
