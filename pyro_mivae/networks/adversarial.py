"""Generators and discriminators: strided convolutions of 4 x 4, batch norm, leaky ReLU.

Radford, Metz & Chintala (2016), Unsupervised Representation Learning with DCGANs,
https://arxiv.org/abs/1511.06434; Chen et al. (2016), InfoGAN, appendix C.1,
https://arxiv.org/abs/1606.03657.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, choice, shape, size
from pyro_mivae.errors import OptionError
from pyro_mivae.networks.checks import NETWORK, WIDTHS, check_data_shape
from pyro_mivae.networks.conv import halvings
from pyro_mivae.networks.mlp import MLPDecoder, MLPEncoder
from pyro_mivae.networks.norm import BatchNorm1d, BatchNorm2d
from pyro_mivae.networks.presets import mlp_widths

KERNEL = 4
SLOPE = 0.1  # of a leaky ReLU, below 0
PAPER = ((64, 128), 1024)
HALF = ((32, 64), 256)
NARROW = ((16, 32), 128)
SMALL = 256  # values of an image up to which a CPU trains more than the narrow preset in minutes


class ConvTrunk(nn.Module):
    """Features of an image, for a discriminator and what else stands on them.

    4 x 4 convolutions of stride 2 and a linear layer, each with a leaky ReLU, all but the first
    normalised by the batch.

    Args:
        data_shape: Channels, height, width; 8 x 8 pixels or more.
        channels: Feature maps of each convolution.
        hidden_dim: Number of features.

    Raises:
        OptionError: If there is no convolution, or more than the image has room for.
        ShapeError: If ``data_shape`` is not that of an image of at least 8 x 8.
    """

    @checked(data_shape=shape(), channels=WIDTHS, hidden_dim=size())
    def __init__(
        self,
        data_shape: Sequence[int],
        channels: Sequence[int] = NARROW[0],
        hidden_dim: int = NARROW[1],
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        height, width = _sizes(self.data_shape, len(channels))[-1]
        layers: list[nn.Module] = []
        for level, (n_in, n_out) in enumerate(pairwise((self.data_shape[0], *channels))):
            layers.append(nn.Conv2d(n_in, n_out, KERNEL, stride=2, padding=1, bias=not level))
            layers += [BatchNorm2d(n_out)] if level else []
            layers.append(nn.LeakyReLU(SLOPE))
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels[-1] * height * width, hidden_dim, bias=False),
            BatchNorm1d(hidden_dim),
            nn.LeakyReLU(SLOPE),
        )

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


class ConvGenerator(nn.Module):
    """An image, before its sigmoid, from a flat code: the mirror of `ConvTrunk`.

    ReLU and batch norm after every layer but the last.

    Args:
        code_dim: Size of the code.
        data_shape: Channels, height, width; 8 x 8 pixels or more.
        channels: Feature maps of the trunk's convolutions, in its order.
        hidden_dim: Width of the first linear layer.

    Raises:
        OptionError: If there is no convolution, or more than the image has room for.
        ShapeError: If ``data_shape`` is not that of an image of at least 8 x 8.
    """

    @checked(code_dim=size(), data_shape=shape(), channels=WIDTHS, hidden_dim=size())
    def __init__(
        self,
        code_dim: int,
        data_shape: Sequence[int],
        channels: Sequence[int] = NARROW[0],
        hidden_dim: int = NARROW[1],
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        sizes = _sizes(self.data_shape, len(channels))
        maps = (self.data_shape[0], *channels)
        flat = maps[-1] * sizes[-1][0] * sizes[-1][1]
        layers: list[nn.Module] = []
        for n_in, n_out in ((code_dim, hidden_dim), (hidden_dim, flat)):
            layers += [nn.Linear(n_in, n_out, bias=False), BatchNorm1d(n_out), nn.ReLU()]
        layers.append(nn.Unflatten(-1, (maps[-1], *sizes[-1])))
        for level in range(len(channels), 0, -1):
            (h, w), (h_out, w_out) = sizes[level], sizes[level - 1]
            layers.append(
                nn.ConvTranspose2d(
                    maps[level],
                    maps[level - 1],
                    KERNEL,
                    stride=2,
                    padding=1,
                    output_padding=(h_out - 2 * h, w_out - 2 * w),
                    bias=level == 1,
                )
            )
            if level > 1:
                layers += [BatchNorm2d(maps[level - 1]), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, code: Tensor) -> Tensor:
        """Decodes codes.

        Args:
            code: Shape ``(..., code_dim)``.

        Returns:
            Shape ``(..., *data_shape)``.
        """
        decoded: Tensor = self.layers(code.reshape(-1, code.shape[-1]))
        return decoded.reshape(*code.shape[:-1], *self.data_shape)


class Discriminator(nn.Module):
    """Tells data from what is generated.

    Args:
        trunk: From ``(batch, *data_shape)`` to features; it may serve others as well.
        in_features: Number of features.
    """

    @checked(trunk=NETWORK, in_features=size())
    def __init__(self, trunk: nn.Module, in_features: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(in_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Judges data.

        Args:
            x: Shape ``(batch, *data_shape)``.

        Returns:
            Log-odds of being data, shape ``(batch,)``.
        """
        logits: Tensor = self.head(self.trunk(x)).squeeze(-1)
        return logits


