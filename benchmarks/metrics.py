"""Seconds and memory of every metric of features, at FID's size.

    python -m benchmarks.metrics                    # 50,000 of 2048 dimensions
    python -m benchmarks.metrics --num=10000

Features are float32 and made up, with the spectrum of real ones (eigenvalues
falling as 1/i). Seconds are of CPU, over all cores, and of the wall.
"""

import argparse
import json
import resource
import time

import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.evaluation.pairwise import kernels


def features(num, dims, seed, mix, shift=0.0):
  """(num, dims) float32, non-negative as after a ReLU and its mean."""
  rng, out = np.random.default_rng(seed), np.empty((num, dims), np.float32)
  for s in range(0, num, 4096):
    rows = rng.standard_normal((min(4096, num - s), dims), np.float32)
    out[s : s + 4096] = np.abs(rows @ mix + shift)
  return out


def metrics(samples, reference, held_out):
  """{name: call}, with the reference's statistics as part of the call."""
  probabilities = lambda x: (
    np.exp(p) / np.exp(p).sum(1, keepdims=True)
    for p in (x[s : s + 4096, :1000] for s in range(0, len(x), 4096))
  )
  width = evaluation.median_distance(reference)
  two = lambda fn: lambda: fn(samples, reference)
  return {
    "frechet": two(evaluation.frechet),
    "kid": two(evaluation.kid),
    "mmd": lambda: evaluation.mmd(samples, reference, kernels.gaussian(width)),
    "energy_distance": two(evaluation.energy_distance),
    "sliced_wasserstein": two(evaluation.sliced_wasserstein),
    "prdc": two(evaluation.prdc),
    "classifier_two_sample": two(evaluation.classifier_two_sample),
    "inception_score": lambda: evaluation.inception_score(
      probabilities(samples)
    ),
    "nearer_to_train": lambda: evaluation.nearer_to_train(
      samples, reference, held_out
    ),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--num", type=int, default=50_000)
  parser.add_argument("--dims", type=int, default=2048)
  parser.add_argument("--only", default="", help="names, with commas between")
  args = parser.parse_args()
  rng = np.random.default_rng(0)
  turn = np.linalg.qr(rng.standard_normal((args.dims, args.dims)))[0]
  mix = (turn / np.sqrt(np.arange(1, args.dims + 1))[:, None]).astype(
    np.float32
  )
  samples = features(args.num, args.dims, 1, mix, shift=0.02)
  reference = features(args.num, args.dims, 2, mix)
  held_out = features(args.num // 5, args.dims, 3, mix)
  total = [0.0, 0.0]
  for name, call in metrics(samples, reference, held_out).items():
    if args.only and name not in args.only.split(","):
      continue
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    spent = time.process_time() - cpu, time.perf_counter() - wall
    total = [t + s for t, s in zip(total, spent, strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
      json.dumps(
        {
          "metric": name,
          "num": args.num,
          "dims": args.dims,
          "cpu_s": round(spent[0], 1),
          "wall_s": round(spent[1], 1),
          "peak_gib_so_far": round(peak, 2),
        }
      ),
      flush=True,
    )
  print(json.dumps({"all": [round(t, 1) for t in total]}), flush=True)


if __name__ == "__main__":
  main()
