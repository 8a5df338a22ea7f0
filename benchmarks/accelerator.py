"""What one accelerator makes of this library, in at most 7 minutes.

  python benchmarks/accelerator.py [--out=benchmarks/results] [--minutes=7]
  python benchmarks/accelerator.py --tiny --out=/tmp/accelerator  # any CPU

A UNet of CIFAR-10's size and a DiT-B/2 on latents 32x32x4, bf16, on made-up
data, in the batch that fits: the train step beside a hand-written minimal one,
50 and 250 sampling steps beside that many bare evaluations, padded and learned
tables, what compiles for how long; and, where PyTorch finds the device too, the
same DiT's step under torch.compile. Every part is a process of its own, with
all of the memory; what does not finish in time is left out, and said. Prints
what it found and writes it to accelerator_<device>.json.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
PARTS = {  # the share of the time that is left which each may take
  "dit": ("accelerator_part.py", 0.45),
  "torch": ("torch_dit.py", 0.3),
  "unet": ("accelerator_part.py", 1.0),
}


def run_part(name, seconds, batch, tiny):
  """What a part has written within the time, and how it ended."""
  script = PARTS[name][0]
  with tempfile.TemporaryDirectory() as folder:
    out = pathlib.Path(folder) / "part.json"
    command = [sys.executable, str(HERE / script), name, str(out)]
    command += [f"--batch={batch}"] if batch else []
    command += ["--tiny"] if tiny else []
    start, ended = time.monotonic(), "finished"
    try:
      done = subprocess.run(
        command, timeout=seconds, stderr=subprocess.PIPE, text=True
      )
      if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        ended = f"failed: {' '.join(last)}"
    except subprocess.TimeoutExpired:
      ended = f"stopped after {seconds:.0f} s: the time was up"
    found = json.loads(out.read_text()) if out.exists() else {}
  return {
    **found,
    "ended": ended,
    "seconds": round(time.monotonic() - start, 1),
  }


def lines(name, part):
  """A part's numbers as text."""
  yield f"{name}: {part['ended']}, {part['seconds']} s"
  for key, value in part.items():
    if isinstance(value, dict):
      inner = ", ".join(f"{k} {shown(v)}" for k, v in value.items())
      yield f"  {key}: {inner}"
    elif key not in ("ended", "seconds"):
      yield f"  {key}: {shown(value)}"


def shown(value):
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--out", default=str(HERE / "results"))
  parser.add_argument("--minutes", type=float, default=7.0)
  parser.add_argument("--tiny", action="store_true")
  args = parser.parse_args()
  end, found = time.monotonic() + 60.0 * args.minutes - 5.0, {}
  for name, (_, share) in PARTS.items():
    left = share * max(end - time.monotonic(), 1.0)
    batch = found.get("dit", {}).get("batch") if name == "torch" else None
    found[name] = run_part(name, left, batch, args.tiny)
    print("\n".join(lines(name, found[name])), flush=True)
  device = found["dit"].get("device", "unknown")
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  word = re.sub(r"\W+", "_", device).strip("_").lower()
  path = out / f"accelerator_{word}.json"
  result = {"device": device, "tiny": args.tiny, **found}
  path.write_text(json.dumps(result, indent=2) + "\n")
  print(f"in {path}")
  failed = [n for n, part in found.items() if part["ended"][:6] == "failed"]
  sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
  main()
