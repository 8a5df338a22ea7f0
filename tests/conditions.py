"""Data and a network of every kind of condition, and a config of both."""

from flax import nnx
import flax.linen as nn
import jax.numpy as jnp
import ml_collections
import numpy as np

from diffflow_jax import data
from diffflow_jax.process import conditions

NUM, SIDE, LENGTH = 48, 4, 3


def arrays(num=NUM, seed=0, **settings):
  """Images with a label, a vector, a sequence with a mask and a small image."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=(num, *shape)).astype(np.float32)
  said = np.arange(LENGTH) < rng.integers(0, LENGTH + 1, num)[:, None]
  given = {
    "power": normal(2),
    "text": (normal(LENGTH, 5), said),
    "small": rng.integers(0, 256, (num, 2, 2, 1), np.uint8),
  }
  x = np.clip(normal(SIDE, SIDE, 1), -3, 3)
  labels = rng.permutation(np.arange(num) % 3)
  return data.Arrays(x, labels, **({"given": given} | settings))


class Net(nn.Module):
  """A few products: every number of every condition reaches the output."""

  num_classes: int = 0
  conditions: object = None
  dropout: float = 0.0
  width: int = 8

  @nn.compact
  def __call__(self, z, logsnr, cond=None):
    h = nn.Dense(self.width)(jnp.tanh(logsnr)[:, None])
    for name, one in (self.conditions or {}).items():
      if one.kind == "label":
        h = h + nn.Embed(one.num_classes + 1, self.width)(cond[name])
        continue
      entry = conditions.as_given(one, cond[name])
      mask = entry.mask.reshape(entry.mask.shape + (1,) * len(one.shape))
      mask = mask[..., 0] if one.kind == "sequence" else mask
      told = [jnp.where(mask, entry.value, 0.0), entry.mask.astype(z.dtype)]
      told = [a.reshape(len(z), -1) for a in told]
      h = h + nn.Dense(self.width, name=name)(jnp.concatenate(told, axis=1))
    active = self.has_rng("dropout")
    h = nn.Dropout(self.dropout, deterministic=not active)(h)
    return nn.Dense(z[0].size)(h).reshape(z.shape) + nn.Dense(1)(z)


class OfNnx(nnx.Module):
  """The same of a label and a vector, as an nnx module."""

  def __init__(self, num_classes, conditions, *, rngs):
    self.told = nnx.Linear(conditions["power"].shape[0], 1, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, z, logsnr, cond=None):
    power = self.dropout(self.told(cond["power"].value))
    return z + power[:, :, None, None]


def config(**changes):
  """A few steps of Net on these data."""
  made = ml_collections.ConfigDict(
    dict(
      seed=0,
      num_steps=4,
      batch_size=8,
      dataset=dict(name="tests.conditions:arrays"),
      held_out=dict(num=6),
      objective=dict(name="flow_matching"),
      network=dict(name="tests.conditions:Net", dropout=0.1),
      optimizer=dict(name="adam"),
      learning_rate=1e-2,
      clip_norm=1.0,
      ema=dict(name="exponential", decay=0.9),
      label_dropout=0.1,
      conditions=dict(
        power=dict(dropout=0.2), text=dict(dropout=0.3, null="zero")
      ),
      drop_all=0.1,
      mesh=dict(data=-1, fsdp=1),
      accumulation=2,
      steps_per_dispatch=2,
      log_every=2,
      sample_every=4,
      checkpoint_every=2,
      keep=dict(latest=2, every=0, best=0),
      snapshot_every=0,
      sampler=dict(
        solver="ddim",
        grid="uniform_cosine",
        num_steps=2,
        guidance=1.5,
        num_samples=8,
      ),
    )
  )
  with made.ignore_type():
    for key, value in changes.items():
      made[key] = value
  return made
