"""Encoders and decoders of any layers, batch normalisation, and checks of networks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from pyro_mivae.arguments import Checker, Sizes, checked, instance, several, shape, shown, size
from pyro_mivae.compat import BatchNorm
from pyro_mivae.errors import DataError, OptionError, ShapeError

NETWORK = instance(nn.Module, example="torch.nn.Sequential(...)")
WIDTHS = several(size())


def _activation(name: str, value: Any, sizes: Sizes | None = None) -> Any:
    built = None
    if callable(value) and not isinstance(value, nn.Module):
        with suppress(TypeError):  # it takes arguments
            built = value()
    if not isinstance(built, nn.Module):
        raise OptionError(
            f"{name}={shown(value)}; allowed are classes and functions that build an activation, "
            "such as torch.nn.ReLU"
        )
    return value


ACTIVATION: Checker = _activation


class Encoder(nn.Module):
    """Features of data: a subclass sets ``layers``, which take data of the shape ``taken``."""

    layers: nn.Sequential

    def __init__(self, data_shape: Sequence[int], taken: Sequence[int]) -> None:
        super().__init__()
        self.data_shape, self.taken = tuple(data_shape), tuple(taken)

    def forward(self, x: Tensor) -> Tensor:
        """Encodes data.

        Args:
            x: Shape ``(..., *data_shape)``.

        Returns:
            Features, shape ``(..., features)``.

        Raises:
            ShapeError: If ``x`` does not end in ``data_shape``.
        """
        check_data_shape(x, self.data_shape)
        features: Tensor = self.layers(x.reshape(-1, *self.taken))
        return features.reshape(*x.shape[: x.dim() - len(self.data_shape)], features.shape[-1])


class Decoder(nn.Module):
    """Parameters of a likelihood from a flat code, which passes through each part in turn."""

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)

    def forward(self, code: Tensor) -> Tensor:
        """Decodes codes.

        Args:
            code: Shape ``(..., code_dim)``.

        Returns:
            Shape ``(..., *data_shape)``.
        """
        decoded = code.reshape(-1, code.shape[-1])
        for part in self.children():
            decoded = part(decoded)
        return decoded.reshape(*code.shape[:-1], *self.data_shape)


class _TrainsOnOne(BatchNorm):
    """Normalises by the running statistics where there is one value per feature."""

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
    """Counts the features that a layer gives of each datum, by two blank data of a shape."""
    training = layer.training
    example = next(layer.parameters(), torch.zeros(()))
    linear = [part for part in layer.modules() if isinstance(part, nn.Linear)]
    if example.is_meta and linear:  # a first operation on the meta device takes seconds of imports
        return linear[-1].out_features
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = layer.eval()(example.new_zeros(2, *shape))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
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
    """Returns the number of features that an encoder gives, by encoding blank data.

    Args:
        encoder: From ``(batch, *data_shape)`` to ``(batch, features)``.
        data_shape: Shape of one datum.

    Returns:
        The number of features.

    Raises:
        ShapeError: If the encoder does not take such data, or gives no features of each.
    """
    return count_features("the encoder", encoder, data_shape)
