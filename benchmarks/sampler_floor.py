"""What a sampler costs beyond its network: ratios in one run.

    python benchmarks/sampler_floor.py [--quick]

Two programs are run in turns, on one thread, and timed by the CPU; a ratio is
of their medians. The floor of a sampler is the hand-written scan of the same
network, and of a stochastic one that scan with one normal draw a step, all of
it by one key.
"""

import argparse
import os
import time

FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

from floors import by_hand, flow_grid, learned_like, plain  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import diffflow_jax as dfj  # noqa: E402

KEY = jax.random.key(0)
NUM_STEPS = 50


def mlp(params, z, logsnr, cond=None):
  """Plain layers of 64; what they give is ε̂ - x̂, as of flow matching."""
  h = z @ params["in"] + jnp.tanh(logsnr)[:, None]
  for w in params["mid"]:
    h = jax.nn.silu(h @ w)
  return h @ params["out"]


def mlp_params():
  keys = jax.random.split(KEY, 5)
  draw = lambda k, a, b: jax.random.normal(k, (a, b)) / np.sqrt(a)
  mid = [draw(k, 64, 64) for k in keys[2:]]
  return {"in": draw(keys[0], 2, 64), "mid": mid, "out": draw(keys[1], 64, 2)}


def almost_free(params, z, logsnr, cond=None):
  return params * z


def dit():
  net = dfj.networks.DiT(width=128, depth=4, num_heads=4, patch=4)
  z = jnp.zeros((8, 32, 32, 3))
  return net.apply, jax.jit(net.init)(KEY, z, z[:, 0, 0, 0]), z


def cpu(fn, calls):
  start = time.process_time()
  for _ in range(calls):
    out = fn()
  jax.block_until_ready(out)
  return (time.process_time() - start) / calls


def in_turns(runs, rounds, calls):
  """{name: median CPU seconds of a call}."""
  for fn in runs.values():
    jax.block_until_ready(fn())
  seen = {name: [] for name in runs}
  for _ in range(rounds):
    for name, fn in runs.items():
      seen[name].append(cpu(fn, calls))
  return {name: float(np.median(s)) for name, s in seen.items()}


def predictor(apply, wrapped):
  """params -> predict: by hand, or as dfj makes it."""
  if wrapped:
    objective = dfj.objectives.flow_matching()
    return lambda params: dfj.predictor(objective, apply, params)
  predict = plain(apply)
  return lambda params: jax.tree_util.Partial(predict, params)


def jitted(apply, table, wrapped=False):
  """(params, z) -> samples; no host time of a call is in it."""
  made = predictor(apply, wrapped)
  return jax.jit(lambda params, z: dfj.sample(made(params), table, KEY, z=z))


def sampler(apply, params, table, z, wrapped=False):
  run = jitted(apply, table, wrapped)
  return lambda: run(params, z)


def report(title, times, over):
  print(f"\n{title}: {1e6 * times[over] / NUM_STEPS:.1f} µs a step\n")
  print("| | ratio |\n|---|---|")
  for name, t in times.items():
    if name != over:
      print(f"| {name} | {t / times[over]:.2f} |", flush=True)


