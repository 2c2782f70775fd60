"""Plain torch networks: encoders, decoders, critics, and networks of GANs."""

from pyro_mivae.networks.conditional import ConditionalEncoder
from pyro_mivae.networks.conv import ConvDecoder, ConvEncoder, ConvGenerator, ConvTrunk
from pyro_mivae.networks.critics import (
    CRITICS,
    BilinearCritic,
    Critic,
    JointCritic,
    LayeredCritic,
    MutualInfoChain,
    SeparableCritic,
    build_critic,
)
from pyro_mivae.networks.layers import MLPDecoder, MLPEncoder, mlp, output_dim
from pyro_mivae.networks.presets import (
    ADVERSARIAL_NETWORKS,
    NETWORKS,
    Discriminator,
    build_adversarial_networks,
    build_networks,
    default_network,
)
from pyro_mivae.networks.transforms import TRANSFORMS, RandomAffine

__all__ = [
    "ADVERSARIAL_NETWORKS",
    "CRITICS",
    "NETWORKS",
    "TRANSFORMS",
    "BilinearCritic",
    "ConditionalEncoder",
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
    "RandomAffine",
    "SeparableCritic",
    "build_adversarial_networks",
    "build_critic",
    "build_networks",
    "default_network",
    "mlp",
    "output_dim",
]
