"""Strided convolutions for images of at least 8 x 8, with any number of channels.

For GANs as in Radford, Metz & Chintala (2016), DCGAN, https://arxiv.org/abs/1511.06434.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, flag, shape, size
from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.networks.layers import WIDTHS, BatchNorm1d, BatchNorm2d, Decoder, Encoder

SLOPE = 0.1  # of a leaky ReLU, below 0
IMAGE = {"data_shape": shape(), "channels": WIDTHS, "hidden_dim": size()}


class ConvEncoder(Encoder):
    """Features of an image: 5 x 5 convolutions of stride 2, each halving height and width.

    Args:
        data_shape: Channels, height, width; 8 x 8 pixels or more.
        channels: Feature maps of each convolution.
        hidden_dim: Number of features.
        batch_norm: True to normalise after each convolution.

    Raises:
        ShapeError: If ``data_shape`` is not an image of at least 8 x 8.

    Example:
        >>> ConvEncoder((1, 8, 8), hidden_dim=16)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 16])
    """

    @checked(**IMAGE, batch_norm=flag())
    def __init__(
        self,
        data_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 256,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__(data_shape, data_shape)
        flat = math.prod((channels[-1], *_halvings(data_shape, channels)[-1]))
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((data_shape[0], *channels)):
            layers.append(nn.Conv2d(n_in, n_out, 5, stride=2, padding=2))
            layers += [BatchNorm2d(n_out)] if batch_norm else []
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden_dim), nn.ReLU())


class ConvDecoder(Decoder):
    """Parameters of an image likelihood from a flat code: the reverse of `ConvEncoder`.

    After ``code_dim``, the size of the code, the arguments are those of the encoder, in its order.
    ``num_outputs`` is the number of parameters per pixel and channel, see `Likelihood`.

    Example:
        >>> ConvDecoder(2, (1, 8, 8))(torch.randn(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """

    @checked(code_dim=size(), **IMAGE, batch_norm=flag(), num_outputs=size())
    def __init__(
        self,
        code_dim: int,
        data_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 256,
        *,
        batch_norm: bool = False,
        num_outputs: int = 1,
    ) -> None:
        super().__init__(data_shape, num_outputs)
        sizes, maps = _halvings(data_shape, channels), (data_shape[0] * num_outputs, *channels)
        last = (maps[-1], *sizes[-1])
        self.linear = nn.Sequential(
            nn.Linear(code_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, math.prod(last)),
            nn.ReLU(),
            nn.Unflatten(-1, last),
        )
        layers: list[nn.Module] = []
        for level in range(len(channels), 0, -1):
            n_in, n_out = maps[level], maps[level - 1]
            h, w = (out - (2 * n - 1) for n, out in zip(sizes[level], sizes[level - 1]))
            layers.append(nn.ConvTranspose2d(n_in, n_out, 5, 2, 2, (h, w)))
            if level > 1:
                layers += [BatchNorm2d(n_out)] if batch_norm else []
                layers.append(nn.ReLU())
        layers += [OutputsLast(num_outputs)] if num_outputs > 1 else []
        self.layers = nn.Sequential(*layers)


class OutputsLast(nn.Module):
    """Moves the outputs of each channel from the maps to the last dimension."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.num_outputs = num_outputs

    def forward(self, maps: Tensor) -> Tensor:
        """Takes ``(batch, channels * P, h, w)``, returns ``(batch, channels, h, w, P)``."""
        return maps.unflatten(1, (-1, self.num_outputs)).movedim(2, -1)


class ConvTrunk(Encoder):
    """Features of an image, for a discriminator and other heads.

    4 x 4 convolutions of stride 2 and a linear layer, each with a leaky ReLU. All except the first
    have batch norm.

    The arguments are those of `ConvEncoder`. The number of convolutions is limited by the image's
    size.

    Example:
        >>> ConvTrunk((1, 8, 8), hidden_dim=16)(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 16])
    """

    @checked(**IMAGE)
    def __init__(
        self,
        data_shape: Sequence[int],
        channels: Sequence[int] = (16, 32),
        hidden_dim: int = 128,
    ) -> None:
        super().__init__(data_shape, data_shape)
        flat = math.prod((channels[-1], *_halvings(data_shape, channels, up=False)[-1]))
        layers: list[nn.Module] = []
        for level, (n_in, n_out) in enumerate(pairwise((data_shape[0], *channels))):
            layers.append(nn.Conv2d(n_in, n_out, 4, stride=2, padding=1, bias=not level))
            layers += [BatchNorm2d(n_out)] if level else []
            layers.append(nn.LeakyReLU(SLOPE))
        linear = nn.Linear(flat, hidden_dim, bias=False)
        norm = BatchNorm1d(hidden_dim)
        self.layers = nn.Sequential(*layers, nn.Flatten(), linear, norm, nn.LeakyReLU(SLOPE))


class ConvGenerator(Decoder):
    """An image, before its sigmoid, from a flat code: the reverse of `ConvTrunk`.

    ReLU and batch norm follow every layer except the last.

    After ``code_dim``, the size of the code, the arguments are those of the trunk, in its order.

    Example:
        >>> ConvGenerator(2, (1, 8, 8))(torch.randn(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """

    @checked(code_dim=size(), **IMAGE)
    def __init__(
        self,
        code_dim: int,
        data_shape: Sequence[int],
        channels: Sequence[int] = (16, 32),
        hidden_dim: int = 128,
    ) -> None:
        super().__init__(data_shape)
        sizes, maps = _halvings(data_shape, channels, up=False), (data_shape[0], *channels)
        last = (maps[-1], *sizes[-1])
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((code_dim, hidden_dim, math.prod(last))):
            layers += [nn.Linear(n_in, n_out, bias=False), BatchNorm1d(n_out), nn.ReLU()]
        layers.append(nn.Unflatten(-1, last))
        for level in range(len(channels), 0, -1):
            n_in, n_out, first = maps[level], maps[level - 1], level == 1
            h, w = (out - 2 * n for n, out in zip(sizes[level], sizes[level - 1]))
            layers.append(nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, (h, w), bias=first))
            layers += [] if first else [BatchNorm2d(n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)


def is_image(data_shape: Sequence[int]) -> bool:
    """Returns True if data are images of at least 8 x 8."""
    return len(data_shape) == 3 and min(data_shape[1:]) >= 8


def _halvings(
    data_shape: Sequence[int], channels: Sequence[int], *, up: bool = True
) -> list[torch.Size]:
    """Returns height and width before and after each convolution; odd lengths round up or down."""
    if not is_image(data_shape):
        raise ShapeError(
            f"data_shape={tuple(data_shape)}: convolutions need (channels, height, width) of at "
            "least 8 x 8; use MLPEncoder and MLPDecoder for other data"
        )
    sizes = [torch.Size(data_shape[1:])]
    for _ in channels:
        sizes.append(torch.Size((n + up) // 2 for n in sizes[-1]))
    if min(sizes[-1]) < 1:
        raise OptionError(
            f"{len(channels)} convolutions of stride 2 leave no pixel of data_shape "
            f"{tuple(data_shape)}; give fewer channels"
        )
    return sizes
