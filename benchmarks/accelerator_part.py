"""One network's part of `accelerator.py`: its train step, then its samplers.

  python benchmarks/accelerator_part.py dit|unet OUT.json [--batch=N] [--tiny]

Writes what it has to OUT.json after every measurement. Model FLOPs are those of
`meter.model_flops`; two programs are run in turns, and a ratio is the median of
the rounds' ratios.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import time

import floors
import jax
import jax.numpy as jnp
import train_step

import diffflow_jax as dfj
from diffflow_jax import config_files
from diffflow_jax.training import meter, resolve

GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Case:
  """A shipped config on made-up images, and the first guess of its memory.

  Attributes:
    most: the largest batch; gib: of an example in a train step.
  """

  config: str
  dataset: dict
  network: dict
  most: int
  gib: float


CASES = {
  "unet": Case(
    "configs/cifar10.py", dict(side=32, channels=3), {}, most=512, gib=0.2
  ),
  "dit": Case(
    "configs/imagenet256_latent.py",
    dict(side=32, channels=4, num_classes=1000),
    dict(name="dit_b", patch=2, dtype="bfloat16"),
    most=256,
    gib=0.4,
  ),
}
TINY = {
  "unet": dict(channels=(8, 8), num_blocks=1, attention=(), head_dim=8),
  "dit": dict(name="dit", width=32, depth=2, num_heads=2, patch=4),
}


def resolved(case, tiny):
  config = config_files.load(case.config)
  config.dataset = dict(name="synthetic", **case.dataset)
  config.held_out, config.keep.best = dict(num=0), 0
  if case.network:
    config.network = case.network
  if tiny is not None:
    config.network = {"num_groups": 8, **tiny} if "channels" in tiny else tiny
    config.network.update(name=config.network.get("name", "unet"))
    config.network.update(dtype="bfloat16")
    config.optimizer, config.clip_norm = dict(name="sgd"), math.inf
  return resolve.resolve(config)


def compiled(fn, *args, **how):
  """(program, {seconds and memory of it})."""
  start = time.perf_counter()
  lowered = jax.jit(fn, **how).lower(*args)
  traced = time.perf_counter()
  program = lowered.compile()
  found = {
    "trace_s": traced - start,
    "compile_s": time.perf_counter() - traced,
  }
  memory = program.memory_analysis()
  if memory is not None:
    parts = ("argument", "output", "temp")
    size = sum(getattr(memory, f"{part}_size_in_bytes") for part in parts)
    found["memory_gib"] = (size - memory.alias_size_in_bytes) / GIB
  return program, found


def limit_gib():
  """What the device lets a process have, or None."""
  stats = jax.devices()[0].memory_stats() or {}
  return stats.get("bytes_limit", 0) / GIB or None


def in_turns(runs, seconds, least=3):
  """{name: [seconds of a call]}, round after round until the time is up."""
  times = {name: [] for name in runs}
  for run in runs.values():
    run()
  end = time.perf_counter() + seconds
  while len(times[next(iter(runs))]) < least or time.perf_counter() < end:
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      times[name].append(time.perf_counter() - start)
  return times


def ratio(times, over):
  return statistics.median(a / b for a, b in zip(times, over, strict=True))


def rates(seconds, batch, flops):
  """images/s, FLOP/s and the share of the peak, null where none is known."""
  peak = meter.peak_flops(jax.devices()[0].device_kind)
  return {
    "ms": 1e3 * seconds,
    "images_per_s": batch / seconds,
    "model_flops_per_s": flops / seconds,
    "share_of_peak": flops / seconds / peak if peak else None,
  }


def fitting(run, batch):
  """(batch, {name: [program, state]}, inputs, their costs): one that fits."""
  limit = limit_gib()
  while True:
    run.config.batch_size = batch
    steps, inputs = train_step.steps_to_compare(run)
    costs = {}
    try:
      for name, pair in steps.items():
        pair[0], costs[name] = compiled(
          pair[0].__wrapped__, pair[1], inputs, donate_argnums=0
        )
        need = costs[name].get("memory_gib", 0.0)
        if limit and need > limit:
          raise MemoryError(f"{need:.1f} GiB of {limit:.1f}")
        pair[1] = pair[0](pair[1], inputs)
        jax.block_until_ready(pair[1])
      return batch, steps, inputs, costs
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
      if "RESOURCE_EXHAUSTED" not in str(error) and not isinstance(
        error, MemoryError
      ):
        raise
      if batch == 1:
        raise
      batch //= 2


def train(run, batch, seconds, found, save):
  """The library's step beside the minimal one; leaves the parameters."""
  batch, steps, inputs, costs = fitting(run, batch)
  flops = meter.model_flops(
    run.network.apply, steps["library"][1].params, run.dataset, batch
  )

  def go(pair, times):
    for _ in range(times):
      pair[1] = pair[0](pair[1], inputs)
    jax.block_until_ready(pair[1])

  start = time.perf_counter()
  go(steps["library"], 1)
  times = max(1, math.ceil(0.3 / (time.perf_counter() - start)))
  seen = in_turns(
    {name: lambda p=pair: go(p, times) for name, pair in steps.items()}, seconds
  )
  found["batch"], found["model_flops_per_step"] = batch, flops
  for name, values in seen.items():
    each = statistics.median(values) / times
    label = name.replace("-", "_")
    found[f"train_{label}"] = rates(each, batch, flops) | costs[name]
  found["train_over_hand_written"] = ratio(*seen.values())
  save()
  return steps["library"][1].params


