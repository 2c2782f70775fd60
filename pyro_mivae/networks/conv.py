"""Strided convolutions for images of any size from 8 x 8 up and any number of channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, flag, shape, size
from pyro_mivae.errors import ShapeError
from pyro_mivae.networks.checks import WIDTHS, check_data_shape
from pyro_mivae.networks.norm import BatchNorm2d

KERNEL = 5


class ConvEncoder(nn.Module):
    """Features of an image: 5 x 5 convolutions of stride 2, each halving height and width.

    Args:
        data_shape: Channels, height, width; 8 x 8 pixels or more.
        channels: Feature maps of each convolution.
        hidden_dim: Number of features.
        batch_norm: Whether to normalise after each convolution.

    Raises:
        OptionError: If there is no convolution.
        ShapeError: If ``data_shape`` is not that of an image of at least 8 x 8.
    """

    @checked(data_shape=shape(), channels=WIDTHS, hidden_dim=size(), batch_norm=flag())
    def __init__(
        self,
        data_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 256,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        sizes = halvings(self.data_shape, len(channels))
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((self.data_shape[0], *channels)):
            layers.append(nn.Conv2d(n_in, n_out, KERNEL, stride=2, padding=KERNEL // 2))
            layers += [BatchNorm2d(n_out)] if batch_norm else []
            layers.append(nn.ReLU())
        flat = channels[-1] * sizes[-1][0] * sizes[-1][1]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden_dim), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Encodes images.

        Args:
            x: Shape ``(..., *data_shape)``.

        Returns:
            Features, shape ``(..., hidden_dim)``.

        Raises:
            ShapeError: If ``x`` does not end in ``data_shape``.
        """
        check_data_shape(x, self.data_shape)
        features: Tensor = self.layers(x.reshape(-1, *self.data_shape))
        return features.reshape(*x.shape[:-3], features.shape[-1])


class ConvDecoder(nn.Module):
    """Parameters of an image likelihood from a flat code: the mirror of `ConvEncoder`.

    Args:
        code_dim: Size of the code.
        data_shape: Channels, height, width; 8 x 8 pixels or more.
        channels: Feature maps of the encoder's convolutions, in its order.
        hidden_dim: Width of the linear layer before the first transposed convolution.
        batch_norm: Whether to normalise before each activation but the output's.

    Raises:
        OptionError: If there is no convolution.
        ShapeError: If ``data_shape`` is not that of an image of at least 8 x 8.
    """

    @checked(
        code_dim=size(),
        data_shape=shape(),
        channels=WIDTHS,
        hidden_dim=size(),
        batch_norm=flag(),
    )
    def __init__(
        self,
        code_dim: int,
        data_shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        hidden_dim: int = 256,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        sizes = halvings(self.data_shape, len(channels))
        maps = (self.data_shape[0], *channels)
        flat = (maps[-1], *sizes[-1])
        self.linear = nn.Sequential(
            nn.Linear(code_dim, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, maps[-1] * sizes[-1][0] * sizes[-1][1]),
            nn.ReLU(),
            nn.Unflatten(-1, flat),
        )
        layers: list[nn.Module] = []
        for level in range(len(channels), 0, -1):
            (h, w), (h_out, w_out) = sizes[level], sizes[level - 1]
            padding = (h_out - (2 * h - 1), w_out - (2 * w - 1))
            layers.append(
                nn.ConvTranspose2d(
                    maps[level], maps[level - 1], KERNEL, 2, KERNEL // 2, output_padding=padding
                )
            )
            if level > 1:
                layers += [BatchNorm2d(maps[level - 1])] if batch_norm else []
                layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, code: Tensor) -> Tensor:
        """Decodes codes.

        Args:
            code: Shape ``(..., code_dim)``.

        Returns:
            Shape ``(..., *data_shape)``.
        """
        decoded: Tensor = self.layers(self.linear(code.reshape(-1, code.shape[-1])))
        return decoded.reshape(*code.shape[:-1], *self.data_shape)


def halvings(data_shape: Sequence[int], levels: int) -> list[torch.Size]:
    """Returns height and width before and after each of a number of stride-2 convolutions."""
    if len(data_shape) != 3 or min(data_shape[1:]) < 8:
        raise ShapeError(
            f"data_shape={tuple(data_shape)}: convolutions need (channels, height, width) of at "
            "least 8 x 8; use MLPEncoder and MLPDecoder for other data"
        )
    sizes = [torch.Size(data_shape[1:])]
    for _ in range(levels):
        sizes.append(torch.Size((n + 1) // 2 for n in sizes[-1]))
    return sizes
