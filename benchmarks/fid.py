"""Whole FID against pytorch-fid's, on the same images and random weights.

    pip install torch torchvision pytorch-fid
    python -m benchmarks.fid --num=1000

Crops of scikit-learn's two photographs against noisy ones, `num` of each.
Prints how far features differ and the distances: ours, and pytorch-fid's of its
own features, in all 2048 dimensions and in the first 64, which have full rank.
"""

import argparse
import os
import tempfile
import time

import numpy as np
import torch

from diffflow_jax import evaluation

SIZE, BATCH = 48, 25


def crops(num, rng):
  """(num, 48, 48, 3) uint8 of both photographs."""
  from sklearn.datasets import load_sample_images

  found = []
  for image in load_sample_images().images:
    top, left = (rng.integers(0, n - SIZE, num // 2) for n in image.shape[:2])
    found += [
      image[i : i + SIZE, j : j + SIZE] for i, j in zip(top, left, strict=True)
    ]
  return np.stack(found)


def random_weights(like, generator):
  """A state dict whose activations neither vanish nor explode."""
  found = {}
  for name, value in like.items():
    normal = torch.randn(value.shape, generator=generator)
    if "num_batches" in name:
      found[name] = torch.tensor(0)
    elif name.endswith("conv.weight"):
      found[name] = normal * (2.0 / np.prod(value.shape[1:])) ** 0.5
    elif name.endswith(("running_var", "bn.weight")):
      found[name] = torch.rand(value.shape, generator=generator) + 0.5
    else:
      found[name] = 0.3 * normal
  return found


def theirs(weights):
  """pytorch-fid's network of these weights: images -> (num, 2048)."""
  from pytorch_fid import inception

  inception.load_state_dict_from_url = lambda *_, **__: weights
  network = inception.InceptionV3().eval()

  def features(x):
    x = torch.tensor(x).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
      parts = [network(part)[0][:, :, 0, 0] for part in x.split(BATCH)]
    return torch.cat(parts).numpy()

  return features


def timed(name, features, sets):
  """Features of every set, with the CPU seconds that they took."""
  start = time.process_time()
  found = [features(x) for x in sets]
  print(f"{name}: {time.process_time() - start:.0f} CPU s", flush=True)
  return found


def compare(dims, got, want):
  """Prints both distances of the first dims features."""
  from pytorch_fid import fid_score

  ours = evaluation.frechet_distance(*(f[:, :dims] for f in got))
  moments = []
  for f in want:
    f = f[:, :dims].astype(np.float64)
    moments += [f.mean(0), np.cov(f, rowvar=False)]
  other = fid_score.calculate_frechet_distance(*moments)
  print(f"{dims} dimensions: ours {ours:.6f}, pytorch-fid {other:.6f}")


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--num", type=int, default=1000)
  args = parser.parse_args()
  from pytorch_fid import inception

  rng = np.random.default_rng(1)
  a, b = crops(args.num, rng), crops(args.num, rng)
  b = np.clip(b + rng.normal(0, 12, b.shape), 0, 255).astype(np.uint8)
  made = inception._inception_v3(
    num_classes=1008, aux_logits=False, weights=None
  )
  weights = random_weights(made.state_dict(), torch.Generator().manual_seed(0))
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "weights.pth")
    torch.save(weights, path)
    ours = evaluation.inception(path, "torch", batch_size=BATCH, checksum="any")
  want = timed("pytorch-fid", theirs(weights), (a, b))
  got = timed("ours", ours, (a, b))
  far = max(abs(g - w).max() for g, w in zip(got, want, strict=True))
  print(f"features differ by {far:.1e}, of at most {abs(want[0]).max():.1f}")
  for dims in (64, 2048):
    compare(dims, got, want)


if __name__ == "__main__":
  main()