def sampling(run, params, batch, counts, seconds, found, save):
  """Samplers beside as many bare evaluations."""
  apply, few, many = run.network.apply, *counts
  key = jax.random.key(0)
  z = jax.random.normal(key, (batch, *run.dataset.shape))
  cond = jnp.arange(batch) % run.dataset.num_classes
  objective = dfj.objectives.flow_matching()

  def draw(params, table, z, cond):
    predict = dfj.predictor(objective, apply, params)
    return dfj.sample(predict, table, key, z=z, cond=cond)

  tables = {n: dfj.solvers.ddim(floors.flow_grid(n)) for n in counts}
  bare, cost = compiled(floors.evaluations(apply), params, z, cond, few)
  found["sample_batch"] = batch
  found["evaluations"] = cost
  padded = {
    n: jax.tree.map(jnp.asarray, dfj.pad(t, many, 4)) for n, t in tables.items()
  }
  fixed = {n: (t, n) for n, t in tables.items()}
  cases = {f"ddim_{n}": pair for n, pair in fixed.items()}
  cases["learned_keeps_10"] = (floors.learned_like(10, few), few)
  programs = {}
  for name, (table, n) in cases.items():
    call = lambda params, z, cond, t=table: draw(params, t, z, cond)
    program, costs = compiled(call, params, z, cond)
    programs[name] = (lambda p=program: p(params, z, cond)), n, costs
  any_table, costs = compiled(draw, params, padded[few], z, cond)
  for n, table in padded.items():
    one = lambda t=table: any_table(params, t, z, cond)
    programs[f"padded_{n}"] = one, n, costs
  for name, (call, n, costs) in programs.items():
    runs = {
      name: lambda c=call: jax.block_until_ready(c()),
      "bare": lambda n=n: jax.block_until_ready(bare(params, z, cond, n)),
    }
    seen = in_turns(runs, seconds)
    found[f"sample_{name}"] = {
      "images_per_s": batch / statistics.median(seen[name]),
      "over_bare_evaluations": ratio(seen[name], seen["bare"]),
    } | costs
    save()


def attention(run, params):
  """Who computes it: "cudnn" or "xla"."""
  shape = lambda *s, dtype=jnp.float32: jax.ShapeDtypeStruct(s, dtype)
  inputs = shape(1, *run.dataset.shape), shape(1), shape(1, dtype=jnp.int32)
  traced = str(jax.make_jaxpr(run.network.apply)(params, *inputs))
  return "cudnn" if "dot_product_attention_fwd" in traced else "xla"


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("name", choices=CASES)
  parser.add_argument("out")
  parser.add_argument("--batch", type=int)
  parser.add_argument("--tiny", action="store_true")
  args = parser.parse_args()
  if args.tiny:  # to see that it runs
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  jax.config.update("jax_enable_compilation_cache", args.tiny)
  case, device = CASES[args.name], jax.devices()[0].device_kind
  peak = meter.peak_of(device)
  found = {
    "device": device,
    "jax": jax.__version__,
    "peak_flops": peak and peak[1],
    "peak_is_of": peak[0] if peak else f"no peak is known for {device!r}",
    "network": args.name,
  }

  def save():
    stats = jax.devices()[0].memory_stats() or {}
    found["peak_memory_gib"] = stats.get("peak_bytes_in_use", 0) / GIB or None
    with open(args.out, "w") as file:
      json.dump(found, file)

  save()
  run = resolved(case, TINY[args.name] if args.tiny else None)
  found["config"] = dict(run.config.network)
  room = 2 ** int(math.log2((limit_gib() or 8 * case.gib) / case.gib))
  batch = args.batch or (2 if args.tiny else min(case.most, max(room, 1)))
  params = train(run, batch, 0 if args.tiny else 15, found, save)
  found["parameters"] = dfj.networks.count(params)
  found["attention"] = attention(run, params)
  counts, batch = ((3, 6), 2) if args.tiny else ((50, 250), min(batch, 64))
  sampling(run, params, batch, counts, 0 if args.tiny else 4, found, save)


if __name__ == "__main__":
  main()
