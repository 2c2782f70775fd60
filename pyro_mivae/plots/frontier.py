"""The plane of rate and distortion, and what models of other weights make of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyro_mivae.arguments import checked, several, text
from pyro_mivae.errors import OptionError
from pyro_mivae.plots.checks import REAL, named
from pyro_mivae.plots.style import INK, LINE, MUTED, SMALL, group_marker, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ISO_LINES = 6
STYLES = ("-", "--", ":", "-.")
ROOM = 0.12
"""Share of the picture's width that a value takes."""
CLOSE = 0.06
"""Share of the picture within which two values are written once."""
LINE_HEIGHT = 0.055
"""Share of the picture's height that a text takes."""
LEAST_SPAN = 1.0
"""Nats that the picture shows at least, in both directions."""
STEPS_ALONG = 12
"""Places on a grey line where its ELBO may be written."""
Row = Mapping[str, float]
Box = tuple[float, float, float, float]


@checked(rows=several(named(REAL)), along=text(), apart=text(), color=text())
def plot_rate_distortion(
    ax: Axes,
    rows: Sequence[Row],
    *,
    along: str,
    apart: str | None = None,
    color: str = "mi_lower",
) -> Axes:
    r"""Draws models as points in the plane of rate and distortion, joined along one option.

    On a straight grey line every point has the same ELBO, minus the sum of the two. Points are
    single models; the lines join their means over seeds, in the order of ``along``, whose value
    stands beside each.

    References:
        Alemi et al. (2018), Fixing a Broken ELBO, figure 1. https://arxiv.org/abs/1711.00464

    Example:
        >>> from pyro_mivae.plots import new_figure
        >>> rows = [
        ...     {"beta": b, "rate": 10 / b, "distortion": 20 + b, "mi_lower": 2 / b}
        ...     for b in (1.0, 2.0)
        ... ]
        >>> ax = plot_rate_distortion(new_figure()[1], rows, along="beta")
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
    known = [row[color] for row in drawn if math.isfinite(row[color])]
    limits = (min(known), max(known)) if known else (0.0, 1.0)
    lines = sorted({row[apart] for row in drawn}) if apart is not None else [None]
    points: Any = None
    told: list[tuple[float, float, float, bool]] = []
    places = [(row["rate"], row["distortion"]) for row in drawn]
    for index, value in enumerate(lines):
        own = [row for row in drawn if apart is None or row[apart] == value]
        marker = group_marker(10 * index)
        label = None if apart is None else f"{_symbol(apart)} = {value:g}"
        means = _means(own, along)
        _join_means(ax, means, (marker, STYLES[index % len(STYLES)]), label)
        told += [(*mean, index % 2 == 0) for mean in means]
        places += _along([mean[1:] for mean in means])
        points = ax.scatter(
            [row["rate"] for row in own],
            [row["distortion"] for row in own],
            c=[row[color] for row in own],
            vmin=limits[0],
            vmax=limits[1],
            cmap="viridis",
            marker=marker,
            s=34,
            edgecolors=INK,
            linewidths=0.5,
            zorder=3,
        )
    ax.margins(0.14)
    ax.set_xlabel("rate (nats)")
    ax.set_ylabel("distortion (nats)")
    style_axes(ax)
    _set_limits(ax)
    taken = [_box(ax, *place, (-0.015, -0.015), (0.03, 0.03)) for place in places]
    taken += _write_values(ax, told, along)
    _draw_iso_lines(ax, drawn, taken)
    bar: Any = points.figure.colorbar(points, ax=ax, pad=0.02, aspect=28)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=SMALL, labelcolor=INK)
    bar.set_label(_symbol(color), color=MUTED, fontsize=SMALL)
    if apart is not None:
        ax.legend(frameon=False, fontsize=SMALL, labelcolor=INK, loc="upper right")
    return ax


def _means(rows: Sequence[Row], along: str) -> list[tuple[float, float, float]]:
    """The option's values, each with the mean rate and distortion over seeds."""
    means = []
    for value in sorted({row[along] for row in rows}):
        same = [row for row in rows if row[along] == value]
        rate, distortion = (sum(r[n] for r in same) / len(same) for n in ("rate", "distortion"))
        means.append((value, rate, distortion))
    return means


