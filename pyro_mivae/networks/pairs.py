"""The interface of critics, which score how well a datum and a code go together.

A score :math:`T(x, z)` may depend on its own pair alone. Layers that mix the batch, as batch
normalisation does, make it no critic, and what is computed from it no bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, shape, size
from pyro_mivae.errors import DataError, ShapeError
from pyro_mivae.networks.layers import ACTIVATION, WIDTHS, check_data_shape, check_kind

PAIRS_AT_ONCE = 65_536
"""Largest number of pairs that `Critic.all_pairs` hands to a network in one call."""


class Critic(nn.Module, ABC):
    """Scores pairs of a datum and a code: a subclass gives `forward`, and a cheaper `all_pairs`.

    Data have the shape ``(n, *data_shape)`` and codes ``(n, code_dim)``; other shapes are a
    `ShapeError`.

    Args:
        data_shape: Shape of one datum.
        code_dim: Size of the code.

    Raises:
        OptionError: If the code has no dimension.
    """

    @checked(data_shape=shape(), code_dim=size())
    def __init__(self, data_shape: Sequence[int], code_dim: int) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        self.code_dim = code_dim

    @abstractmethod
    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores each code beside its own datum, shape ``(n,)``."""

    def all_pairs(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores every code beside every datum.

        Here by n² calls' worth of `forward`, `PAIRS_AT_ONCE` at a time: without gradients the
        memory needed is that of as many pairs. With gradients it is that of all n² pairs.

        Args:
            x: Data.
            code: Codes.

        Returns:
            Scores of code i and datum j, shape ``(n, n)``.
        """
        self.check_pairs(x, code)
        return _by_rows(self._each, x, code)

    def both_pairs(self, x: Tensor, code: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Scores every code beside its own datum, and its partner's code beside that.

        Args:
            x: Data.
            code: Codes.
            partner: Index of the code that goes beside each datum, shape ``(n,)``.

        Returns:
            Two tensors of shape ``(n,)``.
        """
        return self(x, code), self(x, code[partner])

    def check_pairs(self, x: Tensor, code: Tensor) -> None:
        """Checks shapes and dtypes of data and codes.

        Raises:
            DataError: If they have another dtype than the critic.
            ShapeError: If their shapes are others.
        """
        check_data_shape(x, self.data_shape)
        check_kind(code)
        if code.shape != (len(x), self.code_dim) or x.dim() != 1 + len(self.data_shape):
            raise ShapeError(
                f"data of shape {tuple(x.shape)} and codes of shape {tuple(code.shape)} given, "
                f"(n, {', '.join(map(str, self.data_shape))}) and (n, {self.code_dim}) needed; "
                "flatten other batch dimensions into n, and join several codes in one"
            )
        own = next(self.parameters(), x).dtype
        if {x.dtype, code.dtype} != {own} and not torch.is_autocast_enabled(x.device.type):
            raise DataError(
                f"data of {x.dtype} and codes of {code.dtype} given, the critic's parameters are "
                f"{own}; give both as that"
            )

    def _each(self, x: Tensor, code: Tensor) -> Tensor:
        pairs = torch.broadcast_shapes(code.shape[:2], x.shape[:2])
        xs = x.expand(*pairs, *x.shape[2:]).flatten(0, 1)
        scores: Tensor = self(xs, code.expand(*pairs, -1).flatten(0, 1))
        return scores.reshape(pairs)


class LayeredCritic(Critic):
    """A layer of the datum, a layer of the code, and a score of what the two give.

    A subclass makes ``data_layer`` and ``latent_layer`` in `build`, and gives `compare`.
    `all_pairs` passes each of the n data and the n codes through its layer once; n² pairs of
    features go through `compare`, `PAIRS_AT_ONCE` at a time.

    Args:
        data_shape: Shape of one datum.
        code_dim: Size of the code.
        hidden_dims: Widths of hidden layers, one or more.
        activation: Builds an activation.
        **options: Further arguments of `build`.

    Raises:
        OptionError: If there is no hidden layer, or a size is under 1.
    """

    data_layer: nn.Module
    latent_layer: nn.Module

    @checked(hidden_dims=WIDTHS, activation=ACTIVATION)
    def __init__(
        self,
        data_shape: Sequence[int],
        code_dim: int,
        hidden_dims: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = nn.ReLU,
        **options: Any,
    ) -> None:
        super().__init__(data_shape, code_dim)
        self.build(hidden_dims, activation, **options)

    @abstractmethod
    def build(self, hidden_dims: Sequence[int], activation: Callable[[], nn.Module]) -> None:
        """Makes the layers."""

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores pairs; see `Critic`."""
        self.check_pairs(x, code)
        return self.compare(self.data_layer(x), self.latent_layer(code))

    def all_pairs(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores every code beside every datum; see `Critic`."""
        self.check_pairs(x, code)
        return self.compare_all(self.data_layer(x), self.latent_layer(code))

    def both_pairs(self, x: Tensor, code: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Scores pairs that belong together and pairs that do not; see `Critic`."""
        self.check_pairs(x, code)
        of_data, of_code = self.data_layer(x), self.latent_layer(code)
        return self.compare(of_data, of_code), self.compare(of_data, of_code[partner])

    @abstractmethod
    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Scores features ``(..., features)`` of pairs, broadcast against each other."""

    def compare_all(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Scores features ``(n, features)`` of all pairs, shape ``(n, n)``."""
        return _by_rows(self.compare, of_data, of_code)


class InnerProductCritic(LayeredCritic):
    """The inner product of what the two layers give: one matrix product for all pairs."""

    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Multiplies and adds; see `LayeredCritic`."""
        return (of_data * of_code).sum(-1)

    def compare_all(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Multiplies matrices; see `LayeredCritic`."""
        return of_code @ of_data.T


def _by_rows(score: Callable[[Tensor, Tensor], Tensor], data: Tensor, codes: Tensor) -> Tensor:
    """Scores all pairs, as many rows at once as `PAIRS_AT_ONCE` allows."""
    rows = max(1, PAIRS_AT_ONCE // len(data))
    return torch.cat([score(data[None], chunk[:, None]) for chunk in codes.split(rows)])
