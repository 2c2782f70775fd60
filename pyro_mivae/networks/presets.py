"""Encoders and decoders by name, for ELBOs and for adversarial objectives.

Chen et al. (2016), InfoGAN, appendix C.1, https://arxiv.org/abs/1606.03657.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from pyro_mivae.arguments import checked, choice, flag, shape, size
from pyro_mivae.networks.conv import (
    SLOPE,
    ConvDecoder,
    ConvEncoder,
    ConvGenerator,
    ConvTrunk,
    is_image,
)
from pyro_mivae.networks.layers import NETWORK, MLPDecoder, MLPEncoder

Pair = tuple[nn.Module, nn.Module]
DEEP = (64, 128, 256)
SMALL = 256  # values of an image up to which a CPU trains more than the narrow preset in minutes


@checked(data_shape=shape())
def default_network(data_shape: Sequence[int]) -> str:
    """Returns the default preset, a key of `NETWORKS`, for data of a shape.

    ``"conv"`` for images of more than 32 x 32 values (channels included), ``"mlp"`` otherwise.

    Example:
        >>> default_network((1, 28, 28)), default_network((3, 32, 32)), default_network((2000,))
        ('mlp', 'conv', 'mlp')
    """
    return "conv" if is_image(data_shape) and math.prod(data_shape) > 1024 else "mlp"


def _mlp_widths(data_shape: Sequence[int]) -> tuple[int, int]:
    return (256, 256) if math.prod(data_shape) <= 256 else (400, 400)


def _mlp_pair(data_shape: Sequence[int], code_dim: int, batch_norm: bool, outputs: int) -> Pair:
    """Two hidden layers, for any data: 256 units up to 256 values per datum, else 400."""
    widths = _mlp_widths(data_shape)
    encoder = MLPEncoder(data_shape, widths, batch_norm=batch_norm)
    return encoder, MLPDecoder(code_dim, data_shape, widths, num_outputs=outputs)


def _conv_pair(data_shape: Sequence[int], code_dim: int, batch_norm: bool, outputs: int) -> Pair:
    """Two 5 × 5 convolutions of stride 2, for images: 32 and 64 maps."""
    encoder = ConvEncoder(data_shape, batch_norm=batch_norm)
    return encoder, ConvDecoder(code_dim, data_shape, num_outputs=outputs)


def _deep_conv_pair(
    data_shape: Sequence[int], code_dim: int, batch_norm: bool, outputs: int
) -> Pair:
    """Three 5 × 5 convolutions with batch norm, for images from 32 × 32: 64, 128 and 256 maps."""
    return (
        ConvEncoder(data_shape, DEEP, batch_norm=batch_norm),
        ConvDecoder(code_dim, data_shape, DEEP, batch_norm=batch_norm, num_outputs=outputs),
    )


NETWORKS: dict[str, Callable[[Sequence[int], int, bool, int], Pair]] = {
    "mlp": _mlp_pair,
    "conv": _conv_pair,
    "conv-deep": _deep_conv_pair,
}


@checked(
    kind=choice("auto", *NETWORKS),
    data_shape=shape(),
    code_dim=size(),
    batch_norm=flag(),
    num_outputs=size(),
)
def build_networks(
    kind: str,
    data_shape: Sequence[int],
    code_dim: int,
    *,
    batch_norm: bool = True,
    num_outputs: int = 1,
) -> Pair:
    """Builds an encoder and its decoder.

    Args:
        kind: A key of `NETWORKS`, or ``"auto"`` for `default_network`. The function behind each
            key describes its networks.
        data_shape: Shape of one datum.
        code_dim: Size of the code that the decoder takes.
        batch_norm: True for batch norm in every encoder, and in the decoder of ``"conv-deep"``.
        num_outputs: Outputs of the decoder per element of a datum, see `Likelihood`.

    Returns:
        The encoder, from ``(..., *data_shape)`` to features, and the decoder, from
        ``(..., code_dim)`` to ``(..., *data_shape)``, or to ``(..., *data_shape, num_outputs)``
        if there are two outputs or more.

    Raises:
        ShapeError: If the preset convolves and the data are not images of at least 8 x 8.

    Example:
        >>> encoder, decoder = build_networks("auto", (1, 8, 8), code_dim=2)
        >>> decoder(torch.randn(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """
    kind = default_network(data_shape) if kind == "auto" else kind
    return NETWORKS[kind](data_shape, code_dim, batch_norm, num_outputs)


class Discriminator(nn.Module):
    """Classifies real and generated data.

    Args:
        trunk: From ``(batch, *data_shape)`` to features; it may be shared with other networks.
        in_features: Number of features.

    Example:
        >>> trunk = mi.networks.ConvTrunk((1, 8, 8), hidden_dim=16)
        >>> Discriminator(trunk, 16)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """

    @checked(trunk=NETWORK, in_features=size())
    def __init__(self, trunk: nn.Module, in_features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(in_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the log-odds of real data, shape ``(batch,)``."""
        return self.head(self.trunk(x)).squeeze(-1)


def _leaky_mlp_pair(data_shape: Sequence[int], code_dim: int) -> Pair:
    """Two hidden layers, for any data: 256 units up to 256 values per datum, else 400."""
    widths, leaky = _mlp_widths(data_shape), partial(nn.LeakyReLU, SLOPE)
    encoder = MLPEncoder(data_shape, widths, leaky, batch_norm=True)
    return encoder, MLPDecoder(code_dim, data_shape, widths, batch_norm=True)


def _conv_gan(first: int, features: int, source: str = "") -> Callable[[Sequence[int], int], Pair]:
    maps = (first, 2 * first)

    def build(data_shape: Sequence[int], code_dim: int) -> Pair:
        trunk = ConvTrunk(data_shape, maps, features)
        return trunk, ConvGenerator(code_dim, data_shape, maps, features)

    told = f"4 × 4 convolutions of stride 2, of {maps[0]} and {maps[1]} maps; {features} features"
    build.__doc__ = told + source
    return build


ADVERSARIAL_NETWORKS: dict[str, Callable[[Sequence[int], int], Pair]] = {
    "mlp": _leaky_mlp_pair,
    "conv-narrow": _conv_gan(16, 128),
    "conv-half": _conv_gan(32, 256),
    "conv": _conv_gan(64, 1024, ": the paper's"),
}


@checked(kind=choice("auto", *ADVERSARIAL_NETWORKS), data_shape=shape(), code_dim=size())
def build_adversarial_networks(kind: str, data_shape: Sequence[int], code_dim: int) -> Pair:
    """Builds a discriminator's trunk and a generator, see `build_networks`.

    ``kind`` is a key of `ADVERSARIAL_NETWORKS`, or ``"auto"``: ``"conv-half"`` for images of 8 x 8
    pixels or more and up to 256 values, ``"conv-narrow"`` for larger ones, ``"mlp"`` otherwise.

    Example:
        >>> trunk, generator = build_adversarial_networks("auto", (1, 8, 8), code_dim=6)
        >>> generator(torch.randn(5, 6)).shape
        torch.Size([5, 1, 8, 8])
    """
    if kind == "auto":
        conv = "conv-half" if math.prod(data_shape) <= SMALL else "conv-narrow"
        kind = conv if is_image(data_shape) else "mlp"
    return ADVERSARIAL_NETWORKS[kind](data_shape, code_dim)
