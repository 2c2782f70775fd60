"""Numbers and tables as text."""

from __future__ import annotations

import math
from collections.abc import Sequence


def write_number(value: float, digits: int = 2) -> str:
    """Formats a number, with a typographic minus sign; ``not defined`` for NaN."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else "not defined"


def write_interval(lower: float, upper: float, digits: int = 2) -> str:
    """Formats an interval: both ends, one if they are equal, or the one that is known.

    Example:
        >>> write_interval(1.0, 1.001), write_interval(1.0, 2.0), write_interval(1.0, math.nan)
        ('1.00', '1.00 – 2.00', '≥ 1.00')
    """
    ends = [write_number(v, digits) for v in (lower, upper) if math.isfinite(v)]
    if not ends:
        return "not defined"
    if len(ends) == 1:
        return ("≥ " if math.isfinite(lower) else "≤ ") + ends[0]
    return " – ".join(dict.fromkeys(ends))


def write_error(error: float, digits: int = 2) -> str:
    """Formats a standard error after ``±``; empty if it is not defined."""
    return f"± {error:.{digits}f}" if math.isfinite(error) else ""


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns rows of text in columns: the first one left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            f"{cell:<{width}}" if place == 0 else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
