"""Encoders and decoders, multilayer perceptrons, batch normalisation, and checks of networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, softplus

from pyro_mivae.arguments import (
    Given,
    checked,
    checker,
    flag,
    instance,
    several,
    shape,
    size,
    whole,
)
from pyro_mivae.compat import BatchNorm
from pyro_mivae.errors import DataError, ShapeError

NETWORK = instance(nn.Module, example="torch.nn.Sequential(...)")
WIDTHS = several(size())
MIN_SCALE = 1e-4


@checker
def _activation(given: Given) -> Any:
    built = None
    if callable(given.value) and not isinstance(given.value, nn.Module):
        with suppress(TypeError):  # it takes arguments
            built = given.value()
    if not isinstance(built, nn.Module):
        raise given.refused(
            "classes and functions that build an activation, such as torch.nn.ReLU"
        )
    return given.value


ACTIVATION = _activation()


def location_and_scale(params: Tensor, least: float = MIN_SCALE) -> tuple[Tensor, Tensor]:
    """Splits parameters into a location and a positive scale."""
    loc, scale = params.chunk(2, -1)
    return loc, softplus(scale) + least


class Encoder(nn.Module):
    """Features of data; ``layers`` of a subclass get each datum in the shape ``taken``."""

    layers: nn.Sequential

    def __init__(self, data_shape: Sequence[int], taken: Sequence[int]) -> None:
        super().__init__()
        self.data_shape, self.taken = tuple(data_shape), tuple(taken)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes data ``(..., *data_shape)``, returns features ``(..., features)``."""
        check_data_shape(x, self.data_shape)
        features: Tensor = self.layers(x.reshape(-1, *self.taken))
        return features.reshape(*x.shape[: x.dim() - len(self.data_shape)], features.shape[-1])


class Decoder(nn.Module):
    """Parameters of a likelihood from a flat code, which passes through all parts in order."""

    def __init__(self, data_shape: Sequence[int], num_outputs: int = 1) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        self._shape = output_shape(data_shape, num_outputs)

    def forward(self, code: Tensor) -> Tensor:
        """Decodes codes ``(..., code_dim)``, returns ``(..., *data_shape)``.

        Two or more outputs per element are a further, last dimension.
        """
        decoded = code.reshape(-1, code.shape[-1])
        for part in self.children():
            decoded = part(decoded)
        return decoded.reshape(*code.shape[:-1], *self._shape)


def output_shape(data_shape: Sequence[int], num_outputs: int) -> tuple[int, ...]:
    """Returns the shape that a decoder makes of one code."""
    return (*data_shape, num_outputs) if num_outputs > 1 else tuple(data_shape)


class _TrainsOnOne(BatchNorm):
    """Batch norm that uses its running statistics if there is a single value per feature."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalises features."""
        if self.training and input.numel() == input.shape[1]:
            return batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class BatchNorm1d(_TrainsOnOne, nn.BatchNorm1d):
    """Normalises features of shape ``(batch, features)``."""


class BatchNorm2d(_TrainsOnOne, nn.BatchNorm2d):
    """Normalises maps of shape ``(batch, features, height, width)``."""


def check_kind(x: Any) -> None:
    """Checks that a value is a tensor of floating-point numbers."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        told = f"a tensor of {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise DataError(f"{told} given; a network takes tensors of floating-point numbers")


def check_data_shape(x: Tensor, data_shape: tuple[int, ...]) -> None:
    """Checks that a tensor holds data of a shape."""
    check_kind(x)
    if tuple(x.shape[-len(data_shape) :]) != data_shape:
        raise ShapeError(
            f"data of shape {tuple(x.shape)} given, (..., {', '.join(map(str, data_shape))}) "
            "needed; reshape the data, or build the model with their data_shape"
        )


def count_features(name: str, layer: nn.Module, shape: Sequence[int]) -> int:
    """Counts the features that a layer returns per datum, by two blank data."""
    training = layer.training
    example = next(layer.parameters(), torch.zeros(()))
    taken = [tuple(shape)] + [given for given in (getattr(layer, "given_shape", None),) if given]
    linear = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    if example.is_meta and linear:  # a first operation on the meta device takes seconds of imports
        return linear[-1].out_features
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = layer.eval()(*(example.new_zeros(2, *each) for each in taken))
    except Exception as error:  # a network of a user's own may raise anything
        raise ShapeError(
            f"{name} does not take data of shape {(2, *shape)} ({error}); build it for data of "
            "this shape"
        ) from error
    finally:
        layer.train(training)
    if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != 2:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features)
        raise ShapeError(
            f"{name} returns {got} for two data; let it return features of each, shape "
            "(batch, features), for example by nn.Flatten()"
        )
    return features.shape[-1]


@checked(encoder=NETWORK, data_shape=shape())
def output_dim(encoder: nn.Module, data_shape: Sequence[int]) -> int:
    """Returns an encoder's number of features, found by encoding blank data.

    Args:
        encoder: From ``(batch, *data_shape)`` to ``(batch, features)``.
        data_shape: Shape of one datum.

    Returns:
        The number of features.

    Raises:
        ShapeError: If the encoder does not take such data, or returns no features per datum.

    Example:
        >>> output_dim(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16)), (1, 8, 8))
        16
    """
    return count_features("the encoder", encoder, data_shape)


@checked(sizes=several(whole(least=1), least=2), activation=ACTIVATION, batch_norm=flag())
def mlp(
    sizes: Sequence[int],
    activation: Callable[[], nn.Module] = nn.ReLU,
    *,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Builds linear layers, with an activation after each except the last.

    Args:
        sizes: Width of the input, of each hidden layer, and of the output.
        activation: Builds an activation.
        batch_norm: True to normalise before each activation, in place of a bias.

    Returns:
        A network from ``(..., sizes[0])`` to ``(..., sizes[-1])``; with batch norm from
        ``(batch, sizes[0])``.

    Example:
        >>> mlp((4, 8, 2))
        Sequential(
          (0): Linear(in_features=4, out_features=8, bias=True)
          (1): ReLU()
          (2): Linear(in_features=8, out_features=2, bias=True)
        )
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

    Example:
        >>> MLPEncoder((1, 8, 8), (32, 16))(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5, 16])
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
    """Parameters of a likelihood from a flat code of ``code_dim``, see `MLPEncoder`.

    ``num_outputs`` is the number of parameters per element, see `Likelihood`.

    Example:
        >>> MLPDecoder(2, (1, 8, 8), (16, 32))(torch.randn(5, 2)).shape
        torch.Size([5, 1, 8, 8])
    """

    @checked(
        code_dim=size(),
        data_shape=shape(),
        hidden_dims=several(size(), least=0),
        activation=ACTIVATION,
        batch_norm=flag(),
        num_outputs=size(),
    )
    def __init__(
        self,
        code_dim: int,
        data_shape: Sequence[int],
        hidden_dims: Sequence[int] = (400,),
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        batch_norm: bool = False,
        num_outputs: int = 1,
    ) -> None:
        super().__init__(data_shape, num_outputs)
        sizes = (code_dim, *hidden_dims, math.prod(self._shape))
        self.layers = mlp(sizes, activation, batch_norm=batch_norm)
