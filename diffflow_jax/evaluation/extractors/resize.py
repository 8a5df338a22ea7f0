"""Images to another size, as the tools that compute FID do it, as matrices.

A resize is linear in each axis, out = A_h x A_wᵀ, and the tools differ by A.
With s = size_in/size_out, output pixel j lies at

    tf1     j s                 two taps; no half pixel: shifted           (1)
    torch   (j + ½) s - ½       two taps, clamped; aliases where s > 1     (2)
    clean   (j + ½) s - ½       Keys' cubic, a = -½, widened by s if s > 1 (3)

(1) is TensorFlow 1's resize_bilinear, within the published graph; (2) torch's
`interpolate`, as of pytorch-fid; (3) PIL's BICUBIC of float images, as of
clean-fid (Parmar et al., arXiv:2104.11222).
"""

import numpy as np


def _linear(place, size_in):
  """Two taps (n, size_in) at places (n,) that are held inside."""
  place = np.clip(place, 0, size_in - 1)
  return np.maximum(0.0, 1.0 - abs(np.arange(size_in) - place[:, None]))


def _cubic(u, a=-0.5):
  """Keys 1981 eq. 4, of which a = -½ is his choice, eq. 15."""
  u = abs(u)
  near = ((a + 2.0) * u - (a + 3.0)) * u**2 + 1.0
  far = a * (((u - 5.0) * u + 8.0) * u - 4.0)
  return np.where(u < 1, near, np.where(u < 2, far, 0.0))


def cubic_taps(place, size_in, a):
  """Four taps (n, size_in) at places (n,); beyond an edge its pixel repeats."""
  first = np.floor(place).astype(int) - 1
  taps = np.zeros((len(place), size_in))
  for i in range(4):
    weight = _cubic(place - (first + i), a)
    np.add.at(
      taps,
      (np.arange(len(place)), np.clip(first + i, 0, size_in - 1)),
      weight,
    )
  return taps


def _tf1(size_in, size_out):
  return _linear(np.arange(size_out) * (size_in / size_out), size_in)


def _torch(size_in, size_out):
  s = size_in / size_out
  return _linear((np.arange(size_out) + 0.5) * s - 0.5, size_in)


def _clean(size_in, size_out):
  s = size_in / size_out
  place = (np.arange(size_out)[:, None] + 0.5) * s - 0.5
  taps = _cubic((np.arange(size_in) - place) / max(s, 1.0))
  return taps / taps.sum(1, keepdims=True)  # at an edge some are missing


KINDS = {"tf1": _tf1, "torch": _torch, "clean": _clean}


def matrix(kind, size_in, size_out):
  """A (size_out, size_in) of one axis, float64."""
  return KINDS[kind](size_in, size_out)
