"""Networks, in flax.linen. The rest of the library takes any function

    apply(params, z, logsnr, cond) -> output of z's shape

with z (batch, ...), logsnr (batch,); these are ours. `Network.apply` of linen
has this form, with params = network.init(key, z, logsnr, cond).
"""

import functools

import jax
import jax.numpy as jnp

from diffflow_jax.networks import dit
from diffflow_jax.networks.dit import DiT
from diffflow_jax.networks.mlp import MLP
from diffflow_jax.networks.unet import UNet

NETWORKS = {"mlp": MLP, "unet": UNet, "dit": DiT}
NETWORKS |= {
  f"dit_{size}": functools.partial(DiT, **shape)
  for size, shape in dit.SIZES.items()
}
__all__ = ["DiT", "MLP", "UNet", "NETWORKS", "count", "tabulate"]


def count(params):
  """The number of parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def tabulate(network, shape):
  """A table of a network's layers as text, without making its parameters.

  Args:
    network: one of these; shape: of one example, without the batch.
  """
  cond = jnp.zeros(1, jnp.int32) if network.num_classes else None
  return network.tabulate(
    jax.random.key(0),
    jnp.zeros((1, *shape)),
    jnp.zeros(1),
    cond,
    depth=2,
    console_kwargs=dict(width=130, force_terminal=False),
  )
