"""Critics: networks that score how well a datum and a code go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, choice, several, size
from pyro_mivae.errors import ShapeError
from pyro_mivae.networks.conv import ConvEncoder
from pyro_mivae.networks.layers import NETWORK, count_features
from pyro_mivae.networks.mlp import MLPEncoder, mlp
from pyro_mivae.networks.pairs import Critic, InnerProductCritic, LayeredCritic

Activation = Callable[[], nn.Module]


class JointCritic(LayeredCritic):
    """A multilayer perceptron of the datum, flattened, and the code, put together in one vector.

    The most general of these. Its first layer is a sum of two, one of the datum and one of the
    code, which is the same as a layer of both in one vector, started with each part's own scale.
    `all_pairs` passes the n data and n codes through it once, and only the layers after it
    cost n² times one pair: 4 n² bytes for each hidden unit, kept for the backward pass.
    """

    def build(self, hidden_dims: Sequence[int], activation: Activation) -> None:
        """Makes the layers."""
        first = nn.Linear(math.prod(self.data_shape), hidden_dims[0])
        self.data_layer = nn.Sequential(nn.Flatten(), first)
        self.latent_layer = nn.Linear(self.code_dim, hidden_dims[0], bias=False)
        self.head = nn.Sequential(activation(), mlp((*hidden_dims, 1), activation))

    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Adds the first layer's two parts and goes on; see `LayeredCritic`."""
        scores: Tensor = self.head(of_data + of_code)
        return scores.squeeze(-1)


class SeparableCritic(InnerProductCritic):
    r"""The inner product of an embedding of the datum and one of the code.

    `all_pairs` costs n passes through each network and one matrix product, so it suits large
    batches. Its scores are limited to rank ``embed_dim``. It goes with InfoNCE: of 6 nats in
    20 dimensions it found 4.4 from that in 800 steps, a joint critic 4.7, but 2.5 from NWJ and
    3.5 from Donsker and Varadhan's bound, a joint one 4.5 and 4.6 (``python -m benchmarks
    bounds``, three trainings).

    Images of 8 x 8 or more are convolved, by a network with maps of its own; the last of
    ``hidden_dims`` is its number of features. The keyword ``embed_dim``, 32 if omitted, is the
    size of the embeddings.
    """

    @checked(embed_dim=size())
    def build(
        self, hidden_dims: Sequence[int], activation: Activation, *, embed_dim: int = 32
    ) -> None:
        """Makes the layers."""
        self.data_layer = nn.Sequential(
            _data_encoder(self.data_shape, hidden_dims, activation),
            nn.Linear(hidden_dims[-1], embed_dim),
        )
        self.latent_layer = mlp((self.code_dim, *hidden_dims, embed_dim), activation)


class BilinearCritic(InnerProductCritic):
    r"""Bilinear in features of the datum and the code itself: :math:`f(x)^\top (W z + b)`.

    Contrastive predictive coding's critic, with b for what depends on the datum alone. The least
    general, and the cheapest where codes are many. ``hidden_dims`` are those of f, which
    convolves images of 8 x 8 or more as in `SeparableCritic`.

    References:
        van den Oord et al. (2018), Contrastive Predictive Coding, eq. 3.
        https://arxiv.org/abs/1807.03748
    """

    def build(self, hidden_dims: Sequence[int], activation: Activation) -> None:
        """Makes the layers."""
        self.data_layer = _data_encoder(self.data_shape, hidden_dims, activation)
        self.latent_layer = nn.Linear(self.code_dim, hidden_dims[-1])


class MutualInfoChain(LayeredCritic):
    """A data layer, a latent layer, and a multilayer perceptron with one output on both.

    `all_pairs` passes n data and n codes through the layers, and every pair of their features
    through the perceptron: 4 n² bytes for each of the features put together and for each hidden
    unit, kept for the backward pass.

    ``hidden_dims`` are two or more: the first is that of the data and the latent layer's features,
    the others those of the perceptron's hidden layers. Keywords take the place of parts:

    * ``data_layer``, from ``(n, *data_shape)`` to ``(n, features)``; by default convolutions for
      images of 8 x 8 or more, one linear layer for other data;
    * ``latent_layer``, from ``(n, code_dim)`` to ``(n, features)``; by default one linear layer;
    * ``head``, from the features of both, the data's first, to one output, with any number of
      batch dimensions.

    Raises:
        OptionError: If a width is under 1, there are fewer than two, or the code has no
            dimension.
        ShapeError: If a part does not take its input, or does not give ``(n, features)``, or a
            head not one output.

    References:
        Rezaabad & Vishwanath (2020), Learning Representations by Maximizing Mutual Information
        in Variational Autoencoders. https://arxiv.org/abs/1912.13361
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
        """Makes the layers."""
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
                f"head: {outputs} outputs a pair given, 1 needed; end it in a linear layer of one "
                "unit"
            )

    def compare(self, of_data: Tensor, of_code: Tensor) -> Tensor:
        """Puts the features together and goes on; see `LayeredCritic`."""
        pairs = torch.broadcast_shapes(of_data.shape[:-1], of_code.shape[:-1])
        parts = (of_data.expand(*pairs, -1), of_code.expand(*pairs, -1))
        scores: Tensor = self.head(torch.cat(parts, -1))
        return scores.squeeze(-1)


CRITICS: dict[str, type[Critic]] = {
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
        hidden_dims: Widths of the hidden layers, as the class says.

    Returns:
        The critic.

    Raises:
        OptionError: If there is no such critic, or it cannot have these sizes.

    Example:
        >>> critic = build_critic("separable", (1, 28, 28), code_dim=10)
        >>> critic.all_pairs(torch.zeros(4, 1, 28, 28), torch.zeros(4, 10)).shape
        torch.Size([4, 4])
    """
    factory: Callable[..., Critic] = CRITICS[name]
    return factory(data_shape, code_dim, hidden_dims)


def _data_encoder(
    data_shape: tuple[int, ...], hidden_dims: Sequence[int], activation: Activation
) -> nn.Module:
    if len(data_shape) == 3 and min(data_shape[1:]) >= 8:
        return ConvEncoder(data_shape, hidden_dim=hidden_dims[-1])
    return MLPEncoder(data_shape, hidden_dims, activation)