def _join_means(
    ax: Axes, means: Sequence[tuple[float, float, float]], look: tuple[str, str], label: str | None
) -> None:
    """Joins the means over seeds."""
    marker, style = look
    ax.plot(
        [rate for _, rate, _ in means],
        [distortion for _, _, distortion in means],
        color=MUTED,
        linewidth=1.1,
        linestyle=style,
        marker=marker,
        markersize=5,
        markerfacecolor="none",
        markeredgewidth=0.8,
        zorder=2,
        label=label,
    )


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places on the lines between corners."""
    return [
        (x + share / 20 * (to_x - x), y + share / 20 * (to_y - y))
        for (x, y), (to_x, to_y) in itertools.pairwise(corners)
        for share in range(20)
    ]


def _write_values(
    ax: Axes, means: Sequence[tuple[float, float, float, bool]], along: str
) -> list[Box]:
    """Writes the option's value beside each mean, once where several lie upon each other.

    The lines write below and above in turn, since they run close to each other.
    """
    written: list[tuple[float, float, float]] = []
    boxes = []
    for value, rate, distortion, below in means:
        at = _box(ax, rate, distortion)
        place = (value, at[0], at[2])
        if any(p[0] == value and math.dist(p[1:], place[1:]) < CLOSE for p in written):
            continue
        written.append(place)
        under = below and place[1] > ROOM
        text = f"{_symbol(along)} {value:g}"
        size = (_width(text), 0.8 * LINE_HEIGHT)
        offset = (-0.02 - size[0], -0.02 - size[1]) if under else (0.025, 0.02)
        boxes.append(_box(ax, rate, distortion, offset, size))
        ax.annotate(
            text,
            (rate, distortion),
            xytext=(-5, -5) if under else (7, 5),
            ha="right" if under else "left",
            va="top" if under else "bottom",
            textcoords="offset points",
            fontsize=SMALL - 1.5,
            color=INK,
            zorder=4,
        )
    return boxes


def _draw_iso_lines(ax: Axes, rows: Sequence[Row], taken: Sequence[Box]) -> None:
    """Draws lines of the same ELBO, and says which at the lowest place that is free."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    boxes = list(taken)
    for total in _totals(rows, right - left, high - low):
        ax.plot([left, right], [total - left, total - right], color=LINE, linewidth=0.8, zorder=1)
        text = f"{-total:g}"
        size = (_width(text), LINE_HEIGHT)
        lowest = min(total - low, right - size[0] * (right - left))  # where it fits beside it
        for share in range(STEPS_ALONG):
            x = lowest - share / STEPS_ALONG * (lowest - left)
            box = _box(ax, x, total - x, size=size)
            if _is_inside(box) and not any(_overlap(box, other) for other in boxes):
                boxes.append(box)
                ax.annotate(
                    text,
                    (x, total - x),
                    xytext=(3, 2),
                    textcoords="offset points",
                    fontsize=SMALL - 2,
                    color=MUTED,
                    zorder=1,
                )
                break
    ax.set_xlim(left, right)
    ax.set_ylim(low, high)
    ax.set_title("grey lines: the same ELBO, in nats", fontsize=SMALL, color=MUTED, loc="left")


def _box(
    ax: Axes,
    rate: float,
    distortion: float,
    offset: tuple[float, float] = (0.0, 0.0),
    size: tuple[float, float] = (0.0, 0.0),
) -> Box:
    """A place in shares of the picture: left, right, lower and upper end."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x = (rate - left) / (right - left) + offset[0]
    y = (distortion - low) / (high - low) + offset[1]
    return x, x + size[0], y, y + size[1]


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _is_inside(box: Box) -> bool:
    return -1e-9 <= min(box) and max(box) <= 1 + 1e-9


def _totals(rows: Sequence[Row], across: float, up: float) -> list[float]:
    """Round numbers about the sums of rate and distortion, as close as their texts allow."""
    sums = [row["rate"] + row["distortion"] for row in rows]
    decade = math.floor(math.log10(across + up)) - 3
    steps = ((e, factor * 10.0**e) for e in itertools.count(decade) for factor in (1, 2, 5))
    for exponent, step in steps:
        first, last = math.floor(min(sums) / step), math.ceil(max(sums) / step)
        if last - first > ISO_LINES:
            continue
        totals = [round(n * step, max(0, -exponent)) for n in range(first, last + 1)]
        widest = max(_width(f"{-total:g}") for total in totals)
        if step >= widest * across and step >= LINE_HEIGHT * up:
            break
    return totals


def _width(text: str) -> float:
    """Share of the picture's width that the text at a line takes."""
    return 0.025 + 0.017 * len(text)


def _set_limits(ax: Axes) -> None:
    """Lets a picture of points close to each other show a nat at least, and no negative rates."""
    for limits, set_limits in ((ax.get_xlim(), ax.set_xlim), (ax.get_ylim(), ax.set_ylim)):
        lack = max(0.0, LEAST_SPAN - (limits[1] - limits[0]))
        set_limits(limits[0] - lack / 2, limits[1] + lack / 2)
    left, right = ax.get_xlim()
    ax.set_xlim(left=max(left, -0.03 * right))


def _symbol(option: str) -> str:
    return {
        "beta": "β",
        "mi_weight": "λ",
        "mi_lower": "information I(x; code), at least (nats)",
    }.get(option, option)
