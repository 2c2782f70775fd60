"""Tables of figures: as text, and of a site's dimensions."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyro_mivae.errors import OptionError
from pyro_mivae.figures import parse


def write_number(value: float, digits: int = 2) -> str:
    """Formats a number, with a typographic minus sign; ``not defined`` for NaN."""
    return f"{value:z.{digits}f}".replace("-", "−") if math.isfinite(value) else "not defined"


def write_interval(lower: float, upper: float, digits: int = 2) -> str:
    """Formats an interval: both ends, one if they are equal, or the one that is known."""
    ends = [write_number(v, digits) for v in (lower, upper) if math.isfinite(v)]
    if not ends:
        return "not defined"
    if len(ends) == 1:
        return ("≥ " if math.isfinite(lower) else "≤ ") + ends[0]
    return " – ".join(dict.fromkeys(ends))


def write_error(error: float, digits: int = 2) -> str:
    """Formats a standard error after ``±``; empty if it is not defined."""
    return f"± {error:.{digits}f}" if math.isfinite(error) else ""


class Shown:
    """A result whose text is a table, shown as such in a notebook too."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def letter(category: int) -> str:
    """Returns the letter of a category's number, so that none is taken for a digit of the data.

    Example:
        >>> letter(0), letter(25), letter(26)
        ('A', 'Z', 'AA')
    """
    more, place = divmod(category, 26)
    return (letter(more - 1) if more else "") + chr(ord("A") + place)


def number_of(letters: str) -> int:
    """Returns the number of a category's letter.

    Example:
        >>> number_of("A"), number_of("AA")
        (0, 26)
    """
    number = 0
    for one in letters.upper():
        number = 26 * number + ord(one) - ord("A") + 1
    return number - 1


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


def by_index(values: Mapping[str, float], site: str) -> dict[str, Tensor]:
    """Collects the figures of a site's dimensions or categories, by key without the site."""
    columns: dict[str, dict[int, float]] = {}
    sites = []
    for text, value in values.items():
        found = parse(text)
        if found is None or found.index is None:
            continue
        sites.append(found.site)
        if found.site == site:
            column = columns.setdefault(str(replace(found, site="", index=None)), {})
            column[found.index] = math.nan if value is None else value
    if not columns:
        raise OptionError(
            f"site {site!r} has no figures of single dimensions or categories; "
            f"allowed are: {', '.join(dict.fromkeys(sites)) or 'none'}"
        )
    return {
        name: torch.tensor([column[d] for d in sorted(column)], dtype=torch.float64)
        for name, column in columns.items()
    }
