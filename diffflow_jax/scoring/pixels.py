"""What features are computed of: images as bytes, all else as it is.

    u = ⌊127.5 x + 128⌋, clipped to 0 … 255

as StyleGAN3 and EDM do before any network; ADM truncates, half a level darker.
Samples and reference go the same way, so no metric sees that samples have
values between the data's.
"""

import numpy as np

HOW = "uint8, 127.5 (x + 1) rounded"


def are_images(card):
  """Whether a Card's data are images with values in [-1, 1], not latents."""
  shape, found = tuple(card.shape), card.found or {}
  low, high = found.get("low"), found.get("high")
  beyond = max(-(low or 0.0), high or 0.0) > 1.001
  return len(shape) == 3 and shape[-1] in (1, 3) and not beyond


def prepared(x, card):
  """x (num, *card.shape) of the network's range, as features take it."""
  x = np.asarray(x, np.float32)
  if not are_images(card):
    return x
  return np.clip(127.5 * x + 128.0, 0.0, 255.0).astype(np.uint8)


class Plain:
  """The data themselves as features: pixels in [-1, 1], or coordinates."""

  logits, classes, accuracy = None, (), None

  def __init__(self, card):
    self.metric = "fd_pixels"
    self.name = f"pixels {'x'.join(map(str, card.shape))}"
    self.fingerprint = self.name
    self.dims = int(np.prod(card.shape))

  def __call__(self, x):
    x = np.asarray(x)
    if x.dtype == np.uint8:
      x = x.astype(np.float32) / 127.5 - 1.0
    return x.reshape(len(x), -1).astype(np.float32)


def features_of(spec, card):
  return Plain(card)
