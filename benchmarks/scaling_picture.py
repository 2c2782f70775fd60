"""Draws what `benchmarks.scaling` measures: a panel for each thing that grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.scaling import values
from pyro_mivae.plots.style import (
    FONT,
    INK,
    SMALL,
    group_color,
    new_figure,
    render_png,
    style_axes,
)

COLORS = {"hand-written, compiled": 8, "ours": 2, "ours, stock SVI": 0}
PANELS = {
    "batch": ("batch size", "ms per step"),
    "latent_dim": ("latent dimensions", "ms per step"),
    "categories": ("categories, summed out", "ms per step"),
    "particles": ("particles (dotted: one by one)", "ms per step"),
    "images": ("images in the data set", "images per second"),
    "memory": ("batch size", "memory of training, MiB"),
}


def draw(points: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws all sweeps.

    Args:
        points: What `benchmarks.scaling.main` measured.

    Returns:
        The bytes of a PNG.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    figure, first = new_figure(height=6.2, width=11.0)
    first.remove()
    axes = figure.subplots(2, 3)
    for ax, (sweep, (grows, cost)) in zip(axes.flat, PANELS.items(), strict=True):
        style_axes(ax, grid=True)
        _draw_sweep(ax, points, sweep, "o-")
        if sweep == "particles":
            _draw_sweep(ax, points, "particles one by one", "o:")
        ax.set_xscale("log", base=2 if sweep != "images" else 10)
        if sweep != "images":
            ax.xaxis.set_major_formatter("{x:g}")
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylim(bottom=0 if sweep == "images" else None)
        ax.set_xlabel(grows)
        ax.set_title(cost, color=INK, fontsize=FONT)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=4, fontsize=SMALL, frameon=False,
        labelcolor=INK,
    )  # fmt: skip
    return render_png(figure)


def _draw_sweep(ax: Any, points: Sequence[Mapping[str, Any]], sweep: str, style: str) -> None:
    mine = [point for point in points if point["sweep"] == sweep]
    names = list(dict.fromkeys(name for point in mine for name in values(point)))
    for name in names:
        shown = [point for point in mine if name in values(point)]
        costs = [values(point)[name] for point in shown]
        if sweep == "images":
            pairs = zip(shown, costs, strict=True)
            costs = [1e3 * point["batch_size"] / cost for point, cost in pairs]
        ax.plot(
            [point["value"] for point in shown],
            costs,
            style,
            color=group_color(COLORS.get(name, 4)),
            markersize=4,
            linewidth=1.6,
            label=name,
        )
