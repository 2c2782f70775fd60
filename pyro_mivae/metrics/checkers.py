"""Checks of arguments of metrics: codes, and integers from 0."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_mivae.arguments import LARGEST, Given, checker, integers, numbers, several, whole
from pyro_mivae.errors import DataError

LARGEST_VALUE, MOST_CELLS = 10**6, 10**8
SEED = whole(least=0)
COUNT = whole(least=1, most=LARGEST_VALUE)


@checker
def counted(given: Given, *shape: str, least: int = 1) -> Tensor:
    """Integers from 0, of any integer type or booleans; returned as int64."""
    kind = integers(*shape, least=least, hint="give an integer for each datum")
    found: Tensor = kind(given.name, given.value, given.sizes).long()
    if found.numel() and not 0 <= int(found.min()) <= int(found.max()) <= LARGEST_VALUE:
        raise DataError(
            f"{given.name} has values from {int(found.min())} to {int(found.max())}; allowed are "
            f"0 to {LARGEST_VALUE}: number them by unique(return_inverse=True)"
        )
    return found


@checker
def codes(given: Given, items: str, dims: str) -> Tensor:
    """Codes as float32 or float64, possibly with NaN or without a dimension."""
    kind = numbers(items, dims, finite=False, least=0)
    found: Tensor = kind(given.name, given.value, given.sizes)
    return found if found.dtype in (torch.float32, torch.float64) else found.double()


@checker
def columns(given: Given, dims: str) -> list[int]:
    """Numbers of columns, each less than the size of a dimension."""
    most = given.sizes.get(dims, LARGEST) - 1
    return several(whole(least=0, most=most), least=0)(given.name, given.value)
