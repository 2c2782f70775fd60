r"""What scores how well a datum and a code go together: the interface of critics.

A score :math:`T(x, z)` may depend on its own pair alone. Layers that mix the batch, as batch
normalisation does, make it no critic, and what is computed from it no bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, shape, size
from pyro_mivae.errors import DataError, ShapeError
from pyro_mivae.networks.checks import check_data_shape, check_kind

PAIRS_AT_ONCE = 65_536
"""How many pairs `Critic.all_pairs` hands to a network in one call."""


class Critic(nn.Module, ABC):
    """Scores pairs of a datum and a code: a subclass gives `forward`, and a cheaper `all_pairs`.

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
        """Scores pairs.

        Args:
            x: Data, shape ``(n, *data_shape)``.
            code: Codes, shape ``(n, code_dim)``.

        Returns:
            Shape ``(n,)``.

        Raises:
            ShapeError: If the shapes are not these.
        """

    def all_pairs(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores every code beside every datum.

        Here by n² calls' worth of `forward`, `PAIRS_AT_ONCE` at a time, so that without gradients
        the memory needed is that of as many pairs. With gradients it is that of all n² pairs:
        what the network keeps for one, n² times.

        Args:
            x: Data, shape ``(n, *data_shape)``.
            code: Codes, shape ``(n, code_dim)``.

        Returns:
            Scores of code i and datum j, shape ``(n, n)``.

        Raises:
            ShapeError: If the shapes are not these.
        """
        self.check_pairs(x, code)
        return _by_rows(self._each, x, code)

    def both_pairs(self, x: Tensor, code: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Scores every code beside its own datum, and its partner's code beside that.

        Args:
            x: Data, shape ``(n, *data_shape)``.
            code: Codes, shape ``(n, code_dim)``.
            partner: Whose code goes beside each datum, shape ``(n,)``.

        Returns:
            Two tensors of shape ``(n,)``.

        Raises:
            ShapeError: If the shapes are not these.
        """
        return self(x, code), self(x, code[partner])

    def check_pairs(self, x: Tensor, code: Tensor) -> None:
        """Checks the shapes of data and codes.

        Args:
            x: Data.
            code: Codes.

        Raises:
            DataError: If they have another dtype than the critic.
            ShapeError: If they are not ``(n, *data_shape)`` and ``(n, code_dim)``.
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

    A subclass sets ``data_layer`` and ``latent_layer``, and gives `compare`. `all_pairs` passes
    each of the n data and the n codes through its layer once; what only `compare` sees has to be
    repeated for n² pairs, `PAIRS_AT_ONCE` at a time.
    """

    data_layer: nn.Module
    latent_layer: nn.Module

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
        """Scores features of pairs.

        Args:
            of_data: Shape ``(..., features)``.
            of_code: Shape ``(..., features)``, broadcast against the data's.

        Returns:
            Shape ``(...)``.
        """

    def compare_all(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Scores features of all pairs.

        Args:
            of_data: Shape ``(n, features)``.
            of_code: Shape ``(n, features)``.

        Returns:
            Scores of code i and datum j, shape ``(n, n)``.
        """
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
