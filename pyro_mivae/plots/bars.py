"""Bars of nats, and of shares of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from pyro_mivae.arguments import checked, floats, named
from pyro_mivae.errors import ShapeError
from pyro_mivae.plots.style import (
    FONT,
    INK,
    LINE,
    MUTED,
    NAMES,
    PALETTE,
    REAL,
    color,
    name_rows,
    pair,
    series,
    site_color,
    style_axes,
    write,
)
from pyro_mivae.tables import write_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float]

_CLOSE = 0.012  # share of the axis under which an interval is drawn as a point
_NARROW = 0.28  # share of the bar under which a site's text goes one line higher


@checked(intervals=named(pair(REAL)), marks=named(REAL), colors=named(color))
def plot_sandwich(
    ax: Axes,
    intervals: Mapping[str, Interval],
    *,
    marks: Mapping[str, float] | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draws a row per figure from its lower to its upper bound, with its value at the right.

    Example:
        >>> rows = {"I(z; x)": (1.2, 1.5), "I(c; x)": (2.0, math.nan)}
        >>> ax = plot_sandwich(mi.plots.new_figure()[1], rows, marks={"rate": 4.0})
        >>> [text.get_text() for text in ax.texts]
        ['rate 4.00', '1.20 – 1.50', '≥ 2.00']
    """
    rows = {n: b for n, b in intervals.items() if any(map(math.isfinite, b))}
    if not rows:
        raise ShapeError("no interval has a known bound; nothing to draw")
    marks = {n: v for n, v in (marks or {}).items() if math.isfinite(v)}
    known = [v for bounds in rows.values() for v in bounds if math.isfinite(v)]
    high = 1.04 * max([*known, *marks.values(), 1e-3])
    low = min(0.0, 1.04 * min(known))
    style_axes(ax)
    ax.set_xlim(low, high)
    ax.set_xlabel("nats per datum")
    name_rows(ax, list(rows))
    for level, (name, value) in enumerate(sorted(marks.items(), key=lambda mark: mark[1])):
        ax.axvline(value, color=MUTED, linewidth=1.0, linestyle="--")
        right = value > low + 0.5 * (high - low)
        write(
            ax,
            f"{name} {value:.2f}",
            (value, 1.0),
            (-3 if right else 3, 4 + 13 * (len(marks) - 1 - level)),
            xycoords=("data", "axes fraction"),
            ha="right" if right else "left",
            color=MUTED,
        )
    for row, (name, bounds) in enumerate(rows.items()):
        _draw_interval(ax, row, bounds, high - low, (colors or {}).get(name, PALETTE[0]))
        text, at_right = write_interval(*bounds), ("axes fraction", "data")
        write(ax, text, (1.0, row), (8, 0), xycoords=at_right, va="center")
    return ax


@checked(names=NAMES, lower=series, upper=series, cost=series, color=color)
def plot_contributions(
    ax: Axes,
    names: Sequence[str],
    lower: Sequence[float],
    upper: Sequence[float],
    *,
    cost: Sequence[float] | None = None,
    color: str = PALETTE[0],
) -> Axes:
    """Draws a bar with the information of each dimension or category, and a stroke at its cost.

    The bar is solid up to the lower bound, and pale from there to the upper one.

    Example:
        >>> ax = plot_contributions(mi.plots.new_figure()[1], ["z0", "z1"], [0.5, 0.1], [0.7, 0.1])
        >>> len(ax.patches) > 0
        True
    """
    costs = [math.nan] * len(names) if cost is None else list(cost)
    if not len(names) == len(lower) == len(upper) == len(costs):
        raise ShapeError(
            f"{len(names)} names for {len(lower)} lower and {len(upper)} upper bounds and "
            f"{len(costs)} costs; give one of each per bar"
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
    ax.set_xlabel("nats per datum")
    name_rows(ax, names)
    return ax


@checked(nats=named(floats(finite=False)))
def plot_information_bar(ax: Axes, nats: Mapping[str, Tensor]) -> Axes:
    """Draws one bar divided into sites, and each site into its dimensions, the largest first.

    Example:
        >>> nats = {"z": torch.ones(3), "c": torch.tensor(2.0)}
        >>> ax = plot_information_bar(mi.plots.new_figure(1.2)[1], nats)
        >>> [text.get_text() for text in ax.texts]
        ['z  3.00 nats', 'c  2.00 nats']
    """
    for site, values in nats.items():
        if values.dim() > 1:
            shape = tuple(values.shape)
            raise ShapeError(f"site {site!r}: nats of shape {shape}; expected (d,) or ()")
    sizes = {site: values.detach().cpu().double().reshape(-1) for site, values in nats.items()}
    known = {site: values[values.isfinite()].clamp(min=0) for site, values in sizes.items()}
    total = sum(float(values.sum()) for values in known.values()) or 1.0
    left, lines = 0.0, 0
    for site, values in known.items():
        start, in_all = left, float(values.sum())
        for rank, value in enumerate(values.sort(descending=True).values.tolist()):
            alpha = 1.0 if rank % 2 == 0 else 0.72
            ax.barh(0, value, left=left, height=1.0, color=site_color(site), alpha=alpha)
            left += value
        whole_is_known = len(values) == len(sizes[site])
        text = f"{site}  {in_all:.2f} nats" if whole_is_known else f"{site}  not defined"
        narrow = len(known) > 1 and in_all / total < _NARROW
        lines = max(lines, int(narrow))
        at_right = start / total > 0.6
        place = (left if at_right else start, 0.5)
        look = {"ha": "right" if at_right else "left", "va": "bottom", "fontsize": FONT}
        write(ax, text, place, (0, 20 if narrow else 5), **look)
    style_axes(ax, frame=False)
    ax.set(xlim=(0, total), ylim=(-0.5, 1.3 + 0.5 * lines), xlabel="nats per datum")
    ax.set_yticks([])
    return ax


def _draw_interval(ax: Axes, row: int, bounds: Interval, span: float, color: str) -> None:
    lower, upper = bounds
    if math.isfinite(lower) and math.isfinite(upper):
        if upper - lower < _CLOSE * span:
            ax.plot([0.5 * (lower + upper)], [row], marker="D", markersize=7, color=color)
        else:
            ax.barh(row, upper - lower, left=lower, color=color, height=0.5, linewidth=0)
        return
    for step in range(8):  # fades out on the side that is not known
        left = (
            lower + 0.02 * step * span
            if math.isfinite(lower)
            else upper - 0.02 * (step + 1) * span
        )
        ax.barh(row, 0.02 * span, left=left, color=color, alpha=1 - step / 8, height=0.5)
