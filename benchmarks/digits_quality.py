"""Judges samples of the digits model against the real digits.

  python -m diffflow_jax.sample --workdir=runs/digits --num_samples=1000 \
      --out=digits.npz
  python benchmarks/digits_quality.py digits.npz

Prints whether an SVM reads the samples as their labels, whether they are copies
of training digits, and how far their distribution is from the real one.
"""

import sys

import numpy as np

from diffflow_jax import data, evaluation


def judge(samples, labels):
  """The figures of a set of samples, a dict."""
  from sklearn import svm

  train, test, real = (data.digits(split) for split in ("train", "test", "all"))
  floats = lambda d: np.asarray(d.to_float(d.x))
  rows = lambda x: x.reshape(len(x), -1)
  x, y = rows(floats(real)), real.labels

  reader = svm.SVC(gamma=0.03, C=10.0).fit(x[::2], y[::2])
  nearest = np.median(evaluation.nearest_distances(samples, floats(train)))
  held_out = np.median(
    evaluation.nearest_distances(floats(test), floats(train))
  )
  halves = evaluation.frechet_distance(x[::2], x[1::2])
  frechet = evaluation.frechet_distance(samples, x)
  return {
    "svm accuracy on held-out real digits": reader.score(x[1::2], y[1::2]),
    "samples that it reads as their label": reader.score(rows(samples), labels),
    "nearest training digit, ratio to held-out": nearest / held_out,
    "Frechet distance, ratio to two halves": frechet / halves,
  }


if __name__ == "__main__":
  arrays = np.load(sys.argv[1])
  for name, value in judge(arrays["samples"], arrays["labels"]).items():
    print(f"{name:45s} {value:.3f}")
