"""How a trained run is made one of few steps: what differs from its teacher.

  python -m diffflow_jax.distill --from=runs/digits \
      --config=configs/distill.py:progressive --workdir=runs/progressive
  python -m diffflow_jax.sample --workdir=runs/progressive --num_steps=1 \
      --out=digits.png

Data, objective, network, optimiser and batch are the teacher's, and its
strength of guidance; one that was trained with config.network.level = "angle"
makes the better students. Methods: reflow, luhman, progressive, consistency,
scm, lagrangian, eulerian, composition, guidance; about 4 minutes of CPU time
each for the digits. `distill.py:reflow,toy` is for points in the plane, and
`distill.py:reflow,smoke` the same in seconds.
"""

import ml_collections

SOLVED = dict(solver="midpoint", grid="uniform_cosine", num_steps=8)
METHODS = {
  "reflow": dict(
    method=dict(name="reflow", pairs=2048),
    teacher=SOLVED,
    sampler=dict(solver="ddim", grid="uniform_flow", num_steps=2),
  ),
  "luhman": dict(
    method=dict(name="knowledge_distillation", pairs=2048),
    teacher=SOLVED,
    sampler=dict(solver="flow_map", grid="uniform_flow", num_steps=1),
  ),
  "progressive": dict(
    method=dict(name="progressive_distillation", last=1),
    teacher=dict(grid="uniform_cosine", num_steps=16),
    sampler=dict(solver="flow_map", grid="uniform_cosine", num_steps=1),
  ),
  "consistency": dict(
    method=dict(name="consistency_distillation", num_levels=40, order=2),
    sampler=dict(solver="flow_map:gamma=1", grid="uniform_flow", num_steps=2),
  ),
  "scm": dict(
    method=dict(name="continuous_consistency", sigma_data=0.75, norm=0.1),
    sampler=dict(solver="flow_map:gamma=1", grid="uniform_flow", num_steps=2),
  ),
  "lagrangian": dict(
    method=dict(name="lagrangian", share=0.75),
    sampler=dict(solver="flow_map", grid="uniform_flow", num_steps=2),
  ),
  "eulerian": dict(
    method=dict(name="eulerian", share=0.75),
    sampler=dict(solver="flow_map", grid="uniform_flow", num_steps=2),
  ),
  "composition": dict(
    method=dict(name="progressive_map", share=0.5),
    sampler=dict(solver="flow_map", grid="uniform_flow", num_steps=2),
  ),
  "guidance": dict(
    method=dict(name="guidance_distillation"),
    sampler=dict(solver="midpoint", grid="uniform_cosine", num_steps=10),
  ),
}


def get_config(size="reflow"):
  """The config of "method", "method,toy", "method,smoke"."""
  name, *sizes = size.split(",")
  if name not in METHODS or set(sizes) - {"toy", "smoke"}:
    raise ValueError(
      f"distill.py has the methods {', '.join(METHODS)}, each with ,toy or "
      f",smoke, not {size!r}"
    )
  toy, smoke = "toy" in sizes, "smoke" in sizes
  config = ml_collections.ConfigDict(METHODS[name])
  config.seed = 0
  config.num_steps = 6 if smoke else 3000 if toy else 300
  config.label_dropout = 0.0
  config.log_every = 2 if smoke else 200 if toy else 25
  config.sample_every = config.num_steps if smoke else config.num_steps // 2
  config.checkpoint_every = config.num_steps // 2
  config.steps_per_dispatch = 1
  config.keep = dict(latest=3, every=0, best=0)
  config.snapshot_every = 0
  config.sampler.guidance = 1.0

  length = config.get_ref("num_steps")
  if name == "progressive":
    if smoke:
      config.teacher.num_steps = 8
    stages = config.teacher.num_steps.bit_length() - 1
    config.method.steps_per_stage = config.num_steps // stages
    # the students of more steps, too, are kept
    config.checkpoint_every = config.num_steps // stages
    config.keep.latest = stages
    length = config.method.get_ref("steps_per_stage")  # each has its own rate
  elif name == "scm":
    config.method.warmup = config.num_steps // (10 if toy else 3)
    if toy:
      config.method.sigma_data = 1.0
  config.learning_rate = dict(
    name="warmup_cosine_decay_schedule",
    init_value=0.0,
    # sCM on images has nothing but its own slope to hold on to
    peak_value=1e-4 if name == "scm" and not toy else 2e-3,
    warmup_steps=1 if smoke else 20,
    decay_steps=length,
  )
  if smoke and "pairs" in config.method:
    config.method.pairs = 64
    config.teacher.num_steps = 2
  return config
