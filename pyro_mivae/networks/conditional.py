"""Conditions of data, such as labels, as networks read them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from pyro_mivae.arguments import checked, shape
from pyro_mivae.errors import ShapeError
from pyro_mivae.networks.layers import NETWORK, output_dim


class ConditionalEncoder(nn.Module):
    r"""Features of a datum and its condition: :math:`\text{relu}(W\,[h(x), u] + b)`.

    Args:
        encoder: :math:`h`, from ``(batch, *data_shape)`` to features.
        data_shape: Shape of one datum.
        given_shape: Shape of one condition :math:`u`, which is flattened.

    Example:
        >>> encoder = ConditionalEncoder(mi.networks.MLPEncoder((1, 8, 8), [16]), (1, 8, 8), (3,))
        >>> encoder(torch.rand(5, 1, 8, 8), torch.rand(5, 3)).shape
        torch.Size([5, 16])
    """

    @checked(encoder=NETWORK, data_shape=shape(), given_shape=shape())
    def __init__(
        self, encoder: nn.Module, data_shape: Sequence[int], given_shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.encoder, self.given_shape = encoder, tuple(given_shape)
        features = output_dim(encoder, data_shape)
        self.layer = nn.Linear(features + prod(self.given_shape), features)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor:
        """Encodes data ``(batch, *data_shape)`` and conditions ``(batch, *given_shape)``."""
        given = flat_condition(given, self.given_shape, len(x), x.dtype)
        return relu(self.layer(torch.cat([self.encoder(x), given], -1)))


def conditional(
    encoder: nn.Module, data_shape: Sequence[int], given_shape: Sequence[int] | None
) -> nn.Module:
    """Makes an encoder take a condition too, unless there is none or it takes one already."""
    if given_shape is None or hasattr(encoder, "given_shape"):
        return encoder
    return ConditionalEncoder(encoder, data_shape, given_shape)


def flat_condition(
    given: Tensor | None, shape: tuple[int, ...], n: int, dtype: torch.dtype
) -> Tensor:
    """Returns conditions of shape ``(n, *shape)`` as vectors of a dtype."""
    return checked_condition(given, shape, n).flatten(1).to(dtype)


def checked_condition(given: Tensor | None, shape: tuple[int, ...], n: int) -> Tensor:
    """Returns conditions of shape ``(n, *shape)``; refuses everything else."""
    if given is None or not given.is_floating_point() or given.shape != (n, *shape):
        found = "none" if given is None else f"{given.dtype} of shape {tuple(given.shape)}"
        raise ShapeError(
            f"model and guide take conditions of shape {(n, *shape)} after {n} data, {found} "
            f"given; pass them as given=, and vae.arguments(x, given) to the programs "
            "themselves: it makes labels one-hot vectors"
        )
    return given
