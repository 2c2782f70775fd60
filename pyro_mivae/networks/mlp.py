"""Multilayer perceptrons between data of any shape and a flat code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from pyro_mivae.arguments import checked, flag, several, shape, size, whole
from pyro_mivae.networks.checks import ACTIVATION, WIDTHS, check_data_shape
from pyro_mivae.networks.norm import BatchNorm1d


@checked(sizes=several(whole(least=1), least=2), activation=ACTIVATION, batch_norm=flag())
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
        OptionError: If a width is no whole number from 1 up, or fewer than two are given.
    """
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
        OptionError: If there is no layer, or a width is no whole number from 1 up.
    """

    @checked(data_shape=shape(), hidden_dims=WIDTHS, activation=ACTIVATION, batch_norm=flag())
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

    @checked(
        code_dim=size(),
        data_shape=shape(),
        hidden_dims=several(size(), least=0),
        activation=ACTIVATION,
        batch_norm=flag(),
    )
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
