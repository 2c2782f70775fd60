"""Checks of what pictures are drawn from."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from pyro_mivae.arguments import Checker, Sizes, instance, numbers, several, shown
from pyro_mivae.errors import OptionError
from pyro_mivae.training.history import History

REAL = instance(Real, example="0.5")
CELLS = numbers("...", "width", finite=False)
WORDS = several(instance(str, example="'a'"), least=0)
NAMES = several(instance(str, example="'a'"))
HISTORY = instance(History, example="that which fit returns")


def series(name: str, value: Any, sizes: Sizes | None = None) -> list[float]:
    """Numbers, of which some may be NaN; returned as a list."""
    values = value.tolist() if isinstance(value, Tensor | np.ndarray) else value
    return several(REAL, least=0)(name, values, sizes)


def color(name: str, value: Any, sizes: Sizes | None = None) -> Any:
    """A colour that matplotlib knows."""
    from matplotlib.colors import is_color_like

    if not is_color_like(value):
        raise OptionError(f"{name}={shown(value)}; allowed are colours, such as '#3f90da'")
    return value


def pair(each: Checker) -> Checker:
    """Two of a kind; returned as a list."""

    def check(name: str, value: Any, sizes: Sizes | None = None) -> list[Any]:
        values = several(each)(name, value, sizes)
        if len(values) != 2:
            raise OptionError(f"{name} holds {len(values)}; give 2")
        return values

    return check
