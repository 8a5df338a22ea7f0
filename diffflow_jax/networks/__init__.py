"""Networks, in flax.linen. The rest of the library takes any function

    apply(params, z, logsnr, cond) -> output of z's shape

with z (batch, ...), logsnr (batch,); these are ours. `Network.apply` of linen
has this form, with params = network.init(key, z, logsnr, cond).
"""

from diffflow_jax.networks.mlp import MLP
from diffflow_jax.networks.unet import UNet

NETWORKS = {"mlp": MLP, "unet": UNet}
__all__ = ["MLP", "UNet", "NETWORKS"]
