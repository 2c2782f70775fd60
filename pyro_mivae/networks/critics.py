"""Critics: networks that score pairs of a datum and a code."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, choice, several, shape, size
from pyro_mivae.errors import DataError, ShapeError
from pyro_mivae.networks.conv import ConvEncoder, is_image
from pyro_mivae.networks.layers import (
    ACTIVATION,
    NETWORK,
    WIDTHS,
    MLPEncoder,
    check_data_shape,
    check_kind,
    count_features,
    mlp,
)

Activation = Callable[[], nn.Module]
PAIRS_AT_ONCE = 65_536
"""Largest number of pairs that `Critic.all_pairs` passes to a network in one call."""


class Critic(nn.Module, ABC):
    """Scores pairs of a datum and a code. Subclasses define `forward`, and a cheaper `all_pairs`.

    A score :math:`T(x, z)` must depend only on its own pair. Layers that mix the batch, such as
    batch norm, break this: the bounds are then invalid.

    Args:
        data_shape: Shape of one datum; data are ``(n, *data_shape)``.
        code_dim: Size of the code; codes are ``(n, code_dim)``.

    Example:
        >>> class Dot(Critic):
        ...     def forward(self, x, code):
        ...         return (x.flatten(1)[:, : self.code_dim] * code).sum(-1)
        >>> Dot((4,), code_dim=2).all_pairs(torch.randn(5, 4), torch.randn(5, 2)).shape
        torch.Size([5, 5])
    """

    @checked(data_shape=shape(), code_dim=size())
    def __init__(self, data_shape: Sequence[int], code_dim: int) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        self.code_dim = code_dim

    @abstractmethod
    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores each code with its own datum, shape ``(n,)``."""

    def all_pairs(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores every code i with every datum j, shape ``(n, n)``.

        This default calls `forward` on 65,536 pairs at a time. Without gradients it needs
        memory for these pairs, with gradients for all n² pairs.
        """
        self.check_pairs(x, code)
        return _by_rows(self._each, x, code)

    def both_pairs(self, x: Tensor, code: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        """Scores each datum with its own code, and with that of index ``partner``.

        All arguments have length n, and so have both returned tensors.
        """
        return self(x, code), self(x, code[partner])

    def check_pairs(self, x: Tensor, code: Tensor) -> None:
        """Checks shapes and dtypes of data and codes."""
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
        return self(xs, code.expand(*pairs, -1).flatten(0, 1)).reshape(pairs)


class LayeredCritic(Critic):
    """A layer of the datum, a layer of the code, and a score of both outputs.

    A subclass makes ``data_layer`` and ``latent_layer`` in `build`, and defines `compare`.
    `all_pairs` passes each of the n data and the n codes through its layer once; n² pairs of
    features go through `compare`, 65,536 at a time.

    Args:
        data_shape: Shape of one datum.
        code_dim: Size of the code.
        hidden_dims: Widths of hidden layers, one or more.
        activation: Builds an activation.
        **options: Further arguments of `build`.

    Example:
        >>> isinstance(mi.build_critic("joint", (1, 8, 8), code_dim=2), LayeredCritic)
        True
    """

    data_layer: nn.Module
    latent_layer: nn.Module

    @checked(hidden_dims=WIDTHS, activation=ACTIVATION)
    def __init__(
        self,
        data_shape: Sequence[int],
        code_dim: int,
        hidden_dims: Sequence[int] = (256, 256),
        activation: Activation = nn.ReLU,
        **options: Any,
    ) -> None:
        super().__init__(data_shape, code_dim)
        self.build(hidden_dims, activation, **options)

    @abstractmethod
    def build(self, hidden_dims: Sequence[int], activation: Activation) -> None:
        """Makes the layers."""

    def features(self, x: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the outputs of both layers."""
        self.check_pairs(x, code)
        return self.data_layer(x), self.latent_layer(code)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.compare(*self.features(x, code))

    def all_pairs(self, x: Tensor, code: Tensor) -> Tensor:
        """Scores every code with every datum; see `Critic`."""
        return self.compare_all(*self.features(x, code))

    def both_pairs(self, x: Tensor, code: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
        of_data, of_code = self.features(x, code)
        return self.compare(of_data, of_code), self.compare(of_data, of_code[partner])

    @abstractmethod
    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Scores features ``(..., features)`` of pairs, broadcast against each other."""

    def compare_all(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Scores features ``(n, features)`` of all pairs, shape ``(n, n)``."""
        return _by_rows(self.compare, of_data, of_code)


class InnerProductCritic(LayeredCritic):
    """The inner product of the two layers' outputs: one matrix product for all pairs."""

    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        return (of_data * of_code).sum(-1)

    def compare_all(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        return of_code @ of_data.T


def _by_rows(score: Callable[[Tensor, Tensor], Tensor], data: Tensor, codes: Tensor) -> Tensor:
    """Scores all pairs, as many rows at once as `PAIRS_AT_ONCE` allows."""
    rows = max(1, PAIRS_AT_ONCE // len(data))
    return torch.cat([score(data[None], chunk[:, None]) for chunk in codes.split(rows)])


class JointCritic(LayeredCritic):
    """A multilayer perceptron on the concatenation of the flattened datum and the code.

    The most general of these critics. Its first layer is the sum of a layer of the datum and one
    of the code: the same as one layer of both, with separate scales at initialisation. `all_pairs`
    keeps 4 n² bytes for each hidden unit for the backward pass.

    Example:
        >>> JointCritic((1, 8, 8), 2)(torch.rand(5, 1, 8, 8), torch.randn(5, 2)).shape
        torch.Size([5])
    """

    def build(self, hidden_dims: Sequence[int], activation: Activation) -> None:
        first = nn.Linear(math.prod(self.data_shape), hidden_dims[0])
        self.data_layer = nn.Sequential(nn.Flatten(), first)
        self.latent_layer = nn.Linear(self.code_dim, hidden_dims[0], bias=False)
        self.head = nn.Sequential(activation(), mlp((*hidden_dims, 1), activation))

    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        return self.head(of_data + of_code).squeeze(-1)


class SeparableCritic(InnerProductCritic):
    r"""The inner product of an embedding of the datum and one of the code.

    `all_pairs` costs n passes through each network and one matrix product, so it suits large
    batches. Its scores are limited to rank ``embed_dim``. Use it with InfoNCE: of 6 nats in 20
    dimensions it found 4.4 with InfoNCE in 800 steps, 2.5 with NWJ and 3.5 with Donsker and
    Varadhan's bound. A joint critic found 4.7, 4.5 and 4.6 (``python -m benchmarks bounds``, three
    trainings).

    Images of 8 x 8 or more are convolved by a network with fixed numbers of maps; the last of
    ``hidden_dims`` is its number of features. The keyword ``embed_dim``, 32 if omitted, is the
    size of the embeddings.

    Example:
        >>> critic = SeparableCritic((1, 8, 8), 2, embed_dim=8)
        >>> critic.all_pairs(torch.rand(5, 1, 8, 8), torch.randn(5, 2)).shape
        torch.Size([5, 5])
    """

    @checked(embed_dim=size())
    def build(
        self, hidden_dims: Sequence[int], activation: Activation, *, embed_dim: int = 32
    ) -> None:
        self.data_layer = nn.Sequential(
            _data_encoder(self.data_shape, hidden_dims, activation),
            nn.Linear(hidden_dims[-1], embed_dim),
        )
        self.latent_layer = mlp((self.code_dim, *hidden_dims, embed_dim), activation)


class BilinearCritic(InnerProductCritic):
    r"""Bilinear in features of the datum and the code itself: :math:`f(x)^\top (W z + b)`.

    The critic of contrastive predictive coding; b adds a term that depends only on the datum. The
    least general critic, and the cheapest for many codes. ``hidden_dims`` belong to f, which
    convolves images of 8 x 8 or more as in `SeparableCritic`.

    References:
        van den Oord et al. (2018), Contrastive Predictive Coding, eq. 3.
        https://arxiv.org/abs/1807.03748

    Example:
        >>> critic = BilinearCritic((1, 8, 8), 2)
        >>> critic.all_pairs(torch.rand(5, 1, 8, 8), torch.randn(5, 2)).shape
        torch.Size([5, 5])
    """

    def build(self, hidden_dims: Sequence[int], activation: Activation) -> None:
        self.data_layer = _data_encoder(self.data_shape, hidden_dims, activation)
        self.latent_layer = nn.Linear(self.code_dim, hidden_dims[-1])


class MutualInfoChain(LayeredCritic):
    """A data layer, a latent layer, and a multilayer perceptron with one output on both.

    For the backward pass `all_pairs` keeps 4 n² bytes per concatenated feature and per hidden
    unit.

    ``hidden_dims`` are two or more: the first is the number of features of the data layer and of
    the latent layer, the others are the perceptron's hidden layers. Keywords replace parts:

    * ``data_layer``, from ``(n, *data_shape)`` to ``(n, features)``; by default convolutions for
      images of 8 x 8 or more, one linear layer for other data;
    * ``latent_layer``, from ``(n, code_dim)`` to ``(n, features)``; by default one linear layer;
    * ``head``, from the features of both, the data's first, to one output, with any number of
      batch dimensions.

    Raises:
        ShapeError: If a part has the wrong input or output shape.

    References:
        Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information
        in Variational Autoencoders. https://arxiv.org/abs/1912.13361

    Example:
        >>> chain = MutualInfoChain((1, 8, 8), 2)
        >>> chain(torch.rand(5, 1, 8, 8), torch.randn(5, 2)).shape
        torch.Size([5])
    """

    @checked(
        hidden_dims=several(size(), least=2),
        data_layer=NETWORK,
        latent_layer=NETWORK,
        head=NETWORK,
    )
    def build(
        self,
        hidden_dims: Sequence[int],
        activation: Activation,
        *,
        data_layer: nn.Module | None = None,
        latent_layer: nn.Module | None = None,
        head: nn.Module | None = None,
    ) -> None:
        width, *rest = hidden_dims
        if data_layer is None:
            data_layer = _data_encoder(self.data_shape, (width,), activation)
        if latent_layer is None:
            latent_layer = MLPEncoder((self.code_dim,), (width,), activation)
        self.data_layer, self.latent_layer = data_layer, latent_layer
        features = count_features("data_layer", data_layer, self.data_shape)
        features += count_features("latent_layer", latent_layer, (self.code_dim,))
        self.head = mlp((features, *rest, 1), activation) if head is None else head
        outputs = count_features("head", self.head, (features,))
        if outputs != 1:
            raise ShapeError(
                f"head: {outputs} outputs per pair given, 1 needed; end it in a linear layer of "
                "one unit"
            )

    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        pairs = torch.broadcast_shapes(of_data.shape[:-1], of_code.shape[:-1])
        parts = (of_data.expand(*pairs, -1), of_code.expand(*pairs, -1))
        return self.head(torch.cat(parts, -1)).squeeze(-1)


CRITICS: dict[str, type[LayeredCritic]] = {
    "joint": JointCritic,
    "separable": SeparableCritic,
    "bilinear": BilinearCritic,
    "chain": MutualInfoChain,
}


@checked(name=choice(*CRITICS))
def build_critic(
    name: str, data_shape: Sequence[int], code_dim: int, hidden_dims: Sequence[int] = (256, 256)
) -> Critic:
    """Builds a critic.

    Args:
        name: A key of `CRITICS`.
        data_shape: Shape of one datum.
        code_dim: Size of the code.
        hidden_dims: Widths of the hidden layers, see the class.

    Example:
        >>> critic = build_critic("separable", (1, 28, 28), code_dim=10)
        >>> critic.all_pairs(torch.zeros(4, 1, 28, 28), torch.zeros(4, 10)).shape
        torch.Size([4, 4])
    """
    return CRITICS[name](data_shape, code_dim, hidden_dims)


def _data_encoder(
    data_shape: tuple[int, ...], hidden_dims: Sequence[int], activation: Activation
) -> nn.Module:
    if is_image(data_shape):
        return ConvEncoder(data_shape, hidden_dim=hidden_dims[-1])
    return MLPEncoder(data_shape, hidden_dims, activation)
