"""Multilayer perceptrons between data of any shape and a flat code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_mivae.errors import OptionError, ShapeError
from pyro_mivae.networks.norm import BatchNorm1d


def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Builds linear layers with an activation after each but the last.

    Args:
        sizes: Width of the input, of each hidden layer, and of the output.
        activation: Builds an activation.
        batch_norm: Whether to normalise before each activation, in place of a bias.

    Returns:
        A network from ``(..., sizes[0])`` to ``(..., sizes[-1])``; with batch norm from
        ``(batch, sizes[0])``.

    Raises:
        OptionError: If a width is under 1 or fewer than two are given.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise OptionError(f"sizes {tuple(sizes)}: give two or more widths of at least 1")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes[:-1]):
        layers.append(nn.Linear(n_in, n_out, bias=not batch_norm))
        layers += [BatchNorm1d(n_out)] if batch_norm else []
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class MLPEncoder(nn.Module):
    """Features of data of any shape: linear layers, each followed by an activation.

    Args:
        data_shape: Shape of one datum.
        hidden_dims: Width of each layer; the last is the number of features.
        activation: Builds an activation.
        batch_norm: Whether to normalise before each activation.

    Raises:
        OptionError: If there is no layer, or a width is under 1.
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        hidden_dims: Sequence[int] = (400,),
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        if not hidden_dims or min(hidden_dims) < 1:
            raise OptionError(f"hidden_dims {tuple(hidden_dims)}: give widths of at least 1")
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((math.prod(self.data_shape), *hidden_dims)):
            layers.append(nn.Linear(n_in, n_out))
            layers += [BatchNorm1d(n_out)] if batch_norm else []
            layers.append(activation())
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes data.

        Args:
            x: Shape ``(..., *data_shape)``.

        Returns:
            Features, shape ``(..., hidden_dims[-1])``.

        Raises:
            ShapeError: If ``x`` does not end in ``data_shape``.
        """
        check_data_shape(x, self.data_shape)
        batch_shape = x.shape[: x.dim() - len(self.data_shape)]
        features: Tensor = self.layers(x.reshape(-1, math.prod(self.data_shape)))
        return features.reshape(*batch_shape, -1)


class MLPDecoder(nn.Module):
    """Parameters of a likelihood from a flat code.

    Args:
        code_dim: Size of the code.
        data_shape: Shape of one datum.
        hidden_dims: Width of each hidden layer.
        activation: Builds an activation.
        batch_norm: Whether to normalise before each activation.
    """

    def __init__(
        self,
        code_dim: int,
        data_shape: Sequence[int],
        hidden_dims: Sequence[int] = (400,),
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        sizes = (code_dim, *hidden_dims, math.prod(self.data_shape))
        self.layers = mlp(sizes, activation, batch_norm=batch_norm)

    def forward(self, code: Tensor) -> Tensor:
        """Decodes codes.

        Args:
            code: Shape ``(..., code_dim)``.

        Returns:
            Shape ``(..., *data_shape)``.
        """
        decoded: Tensor = self.layers(code.reshape(-1, code.shape[-1]))
        return decoded.reshape(*code.shape[:-1], *self.data_shape)


def check_data_shape(x: Tensor, data_shape: tuple[int, ...]) -> None:
    """Checks that a tensor holds data of a shape.

    Args:
        x: Data.
        data_shape: Shape of one datum.

    Raises:
        ShapeError: If ``x`` does not end in ``data_shape``.
    """
    if tuple(x.shape[-len(data_shape) :]) != data_shape:
        raise ShapeError(
            f"data of shape {tuple(x.shape)} given, (..., {', '.join(map(str, data_shape))}) "
            "needed; reshape the data, or build the model with their data_shape"
        )
