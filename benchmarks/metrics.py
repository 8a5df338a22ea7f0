"""Seconds and memory of every metric of features, at FID's size.

    python -m benchmarks.metrics                    # 50,000 of 2048 dimensions
    python -m benchmarks.metrics --num=10000 --only=kid --alone
    python -m benchmarks.metrics --num=10000 --only=products

`pairs` is the one pass over all pairs of rows that seven metrics share; alone,
each makes its own. `products` are that pass without anyone who looks. Features
are float32 and made up, with the spectrum of real ones (eigenvalues falling as
1/i). Seconds are of CPU, over all cores, and of the wall.
"""

import argparse
import json
import resource
import time

import numpy as np

from diffflow_jax import evaluation
from diffflow_jax.evaluation.pairwise import kernels, tables


def features(num, dims, seed, mix, shift=0.0):
  """(num, dims) float32, non-negative as after a ReLU and its mean."""
  rng, out = np.random.default_rng(seed), np.empty((num, dims), np.float32)
  for s in range(0, num, 4096):
    rows = rng.standard_normal((min(4096, num - s), dims), np.float32)
    out[s : s + 4096] = np.abs(rows @ mix + shift)
  return out


class Nobody:
  """Sees every block, and so tells what the products alone take."""

  def see(self, block):
    pass


def products(samples, reference):
  for sets in ((samples,), (reference,), (samples, reference)):
    tables.walk(tables.Search(*sets), Nobody())


def metrics(samples, reference, held_out, alone):
  """{name: call}, with the reference's statistics as part of the call.

  Args:
    alone: whether each metric of pairs makes its own pass.
  """
  probabilities = lambda x: (
    np.exp(p) / np.exp(p).sum(1, keepdims=True)
    for p in (x[s : s + 4096, :1000] for s in range(0, len(x), 4096))
  )
  gauss = kernels.gaussian(evaluation.median_distance(reference))
  shared = None
  if not alone:
    shared = evaluation.Pairs(
      samples, reference, k=(3, 5), across=2, own=1,
      kernels=[kernels.cubic, gauss, kernels.negative_distance],
    )  # fmt: skip
  two = lambda fn, *more, **names: (
    lambda: fn(samples, reference, *more, **names)
  )
  pairs = {} if alone else {"pairs": lambda: shared.balls}
  return {
    **pairs,
    "kid": two(evaluation.kid, pairs=shared),
    "mmd": two(evaluation.mmd, gauss, pairs=shared),
    "energy_distance": two(evaluation.energy_distance, pairs=shared),
    "prdc": two(evaluation.prdc, pairs=shared),
    "nearer_to_train": two(evaluation.nearer_to_train, held_out, pairs=shared),
    "distance_ratio": two(evaluation.distance_ratio, pairs=shared),
    "authenticity": two(evaluation.authenticity, pairs=shared),
    "frechet": two(evaluation.frechet),
    "sliced_wasserstein": two(evaluation.sliced_wasserstein),
    "classifier_two_sample": two(evaluation.classifier_two_sample),
    "inception_score": lambda: evaluation.inception_score(
      probabilities(samples)
    ),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--num", type=int, default=50_000)
  parser.add_argument("--dims", type=int, default=2048)
  parser.add_argument("--only", default="", help="names, with commas between")
  parser.add_argument("--alone", action="store_true", help="no pass is shared")
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
  calls = metrics(samples, reference, held_out, args.alone)
  if args.only:
    calls["products"] = lambda: products(samples, reference)
    calls = {name: calls[name] for name in args.only.split(",")}
  for name, call in calls.items():
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
