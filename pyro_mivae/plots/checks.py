"""Checks of what pictures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from pyro_mivae.arguments import Checker, Sizes, instance, numbers, several, shown
from pyro_mivae.errors import OptionError

REAL = instance(Real, example="0.5")
CELLS = numbers("...", "width", finite=False)


def words(least: int = 0) -> Checker:
    """Texts, of which some may be empty; returned as a list."""
    return several(instance(str, example="'a'"), least=least)


def series() -> Checker:
    """Numbers, of which some may be NaN; returned as a list."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> list[float]:
        values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
        return several(REAL, least=0)(name, values, sizes)

    return check


def named(each: Checker) -> Checker:
    """A mapping from texts; returned as a dictionary, each value checked."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> dict[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise OptionError(f"{name}={shown(value)}; allowed are dictionaries by name")
        return {key: each(f"{name}[{key!r}]", item, sizes) for key, item in value.items()}

    return check


def color() -> Checker:
    """A colour that matplotlib knows."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Any:
        from matplotlib.colors import is_color_like

        if not is_color_like(value):
            raise OptionError(f"{name}={shown(value)}; allowed are colours, such as '#3f90da'")
        return value

    return check


def pair() -> Checker:
    """Two series, or two numbers; returned as a tuple."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> tuple[Any, Any]:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise OptionError(f"{name}={shown(value)}; allowed are pairs")
        first, second = (
            (REAL if isinstance(v, Real) else series())(f"{name}[{i}]", v)
            for i, v in enumerate(value)
        )
        return first, second

    return check


def columns() -> Checker:
    """A history: something with ``columns`` that gives each by its name."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> Any:
        if isinstance(value, type) or not hasattr(value, "columns"):
            raise OptionError(f"{name}={shown(value)}; allowed are histories, as fit returns them")
        return value

    return check
