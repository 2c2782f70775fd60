"""Plain torch networks: encoders to features, decoders from codes."""

from pyro_mivae.networks.conv import ConvDecoder, ConvEncoder
from pyro_mivae.networks.mlp import MLPDecoder, MLPEncoder, mlp
from pyro_mivae.networks.presets import NETWORKS, build_networks, default_network, output_dim

__all__ = [
    "NETWORKS",
    "ConvDecoder",
    "ConvEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "build_networks",
    "default_network",
    "mlp",
    "output_dim",
]
