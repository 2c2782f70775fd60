"""Plain torch networks: encoders, decoders, critics of both, and those of GANs."""

from pyro_mivae.networks.adversarial import (
    ADVERSARIAL_NETWORKS,
    ConvGenerator,
    ConvTrunk,
    Discriminator,
    build_adversarial_networks,
)
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
    "ADVERSARIAL_NETWORKS",
    "CRITICS",
    "NETWORKS",
    "BilinearCritic",
    "ConvDecoder",
    "ConvEncoder",
    "ConvGenerator",
    "ConvTrunk",
    "Critic",
    "Discriminator",
    "JointCritic",
    "LayeredCritic",
    "MLPDecoder",
    "MLPEncoder",
    "MutualInfoChain",
    "SeparableCritic",
    "build_adversarial_networks",
    "build_critic",
    "build_networks",
    "default_network",
    "mlp",
    "output_dim",
]
