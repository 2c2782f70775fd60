"""Checks of arguments of metrics: codes, and categories, labels or factors as integers from 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_mivae.arguments import LARGEST, Checker, Sizes, integers, numbers, several, whole
from pyro_mivae.errors import DataError

LARGEST_VALUE, MOST_CELLS = 10**6, 10**8
SEED = whole(least=0)
COUNT = whole(least=1, most=LARGEST_VALUE)


def counted(*shape: str, least: int = 1) -> Checker:
    """Integers from 0, of any integer type or booleans; returned as int64."""
    kind = integers(*shape, least=least, hint="give an integer for each datum")

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Tensor:
        found: Tensor = kind(name, value, sizes).long()
        if found.numel() and not 0 <= int(found.min()) <= int(found.max()) <= LARGEST_VALUE:
            raise DataError(
                f"{name} has values from {int(found.min())} to {int(found.max())}; allowed are 0 "
                f"to {LARGEST_VALUE}: number them by unique(return_inverse=True)"
            )
        return found

    return check


def codes(items: str, dims: str) -> Checker:
    """Codes as float32 or float64; there may be no dimension, and NaN."""
    kind = numbers(items, dims, finite=False, least=0)

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Tensor:
        found: Tensor = kind(name, value, sizes)
        return found if found.dtype in (torch.float32, torch.float64) else found.double()

    return check


def columns(dims: str) -> Checker:
    """Numbers of columns, each less than the size of a dimension."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> list[int]:
        most = (sizes or {}).get(dims, LARGEST) - 1
        found: list[int] = several(whole(least=0, most=most), least=0)(name, value)
        return found

    return check
