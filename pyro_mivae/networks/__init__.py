"""Plain torch networks: encoders to features, decoders from codes, critics of both."""

from pyro_mivae.networks.conv import ConvDecoder, ConvEncoder
from pyro_mivae.networks.critics import (
    CRITICS,
    BilinearCritic,
    JointCritic,
    MutualInfoChain,
    SeparableCritic,
    build_critic,
)
from pyro_mivae.networks.mlp import MLPDecoder, MLPEncoder, mlp
from pyro_mivae.networks.pairs import Critic, LayeredCritic
from pyro_mivae.networks.presets import NETWORKS, build_networks, default_network, output_dim

__all__ = [
    "CRITICS",
    "NETWORKS",
    "BilinearCritic",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "JointCritic",
    "LayeredCritic",
    "MLPDecoder",
    "MLPEncoder",
    "MutualInfoChain",
    "SeparableCritic",
    "build_critic",
    "build_networks",
    "default_network",
    "mlp",
    "output_dim",
]
