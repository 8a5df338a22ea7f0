"""Data and a network of every kind of condition, for tests."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffflow_jax import data
from diffflow_jax.process import conditions

NUM, SIDE, LENGTH = 48, 4, 3


def arrays(num=NUM, seed=0, flip=False):
  """Images with a label, a vector, a sequence with a mask and a small image."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=(num, *shape)).astype(np.float32)
  said = np.arange(LENGTH) < rng.integers(0, LENGTH + 1, num)[:, None]
  return data.Arrays(
    np.clip(normal(SIDE, SIDE, 1), -3, 3),
    rng.permutation(np.arange(num) % 3),
    flip=flip,
    given={
      "power": normal(2),
      "text": (normal(LENGTH, 5), said),
      "small": rng.integers(0, 256, (num, 2, 2, 1), np.uint8),
    },
  )


class Net(nn.Module):
  """A few products: every number of every condition reaches the output."""

  num_classes: int = 0
  conditions: object = None
  dropout: float = 0.0
  width: int = 8

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    h = nn.Dense(self.width)(jnp.tanh(logsnr)[:, None])
    known = dict(self.conditions or {})
    if known:
      assert set(known) == {"label", "power", "text", "small"}, known
    if self.num_classes and not known:
      cond = {"label": cond}
      known = {"label": conditions.Condition("label", (), self.num_classes)}
    for name, one in known.items():
      entry = (cond or {}).get(name)
      if entry is None:
        entry = jax.tree.map(
          lambda a: jnp.broadcast_to(a, (len(z), *jnp.shape(a))),
          conditions.null(one),
        )
      h = h + self._told(name, one, entry, len(z))
    if self.dropout:
      h = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(h)
    scale = nn.Dense(z[0].size)(h).reshape(z.shape)
    return scale + nn.Dense(z.shape[-1])(z)

  def _told(self, name, one, entry, num):
    if one.kind == "label":
      return nn.Embed(one.num_classes + 1, self.width, name=name)(entry)
    entry = conditions.as_given(one, entry)
    rows = entry.mask.reshape(entry.mask.shape + (1,) * len(one.shape))
    rows = rows[..., 0] if one.kind == "sequence" else rows
    value = jnp.where(rows, entry.value, 0.0)
    value = jnp.broadcast_to(value, (num, *one.shape)).reshape(num, -1)
    said = jnp.broadcast_to(
      entry.mask.reshape(len(entry.mask), -1)
      if entry.mask.ndim
      else entry.mask,
      (num, 3 if one.kind == "sequence" else 1),
    )
    told = jnp.concatenate([value, said.astype(value.dtype)], axis=-1)
    return nn.Dense(self.width, name=name)(told)
