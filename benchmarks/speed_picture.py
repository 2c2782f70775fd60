"""Draws what `benchmarks.speed` measures: every contender beside hand-written PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.speed import ratios
from pyro_mivae.plots.style import (
    FONT,
    INK,
    SMALL,
    group_color,
    group_marker,
    new_figure,
    render_png,
    style_axes,
)

BASELINE = "hand-written, compiled"
TICKS = (0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
COLORS = {
    "ours": 2,
    "ours, staged": 6,
    "ours, eager": 1,
    "ours, mi.SVI": 9,
    "ours, stock SVI": 0,
    "Pyro's SVI and ELBO": 3,
    "hand-written": 8,
    "pythae": 4,
    "pyroved": 5,
}


def draw(cells: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws ratios to the compiled hand-written step: medians, with quartiles.

    Args:
        cells: What `benchmarks.speed.measure` returned.

    Returns:
        The bytes of a PNG.
    """
    cells = [cell for cell in cells if BASELINE in cell["milliseconds"]]
    sizes = sorted({cell["batch_size"] for cell in cells})
    variants = list(dict.fromkeys(cell["variant"] for cell in cells))
    figure, first = new_figure(height=1.4 + 0.42 * len(variants), width=10.0)
    first.remove()
    panels = figure.subplots(1, max(1, len(sizes)), sharey=True, squeeze=False)[0]
    for ax, size in zip(panels, sizes, strict=False):
        style_axes(ax, grid=True)
        ax.axvline(1.0, color=INK, linewidth=1.2)
        for cell in (cell for cell in cells if cell["batch_size"] == size):
            _draw_cell(ax, cell, variants.index(cell["variant"]))
        ax.set_xscale("log")
        ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        ax.set_xticks([], minor=True)
        ax.set(xlim=_limits(cells), ylim=(len(variants) - 0.45, -0.55))
        ax.set_title(f"batches of {size}", color=INK, fontsize=FONT)
        ax.set_xlabel(f"cost of a step; PyTorch {BASELINE} = 1")
        ax.set_yticks(range(len(variants)), variants)
    handles = {
        label: handle
        for ax in panels
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside upper center", ncols=5, fontsize=SMALL,
        frameon=False, labelcolor=INK,
    )  # fmt: skip
    return render_png(figure)


def _limits(cells: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    shown = [
        value
        for cell in cells
        for name in COLORS
        if name in cell["milliseconds"]
        for value in ratios(cell, name, BASELINE)
    ]
    return 0.95 * min([0.9, *shown]), 1.05 * max([1.1, *shown])


def _draw_cell(ax: Any, cell: Mapping[str, Any], row: int) -> None:
    names = [name for name in COLORS if name in cell["milliseconds"]]
    for place, name in enumerate(names):
        low, middle, high = ratios(cell, name, BASELINE)
        ax.errorbar(
            middle,
            row + 0.6 * (place - (len(names) - 1) / 2) / len(names),
            xerr=[[middle - low], [high - middle]],
            fmt=group_marker(0),
            color=group_color(COLORS[name]),
            markersize=4.5,
            label=name,
        )
