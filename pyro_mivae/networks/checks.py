"""Checks of what networks are built of, and of what they are given."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from pyro_mivae.arguments import Checker, Sizes, instance, several, shown, size
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


def check_kind(x: Any) -> None:
    """Checks that something is a tensor of floating-point numbers."""
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
