"""Models of few steps from scratch: mean flow, shortcuts, consistency.

  python -m diffflow_jax.train --config=configs/few_step.py:meanflow \
      --workdir=runs/meanflow
  python -m diffflow_jax.sample --workdir=runs/meanflow --num_steps=1 \
      --out=digits.png

on real handwritten digits (8x8, 10 classes), about 4 minutes of CPU time each;
samples/ shows them in 1, 2 and 4 steps. Methods: meanflow, imf, shortcut,
split, consistency, easy, scm. `few_step.py:meanflow,toy` is on points in the
plane, `few_step.py:meanflow,smoke` the same in seconds.
"""

import ml_collections

METHODS = {
  "meanflow": dict(name="mean_flow", share=0.75, power=1.0, guidance=1.0),
  "imf": dict(name="improved_mean_flow", share=0.5, power=1.0, guidance=1.0),
  "shortcut": dict(name="shortcut", share=0.25, finest=128),
  "split": dict(name="split_mean_flow", share=0.5),
  "consistency": dict(name="improved_consistency", first=10, most=160),
  "easy": dict(name="easy_consistency"),
  "scm": dict(name="continuous_consistency", norm=0.1),
}
RENEWED = ("consistency", "easy", "scm")  # between steps, all of the noise


def get_config(size="meanflow"):
  """The config of "method", "method,toy", "method,smoke"; "smoke" is one."""
  name, *sizes = ("meanflow,smoke" if size == "smoke" else size).split(",")
  if name not in METHODS or set(sizes) - {"toy", "smoke"}:
    raise ValueError(
      f"few_step.py has the methods {', '.join(METHODS)}, each with ,toy or "
      f",smoke, not {size!r}"
    )
  toy = "toy" in sizes
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.num_steps = 3000 if toy else 300
  config.batch_size = 512 if toy else 128

  if toy:
    config.dataset = dict(name="moons")
    config.held_out = dict(num=2048)
    config.network = dict(name="mlp", width=128, depth=3)
  else:
    config.dataset = dict(name="digits", split="train")
    config.held_out = dict(num=320, split="test")
    config.network = dict(name="unet", channels=(32, 64), num_blocks=1)
  config.network.level = "angle"  # derivatives of logsnr would be noise
  config.objective = dict(name="flow_matching")
  config.method = METHODS[name]
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

  config.mesh = dict(data=-1, fsdp=1)
  config.accumulation = 1
  config.steps_per_dispatch = 1

  config.log_every = 200 if toy else 25
  config.sample_every = config.num_steps // 2
  config.checkpoint_every = config.num_steps // 4
  config.keep = dict(latest=3, every=0, best=0)
  config.snapshot_every = 0
  config.sampler = dict(
    solver="flow_map:gamma=1" if name in RENEWED else "flow_map",
    grid="uniform_flow",
    num_steps=2,
    guidance=1.0,
    num_samples=2000 if toy else 100,
  )

  if toy and "power" in config.method:
    config.method.power = 0.0  # what weights of examples move, points show
  if name == "consistency":  # the grid is finest at the end
    config.method.num_steps = config.get_ref("num_steps")
  elif name == "easy":
    config.method.steps_per_stage = config.num_steps // 4
  elif name == "scm":
    config.method.sigma_data = 1.0 if toy else 0.75
    config.method.warmup = config.num_steps // (10 if toy else 3)
    if not toy:  # nothing but its own slope holds it
      config.learning_rate.peak_value = 1e-4

  if "smoke" in sizes:
    config.num_steps = 6
    config.batch_size = 16
    if toy:
      config.network.width = 16
      config.held_out.num = 64
    else:
      config.network.channels = (8, 16)
    config.learning_rate.warmup_steps = 2
    config.log_every = 2
    config.sample_every = 6
    config.checkpoint_every = 3
    config.sampler.num_samples = 100 if toy else 10
  return config