def small_network(rounds):
  params, z = mlp_params(), jax.random.normal(KEY, (1024, 2))
  grid, solvers = flow_grid(NUM_STEPS), dfj.solvers
  tables = {
    "ddim": solvers.ddim(grid),
    "heun": solvers.heun(flow_grid(NUM_STEPS // 2)),
    "dpmpp_2m": solvers.dpmpp_2m(grid),
    "dpmpp_3m": solvers.dpmpp_3m(grid),
    "unipc, order 3": solvers.unipc(grid, 3),
  }
  tables["ddim, padded"] = dfj.pad(tables["ddim"], 100, 4)
  floor = by_hand(mlp, NUM_STEPS)
  runs = {"by hand": lambda: floor(params, z, KEY)}
  runs |= {n: sampler(mlp, params, t, z) for n, t in tables.items()}
  for name in ("ddim", "dpmpp_2m"):
    made = sampler(mlp, params, tables[name], z, wrapped=True)
    runs[f"{name}, dfj.predictor"] = made
  report("2-D MLP, batch 1024", in_turns(runs, rounds, 2), "by hand")
  noisy = by_hand(mlp, NUM_STEPS, draws=True)
  runs = {"by hand": lambda: noisy(params, z, KEY)}
  to_zero = flow_grid(NUM_STEPS, to_zero=True)
  for solver in (solvers.ddpm, solvers.sde_dpmpp_2m):
    runs[solver.__name__] = sampler(mlp, params, solver(to_zero), z)
  times = in_turns(runs, rounds, 2)
  report("the same, and a draw a step", times, "by hand")


def free_network(rounds):
  z, scale = jax.random.normal(KEY, (8, 32, 32, 3)), jnp.float32(0.5)
  floor = by_hand(almost_free, NUM_STEPS)
  runs = {"by hand": lambda: floor(scale, z, KEY)}
  tables = {"ddim": dfj.solvers.ddim(flow_grid(NUM_STEPS))}
  tables |= {f"keeps {k}": learned_like(k, NUM_STEPS) for k in (4, 20)}
  runs |= {n: sampler(almost_free, scale, t, z) for n, t in tables.items()}
  title = "almost free network, (8, 32, 32, 3)"
  report(title, in_turns(runs, rounds, 20), "by hand")


def transformer(rounds):
  apply, params, z = dit()
  floor = by_hand(apply, NUM_STEPS)
  runs = {"by hand": lambda: floor(params, z, KEY)}
  tables = {
    "ddim": dfj.solvers.ddim(flow_grid(NUM_STEPS)),
    "learned, keeps 10": learned_like(10, NUM_STEPS),
  }
  tables["ddim, padded"] = dfj.pad(tables["ddim"], 100, 4)
  runs |= {n: sampler(apply, params, t, z) for n, t in tables.items()}
  title = "DiT of width 128, depth 4, (8, 32, 32, 3)"
  report(title, in_turns(runs, max(rounds // 8, 1), 1), "by hand")


def compilation(rounds):
  """CPU seconds to trace and compile, and the lines of the program."""
  params, z = mlp_params(), jax.random.normal(KEY, (1024, 2))
  table = dfj.solvers.ddim(flow_grid(10))
  cases = {
    "by hand": lambda: by_hand(mlp, 10).lower(params, z, KEY),
    "ddim, a bare function": lambda: jitted(mlp, table).lower(params, z),
    "ddim, dfj.predictor": lambda: jitted(mlp, table, True).lower(params, z),
  }
  seen = {name: [] for name in cases}
  for _ in range(max(rounds // 8, 1)):
    for name, lower in cases.items():
      jax.clear_caches()
      start = time.process_time()
      lowered = lower()
      lowered.compile()
      spent = time.process_time() - start
      lines = lowered.as_text(dialect="hlo").splitlines()
      seen[name].append((spent, len(lines)))
  print("\nddim, 10 steps, MLP\n\n| | CPU s | HLO lines |\n|---|---|---|")
  for name, s in seen.items():
    print(f"| {name} | {np.median([t for t, _ in s]):.2f} | {s[0][1]} |")


def host_time(rounds):
  """What a bare call costs beside the same inside jit, ms; each is waited for.

  Without the wait the device's thread never sleeps inside jit, and is woken
  again and again outside.
  """
  wait = jax.block_until_ready
  params, z = mlp_params(), jax.random.normal(KEY, (16, 2))
  table = dfj.solvers.ddim(flow_grid(10))
  print("\n| a bare call over the same inside jit | ms |\n|---|---|")
  for name, wrapped in {
    "a bare function": False,
    "dfj.predictor": True,
  }.items():
    inside = sampler(mlp, params, table, z, wrapped)
    predict = predictor(mlp, wrapped)(params)
    runs = {
      "inside": lambda f=inside: wait(f()),
      "bare": lambda p=predict: wait(dfj.sample(p, table, KEY, z=z)),
    }
    times = in_turns(runs, rounds, 20)
    print(f"| {name} | {1e3 * (times['bare'] - times['inside']):.2f} |")


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--quick", action="store_true")
  rounds = 8 if parser.parse_args().quick else 40
  print(f"{jax.devices()[0].device_kind}, one thread, jax {jax.__version__}")
  for part in (small_network, free_network, transformer):
    part(rounds)
  compilation(rounds)
  host_time(rounds)


if __name__ == "__main__":
  main()
