"""One picture of a report, with what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One picture of the page.

    Attributes:
        key: Name of its PNG, without the ending.
        title: Its heading.
        sentence: What it shows.
        look_for: What a reader should look for.
        figure: The drawn figure.
    """

    key: str
    title: str
    sentence: str
    look_for: str
    figure: Figure
