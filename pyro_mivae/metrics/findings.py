"""Figures, each with a line that says how it was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from pyro_mivae.arguments import checked, instance, named, text


class Findings:
    """What was measured so far.

    Attributes:
        values: Every figure by name.
        lines: How each was measured: names of figures with commas between them, in which ``*``
            stands for anything, and a sentence. The first that fits a figure is its own.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.lines: dict[str, str] = {}

    def record(self, line: str, values: Mapping[str, float], names: str | None = None) -> None:
        """Adds figures that were measured in the same way."""
        self.values |= values
        shown = [name for name in values if not name.endswith("_se")]
        self.lines[names or ", ".join(shown)] = line


@checked(protocol=instance(Mapping, example="evaluate(...).protocol"), name=text())
def how_measured(protocol: Mapping[str, Any], name: str) -> str | None:
    """Finds the line of a protocol that says how a figure was measured.

    Args:
        protocol: That of `evaluate`, or of a ``metrics.json``.
        name: Name of the figure; a standard error's is that of its figure.

    Returns:
        The line; None where there is none.

    Example:
        >>> how_measured({"figures": {"kl_*, rate": "10 draws of each code"}}, "kl_z_se")
        '10 draws of each code'
    """
    name = name.removesuffix("_se")
    lines = named(text())("protocol['figures']", protocol.get("figures", {}))
    for patterns, line in lines.items():
        for pattern in patterns.split(", "):
            if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name):
                return str(line)
    return None


def share(right: float, count: int) -> tuple[float, float]:
    """Returns a share and its standard error."""
    if math.isnan(right) or not count:
        return math.nan, math.nan
    return right, math.sqrt(max(0.0, right * (1 - right)) / count)
