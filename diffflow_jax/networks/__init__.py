"""Networks, in flax.linen. The rest of the library takes any function

    apply(params, z, logsnr, cond) -> output of z's shape

with z (batch, ...), logsnr (batch,); these are ours. `Network.apply` of linen
has this form, with params = network.init(key, z, logsnr, cond).

logsnr may be -inf, pure noise, or inf, data: the exact ends of a schedule. A
network of one's own takes `logsnr_features(logsnr, dim)`, or any function that
is bounded there, as tanh(logsnr / 4). cond is None, labels, or a dict, as
`process.conditions` has it; ours take it as `networks.told` says. `from_nnx`
gives the modules of flax.nnx this form.

A network with the attribute destination = True is a flow map's,

    apply(params, z, logsnr, cond, to) -> output of z's shape

with to (batch,) the log-SNR that it goes to, of which the same holds; ours have
it as a setting. At to = logsnr, or None, they are the same network without it.
"""

import functools

import jax
import jax.numpy as jnp

from diffflow_jax.networks import dit, told
from diffflow_jax.networks.dit import DiT
from diffflow_jax.networks.embeddings import logsnr_features
from diffflow_jax.networks.mlp import MLP
from diffflow_jax.networks.unet import UNet
from diffflow_jax.process.conditions import zeros

_OF_NNX = ("adapted", "from_nnx")  # flax.nnx is imported where it is used

NETWORKS = {"mlp": MLP, "unet": UNet, "dit": DiT}
NETWORKS |= {
  f"dit_{size}": functools.partial(DiT, **shape)
  for size, shape in dit.SIZES.items()
}
__all__ = [
  "DiT",
  "MLP",
  "UNet",
  "NETWORKS",
  *_OF_NNX,
  "count",
  "logsnr_features",
  "tabulate",
]


def __getattr__(name):
  if name in _OF_NNX:
    from diffflow_jax.networks import nnx_modules

    return getattr(nnx_modules, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def count(params):
  """The number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def tabulate(network, shape):
  """A table of a network's layers as text, without making its parameters.

  Args:
    network: one of these; shape: of one example, without the batch.
  """
  named = told.named(getattr(network, "conditions", None))
  labels = getattr(network, "num_classes", 0)
  cond = jnp.zeros(1, jnp.int32) if labels else None
  return network.tabulate(
    jax.random.key(0),
    jnp.zeros((1, *shape)),
    jnp.zeros(1),
    zeros(named, 1) if named else cond,
    depth=2,
    console_kwargs=dict(width=130, force_terminal=False),
  )
