"""Encoders and decoders by name, and which is the default for which data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, choice, flag, shape, size
from pyro_mivae.networks.checks import NETWORK
from pyro_mivae.networks.conv import ConvDecoder, ConvEncoder
from pyro_mivae.networks.mlp import MLPDecoder, MLPEncoder

CONV_CHANNELS = (64, 128, 256)


@checked(data_shape=shape())
def default_network(data_shape: Sequence[int]) -> str:
    """Tells which preset is the default for data of a shape.

    ``"conv"`` for images of more than 32 x 32 values (channels included), ``"mlp"`` for
    everything else.

    Args:
        data_shape: Shape of one datum.

    Returns:
        A key of `NETWORKS`.

    Example:
        >>> default_network((1, 28, 28)), default_network((3, 32, 32)), default_network((2000,))
        ('mlp', 'conv', 'mlp')
    """
    is_image = len(data_shape) == 3 and min(data_shape[1:]) >= 8
    return "conv" if is_image and math.prod(data_shape) > 1024 else "mlp"


def mlp_widths(data_shape: Sequence[int]) -> tuple[int, int]:
    """Returns the widths of the ``"mlp"`` preset: 256-256 up to 256 values, else 400-400."""
    return (256, 256) if math.prod(data_shape) <= 256 else (400, 400)


Pair = tuple[nn.Module, nn.Module]


def _mlp_pair(data_shape: Sequence[int], code_dim: int, batch_norm: bool) -> Pair:
    """Two hidden layers: 256 and 256 up to 256 values per datum, else 400 and 400."""
    widths = mlp_widths(data_shape)
    encoder = MLPEncoder(data_shape, widths, batch_norm=batch_norm)
    return encoder, MLPDecoder(code_dim, data_shape, widths[::-1])


def _conv_pair(data_shape: Sequence[int], code_dim: int, batch_norm: bool) -> Pair:
    """5 × 5 convolutions of stride 2, of 32 and 64 maps."""
    return ConvEncoder(data_shape, batch_norm=batch_norm), ConvDecoder(code_dim, data_shape)


def _deep_conv_pair(data_shape: Sequence[int], code_dim: int, batch_norm: bool) -> Pair:
    """5 × 5 convolutions of stride 2, of 64, 128 and 256 maps, normalised by the batch."""
    return (
        ConvEncoder(data_shape, CONV_CHANNELS, batch_norm=batch_norm),
        ConvDecoder(code_dim, data_shape, CONV_CHANNELS, batch_norm=batch_norm),
    )


NETWORKS: dict[str, Callable[[Sequence[int], int, bool], Pair]] = {
    "mlp": _mlp_pair,
    "conv": _conv_pair,
    "conv-deep": _deep_conv_pair,
}


@checked(kind=choice("auto", *NETWORKS), data_shape=shape(), code_dim=size(), batch_norm=flag())
def build_networks(
    kind: str, data_shape: Sequence[int], code_dim: int, *, batch_norm: bool = True
) -> Pair:
    """Builds an encoder and its decoder.

    ``"mlp"``: two hidden layers. ``"conv"``: 5 x 5 convolutions of stride 2 with 32 and 64 maps.
    ``"conv-deep"``: 64, 128 and 256 maps, as InfomaxVAE's reference. Every encoder normalises by
    the batch, of the decoders that of ``"conv-deep"``.

    Args:
        kind: A key of `NETWORKS`, or ``"auto"`` for `default_network`.
        data_shape: Shape of one datum.
        code_dim: Size of the code that the decoder takes.
        batch_norm: Whether to normalise by the batch, as said above; never if False.

    Returns:
        The encoder, from ``(..., *data_shape)`` to features, and the decoder, from
        ``(..., code_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If there is no such preset.
        ShapeError: If the data are no images of at least 8 x 8 and the preset convolves.
    """
    if kind == "auto":
        kind = default_network(data_shape)
    return NETWORKS[kind](data_shape, code_dim, batch_norm)


@checked(encoder=NETWORK, data_shape=shape())
def output_dim(encoder: nn.Module, data_shape: Sequence[int]) -> int:
    """Returns how many features an encoder gives, by encoding one blank datum.

    Args:
        encoder: From ``(batch, *data_shape)`` to ``(batch, features)``.
        data_shape: Shape of one datum.

    Returns:
        The number of features.
    """
    training = encoder.training
    example = next(encoder.parameters(), torch.zeros(()))
    linear = [layer for layer in encoder.modules() if isinstance(layer, nn.Linear)]
    if example.is_meta and linear:  # a first operation on the meta device takes seconds of imports
        return linear[-1].out_features
    with torch.no_grad():
        features: Tensor = encoder.eval()(example.new_zeros(1, *data_shape))
    encoder.train(training)
    return features.shape[-1]