def _mlp_pair(data_shape: Sequence[int], code_dim: int) -> tuple[nn.Module, nn.Module]:
    """Two hidden layers: 256 and 256 up to 256 values per datum, else 400 and 400."""
    widths = mlp_widths(data_shape)
    leaky = partial(nn.LeakyReLU, SLOPE)
    return (
        MLPEncoder(data_shape, widths, leaky, batch_norm=True),
        MLPDecoder(code_dim, data_shape, widths[::-1], batch_norm=True),
    )


def _narrow_pair(data_shape: Sequence[int], code_dim: int) -> tuple[nn.Module, nn.Module]:
    """4 × 4 convolutions of stride 2, of 16 and 32 maps; 128 features."""
    return ConvTrunk(data_shape, *NARROW), ConvGenerator(code_dim, data_shape, *NARROW)


def _half_pair(data_shape: Sequence[int], code_dim: int) -> tuple[nn.Module, nn.Module]:
    """4 × 4 convolutions of stride 2, of 32 and 64 maps; 256 features."""
    return ConvTrunk(data_shape, *HALF), ConvGenerator(code_dim, data_shape, *HALF)


def _paper_pair(data_shape: Sequence[int], code_dim: int) -> tuple[nn.Module, nn.Module]:
    """4 × 4 convolutions of stride 2, of 64 and 128 maps; 1024 features: the paper's."""
    return ConvTrunk(data_shape, *PAPER), ConvGenerator(code_dim, data_shape, *PAPER)


ADVERSARIAL_NETWORKS: dict[str, Callable[[Sequence[int], int], tuple[nn.Module, nn.Module]]] = {
    "mlp": _mlp_pair,
    "conv-narrow": _narrow_pair,
    "conv-half": _half_pair,
    "conv": _paper_pair,
}


@checked(kind=choice("auto", *ADVERSARIAL_NETWORKS), data_shape=shape(), code_dim=size())
def build_adversarial_networks(
    kind: str, data_shape: Sequence[int], code_dim: int
) -> tuple[nn.Module, nn.Module]:
    """Builds a discriminator's trunk and a generator.

    ``"conv"``: InfoGAN's for MNIST, 64 and 128 maps and 1024 features. ``"conv-half"``: 32, 64
    and 256. ``"conv-narrow"``: 16, 32 and 128, for a CPU. ``"mlp"``: two hidden layers.

    Args:
        kind: A key of `ADVERSARIAL_NETWORKS`, or ``"auto"``: ``"conv-half"`` for images of 8 x 8
            pixels or more and up to 256 values, ``"conv-narrow"`` for larger ones, ``"mlp"`` for
            everything else.
        data_shape: Shape of one datum.
        code_dim: Size of the code that the generator takes.

    Returns:
        The trunk, from ``(..., *data_shape)`` to features, and the generator, from
        ``(..., code_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If there is no such preset.
        ShapeError: If the data are no images of at least 8 x 8 and the preset convolves.
    """
    if kind == "auto":
        is_image = len(data_shape) == 3 and min(data_shape[1:]) >= 8
        conv = "conv-half" if math.prod(data_shape) <= SMALL else "conv-narrow"
        kind = conv if is_image else "mlp"
    return ADVERSARIAL_NETWORKS[kind](data_shape, code_dim)


def _sizes(data_shape: Sequence[int], levels: int) -> list[torch.Size]:
    """Height and width before and after each convolution; odd lengths round down."""
    halvings(data_shape, levels)  # checks the shape
    sizes = [torch.Size(n // 2**level for n in data_shape[1:]) for level in range(levels + 1)]
    if min(sizes[-1]) < 1:
        raise OptionError(
            f"{levels} convolutions of stride 2 leave no pixel of data_shape {tuple(data_shape)}; "
            "give fewer channels"
        )
    return sizes
