"""Multilayer perceptrons between data of any shape and a flat code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from pyro_mivae.arguments import checked, flag, several, shape, size, whole
from pyro_mivae.networks.layers import ACTIVATION, WIDTHS, BatchNorm1d, Decoder, Encoder


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
        batch_norm: True to normalise before each activation, in place of a bias.

    Returns:
        A network from ``(..., sizes[0])`` to ``(..., sizes[-1])``; with batch norm from
        ``(batch, sizes[0])``.

    Raises:
        OptionError: If a width is no whole number from 1 up, or fewer than two are given.
    """
    hidden = _hidden(sizes[:-1], activation, batch_norm, bias=not batch_norm)
    return nn.Sequential(*hidden, nn.Linear(sizes[-2], sizes[-1]))


def _hidden(
    sizes: Sequence[int], activation: Callable[[], nn.Module], batch_norm: bool, bias: bool
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers.append(nn.Linear(n_in, n_out, bias=bias))
        layers += [BatchNorm1d(n_out)] if batch_norm else []
        layers.append(activation())
    return layers


class MLPEncoder(Encoder):
    """Features of data of any shape: linear layers, each followed by an activation.

    Args:
        data_shape: Shape of one datum.
        hidden_dims: Width of each layer; the last is the number of features.
        activation: Builds an activation.
        batch_norm: True to normalise before each activation.

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
        size = math.prod(data_shape)
        super().__init__(data_shape, (size,))
        self.layers = nn.Sequential(*_hidden((size, *hidden_dims), activation, batch_norm, True))


class MLPDecoder(Decoder):
    """Parameters of a likelihood from a flat code.

    Args:
        code_dim: Size of the code.
        data_shape: Shape of one datum.
        hidden_dims: Width of each hidden layer.
        activation: Builds an activation.
        batch_norm: True to normalise before each activation.
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
        super().__init__(data_shape)
        sizes = (code_dim, *hidden_dims, math.prod(data_shape))
        self.layers = mlp(sizes, activation, batch_norm=batch_norm)
