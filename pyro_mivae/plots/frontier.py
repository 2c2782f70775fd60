"""The plane of rate and distortion, with models of different weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_mivae.arguments import checked, named, several, text
from pyro_mivae.errors import OptionError
from pyro_mivae.figures import LOWER, key, label
from pyro_mivae.plots.style import (
    INK,
    LINE,
    MUTED,
    REAL,
    SMALL,
    group_marker,
    style_axes,
    write,
    write_free,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

STYLES = ("-", "--", ":", "-.")
LEAST_SPAN = 1.0  # nats that the picture shows at least, in both directions
ISO_LINES = 6
STEPS_ALONG = 12  # places on a grey line where its ELBO may be written
CLOSE = 0.06  # share of the picture's width within which a value is written once
Row = Mapping[str, float]
Mean = tuple[float, float, float]
_SYMBOLS = {"beta": "β", "mi_weight": "λ"}


@checked(rows=several(named(REAL)), along=text(), apart=text(), color=text())
def plot_rate_distortion(
    ax: Axes,
    rows: Sequence[Row],
    *,
    along: str,
    apart: str | None = None,
    color: str = key("mi", side=LOWER),
) -> Axes:
    r"""Draws models as points in the plane of rate and distortion, joined along one option.

    All points of a straight grey line have the same ELBO: minus the sum of rate and distortion.
    Points are single models. Lines join their means over seeds, in the order of the values of
    ``along``, which are written beside them.

    References:
        Alemi et al. (2018), Fixing a Broken ELBO, figure 1. https://arxiv.org/abs/1711.00464

    Example:
        >>> rows = [
        ...     {"beta": b, "rate": 10 / b, "distortion": 20 + b, "mi_lower": 2 / b}
        ...     for b in (1.0, 2.0)
        ... ]
        >>> ax = plot_rate_distortion(mi.plots.new_figure()[1], rows, along="beta")
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('rate (nats)', 'distortion (nats)')
    """
    needed = ["rate", "distortion", color, along, *([] if apart is None else [apart])]
    for row in rows:
        missing = [name for name in needed if name not in row]
        if missing:
            raise OptionError(f"a row lacks {', '.join(missing)}; it has {', '.join(row)}")
    drawn = [row for row in rows if all(math.isfinite(row[n]) for n in ("rate", "distortion"))]
    if not drawn:
        raise OptionError("no row has a rate and a distortion; nothing to draw")
    known = [row[color] for row in drawn if math.isfinite(row[color])] or [0.0, 1.0]
    lines: list[list[Mean]] = []
    points: Any = None
    for index, value in enumerate(sorted({row[apart] for row in drawn}) if apart else [None]):
        own = [row for row in drawn if apart is None or row[apart] == value]
        lines.append(list(_means(own, along)))
        marker = group_marker(10 * index)
        _, rates, distortions = zip(*lines[-1], strict=True)
        ax.plot(
            rates,
            distortions,
            color=MUTED,
            linewidth=1.1,
            markersize=5,
            markerfacecolor="none",
            markeredgewidth=0.8,
            zorder=2,
            marker=marker,
            linestyle=STYLES[index % len(STYLES)],
            label=f"{_SYMBOLS.get(apart, apart)} = {value:g}" if apart else None,
        )
        points = ax.scatter(
            [row["rate"] for row in own],
            [row["distortion"] for row in own],
            c=[row[color] for row in own],
            vmin=min(known),
            vmax=max(known),
            cmap="viridis",
            marker=marker,
            s=34,
            edgecolors=INK,
            linewidths=0.5,
            zorder=3,
        )
    bar: Any = points.figure.colorbar(points, ax=ax, pad=0.02, aspect=28)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=SMALL, labelcolor=INK)
    bar.set_label(label(color), color=MUTED, fontsize=SMALL)
    if apart:
        ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="upper right")
    ax.set(xlabel="rate (nats)", ylabel="distortion (nats)")
    ax.set_title("grey lines: the same ELBO, in nats", fontsize=SMALL, color=MUTED, loc="left")
    style_axes(ax)
    _set_limits(ax)
    points.figure.canvas.figure.draw_without_rendering()  # the texts' places need the layout
    taken = _obstacles(ax)
    _write_values(ax, lines, _SYMBOLS.get(along, along), taken)
    _draw_iso_lines(ax, taken)
    return ax


def _means(rows: Sequence[Row], along: str) -> Iterator[Mean]:
    """The option's values, each with the mean rate and distortion over seeds."""
    for value in sorted({row[along] for row in rows}):
        same = [row for row in rows if row[along] == value]
        rate, distortion = (sum(r[n] for r in same) / len(same) for n in ("rate", "distortion"))
        yield value, rate, distortion


def _set_limits(ax: Axes) -> None:
    """Limits the axes to at least one nat, without negative rates."""
    ax.margins(0.14)
    for limits, set_limits in ((ax.get_xlim(), ax.set_xlim), (ax.get_ylim(), ax.set_ylim)):
        lack = max(0.0, LEAST_SPAN - (limits[1] - limits[0]))
        set_limits(limits[0] - lack / 2, limits[1] + lack / 2)
    left, right = ax.get_xlim()
    ax.set_xlim(left=max(left, -0.03 * right))


def _obstacles(ax: Axes) -> list[Bbox]:
    """Boxes of points, lines and legend, which no text may cover."""
    from matplotlib.transforms import Bbox

    places = [line.get_path().interpolated(20).vertices for line in ax.lines]
    places += [np.asarray(points.get_offsets()) for points in ax.collections]
    size = 6.0  # pixels
    boxes = [
        Bbox.from_bounds(x - size / 2, y - size / 2, size, size)
        for x, y in ax.transData.transform(np.concatenate(places))
    ]
    legend = ax.get_legend()
    return boxes if legend is None else [*boxes, legend.get_window_extent()]


def _write_values(
    ax: Axes, lines: Sequence[Sequence[Mean]], symbol: str, taken: list[Bbox]
) -> None:
    """Writes the option's value beside each mean, once for means at the same place.

    Lines alternate between text below and above, because they are close together.
    """
    sides = [(-5, -5), (7, 5), (7, -5), (-5, 5)]
    written: list[tuple[float, Any]] = []
    to_shares = ax.transData - ax.transAxes
    for means in lines:
        for value, rate, distortion in means:
            at = (rate, distortion)
            place = to_shares.transform(at)
            if any(v == value and math.dist(p, place) < CLOSE for v, p in written):
                continue
            written.append((value, place))
            told = f"{symbol} {value:g}"
            look: dict[str, Any] = {"fontsize": SMALL - 1.5, "zorder": 4}
            places = [(at, side) for side in sides]
            if not write_free(ax, told, places, taken, **look):
                write(ax, told, at, (7, 5), **look)
        sides[:2] = sides[1::-1]


def _draw_iso_lines(ax: Axes, taken: list[Bbox]) -> None:
    """Draws lines of the same ELBO, with its value at the lowest free place."""
    from matplotlib.ticker import MaxNLocator

    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    levels: Any = MaxNLocator(ISO_LINES, steps=[1, 2, 5, 10]).tick_values(left + low, right + high)
    for total in levels[1:-1].tolist():
        ax.plot([left, right], [total - left, total - right], color=LINE, linewidth=0.8, zorder=1)
        along = np.linspace(min(right, total - low), max(left, total - high), STEPS_ALONG)
        places = [((x, total - x), (3, 2)) for x in along.tolist()]
        write_free(ax, f"{-total:g}", places, taken, fontsize=SMALL - 2, color=MUTED, zorder=1)
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
