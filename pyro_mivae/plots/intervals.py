"""Figures that are known between two bounds, on one axis in nats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pyro_mivae.arguments import checked
from pyro_mivae.errors import ShapeError
from pyro_mivae.plots.checks import REAL, named, pair, series, words
from pyro_mivae.plots.checks import color as a_color
from pyro_mivae.plots.style import FONT, INK, LINE, MUTED, PALETTE, SMALL, style_axes
from pyro_mivae.tables import write_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float]

_CLOSE = 0.012  # share of the axis under which an interval is drawn as a point


@checked(intervals=named(pair()), marks=named(REAL), colors=named(a_color()))
def plot_sandwich(
    ax: Axes,
    intervals: Mapping[str, Interval],
    *,
    marks: Mapping[str, float] | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draws a row per figure, from its lower to its upper bound, its value written at the right.

    Example:
        >>> from pyro_mivae.plots import new_figure
        >>> rows = {"I(z; x)": (1.2, 1.5), "I(c; x)": (2.0, math.nan)}
        >>> ax = plot_sandwich(new_figure()[1], rows, marks={"rate": 4.0})
        >>> [text.get_text() for text in ax.texts]
        ['rate 4.00', '1.20 – 1.50', '≥ 2.00']
    """
    rows = {n: b for n, b in intervals.items() if any(map(math.isfinite, b))}
    if not rows:
        raise ShapeError("no interval has a bound that is known; nothing to draw")
    marks = {n: v for n, v in (marks or {}).items() if math.isfinite(v)}
    known = [v for bounds in rows.values() for v in bounds if math.isfinite(v)]
    whole = 1.04 * max([*known, *marks.values(), 1e-3])
    low = min(0.0, 1.04 * min(known))
    ax.set_xlim(low, whole)
    ax.set_ylim(len(rows) - 0.45, -0.55)
    style_axes(ax)
    for level, (name, value) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
        ax.axvline(value, color=MUTED, linewidth=1.0, linestyle="--")
        right = value > low + 0.5 * (whole - low)
        ax.annotate(
            f"{name} {value:.2f}",
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if right else 3, 4 + 13 * (len(marks) - 1 - level)),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=SMALL,
            color=MUTED,
        )
    for row, (name, (lower, upper)) in enumerate(rows.items()):
        color = (colors or {}).get(name, PALETTE[0])
        _draw_row(ax, row, (lower, upper), (low, whole), color)
        ax.annotate(
            write_interval(lower, upper),
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=SMALL,
            color=INK,
        )
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", labelsize=FONT)
    ax.set_xlabel("nats per datum")
    return ax


@checked(names=words(1), lower=series(), upper=series(), cost=series(), color=a_color())
def plot_contributions(
    ax: Axes,
    names: Sequence[str],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    cost: Sequence[float] | None = None,
    color: str = PALETTE[0],
) -> Axes:
    """Draws a bar per dimension, or category, as long as its information; and its cost behind.

    The bar is solid up to the lower bound and pale from there to the upper one.
    """
    costs = [math.nan] * len(names) if cost is None else list(cost)
    sizes = (len(names), len(lower), len(upper), len(costs))
    if len(set(sizes)) > 1 or not names:
        raise ShapeError(
            f"{sizes[0]} names for {sizes[1]} lower and {sizes[2]} upper bounds and {sizes[3]} "
            "costs; give one of each per bar, and one bar or more"
        )
    for row, (least, most, paid) in enumerate(zip(lower, upper, costs, strict=True)):
        start = max(0.0, least) if math.isfinite(least) else 0.0
        end = max(start, most) if math.isfinite(most) else start
        ax.barh(row, start, height=0.72, color=color, linewidth=0)
        ax.barh(row, end - start, left=start, height=0.72, color=color, alpha=0.4, linewidth=0)
        if math.isfinite(paid):
            ax.plot([paid, paid], [row - 0.42, row + 0.42], color=INK, linewidth=1.6)
    style_axes(ax, frame=False)
    ax.grid(axis="x", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlim(left=0)
    ax.set_yticks(range(len(names)), list(names))
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("nats per datum")
    return ax


def _draw_row(ax: Axes, row: int, bounds: Interval, limits: Interval, color: str) -> None:
    lower, upper = bounds
    span = limits[1] - limits[0]
    if not math.isfinite(upper):  # fades out: so much at least
        for step in range(8):
            left = lower + step * 0.02 * span
            ax.barh(row, 0.02 * span, left=left, color=color, alpha=1 - step / 8, height=0.5)
        return
    if not math.isfinite(lower):
        for step in range(8):
            left = upper - (step + 1) * 0.02 * span
            ax.barh(row, 0.02 * span, left=left, color=color, alpha=1 - step / 8, height=0.5)
        return
    if upper - lower < _CLOSE * span:
        ax.plot([0.5 * (lower + upper)], [row], marker="D", markersize=7, color=color)
        return
    ax.barh(row, upper - lower, left=lower, color=color, height=0.5, linewidth=0)
