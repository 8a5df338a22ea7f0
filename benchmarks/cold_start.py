"""How much work a first run is before it does any: CPU time, nothing cached.

  python benchmarks/cold_start.py

`configs/digits.py:smoke` by `train` and then `sample`, each a fresh process
with an empty compile cache, beside `by_hand.py`, which does the same in one
process without the library. Prints the CPU seconds of each, their ratio, and
what they went into: imports, the compilation of each program, the rest.
"""

import collections
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = os.path.join(os.path.dirname(HERE), "configs", "digits.py:smoke")
SHOWN = 12  # programs by name
STAGES = {
  "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowered",
  "/jax/core/compile/backend_compile_duration": "compiled",
}


class Watch:
  """CPU seconds of each compilation: JAX tells when, a thread reads the clock.

  What other threads do in that time counts too; there is little of it here.
  """

  def __init__(self):
    self.clock = [(time.time(), 0.0)]
    self.spans = []
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self):
    while True:
      self.clock.append((time.time(), time.process_time()))
      time.sleep(0.005)

  def listen(self):
    import jax.monitoring

    jax.monitoring.register_event_duration_secs_listener(self._note)

  def _note(self, event, seconds, **about):
    if event in STAGES:
      now = time.time()
      name = about.get("fun_name", "?").removeprefix("jit_")
      self.spans.append(
        (name.removeprefix("jit(").rstrip(")"), now - seconds, now)
      )

  def programs(self):
    """{program: (CPU seconds, number of programs of the name)}."""
    import numpy as np

    wall, cpu = np.array(self.clock).T
    seconds, count = collections.Counter(), collections.Counter()
    for name, *span in self.spans:
      start, end = np.interp(span, wall, cpu)
      seconds[name] += float(end - start)
      count[name] += 0.5  # lowered, and compiled
    return {name: (seconds[name], count[name]) for name in seconds}


def child(report, module, *args):
  """Runs a module as `python -m` does, and writes what it cost."""
  watch = Watch()
  import jax  # noqa: F401

  watch.listen()
  imported = time.process_time()
  sys.argv = [module, *args]
  try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
  except SystemExit as end:
    if end.code:
      raise
  with open(report, "w") as file:
    json.dump({"import jax": imported, "programs": watch.programs()}, file)


def cost(folder, name, module, *args):
  """(CPU seconds of a fresh process to its end, what it reported)."""
  report = os.path.join(folder, f"{name}.json")
  environment = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))
  }
  path = [os.path.dirname(HERE), HERE, os.environ.get("PYTHONPATH", "")]
  environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
  used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
  before = used()
  subprocess.run(
    [sys.executable, __file__, "--child", report, module, *args],
    env=environment,
    stdout=subprocess.DEVNULL,
    check=True,
  )
  with open(report) as file:
    return used() - before, json.load(file)


def describe(name, seconds, report):
  programs = report["programs"]
  order = sorted(programs, key=lambda p: -programs[p][0])
  compiled = sum(s for s, _ in programs.values())
  rest = seconds - compiled - report["import jax"]
  print(f"\n{name}: {seconds:.1f} CPU s")
  print(f"  {report['import jax']:6.2f}  import jax")
  for program in order[:SHOWN]:
    print(f"  {programs[program][0]:6.2f}  compile {program}")
  little = order[SHOWN:]
  number = sum(programs[p][1] for p in little)
  left = sum(programs[p][0] for p in little)
  print(f"  {left:6.2f}  compile {number:.0f} more")
  print(f"  {rest:6.2f}  the rest: imports, tracing, running, files")


def main():
  with tempfile.TemporaryDirectory() as folder:
    run = f"--workdir={os.path.join(folder, 'run')}"
    out = f"--out={os.path.join(folder, 'samples.png')}"
    costs = {
      "train": cost(
        folder, "train", "diffflow_jax.train", f"--config={CONFIG}", run
      ),
      "sample": cost(folder, "sample", "diffflow_jax.sample", run, out),
      "by hand": cost(folder, "by_hand", "by_hand", folder),
    }
  for name, (seconds, report) in costs.items():
    describe(name, seconds, report)
  ours = costs["train"][0] + costs["sample"][0]
  hand = costs["by hand"][0]
  print(f"\nlibrary {ours:.1f}, by hand {hand:.1f}: ratio {ours / hand:.2f}")


if __name__ == "__main__":
  if sys.argv[1:2] == ["--child"]:
    child(*sys.argv[2:])
  else:
    main()
