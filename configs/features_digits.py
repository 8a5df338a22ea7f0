"""A classifier of handwritten digits, whose features metrics can be made of.

  python -m diffflow_jax.train_features --config=configs/features_digits.py \
      --workdir=runs/features_digits

Half a minute on a laptop CPU (2 cores): 99 % of the held-out digits right.
Then `--features=classifier:runs/features_digits` judges samples of digits.
`:smoke` is the same in fewer seconds.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 500
  config.batch_size = 128
  config.optimizer = dict(name="adamw", weight_decay=0.05)
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    peak_value=2e-3,
    warmup_steps=50,
    decay_steps=config.get_ref("num_steps"),
  )
  config.clip_norm = 1.0
  config.shift = 1  # pixels, at random

  config.dataset = dict(name="digits", split="train")
  config.held_out = dict(num=359, split="test")
  config.network = dict(channels=(32, 64), width=64)

  if size == "smoke":
    config.num_steps = 60
    config.batch_size = 32
    config.learning_rate.peak_value = 5e-3
    config.learning_rate.warmup_steps = 5
    config.network = dict(channels=(8, 16), width=16)
  elif size:
    raise ValueError(f"features_digits.py has the size smoke, not {size!r}")
  return config
