"""Draws what `benchmarks.results` measured: every seed a point, a row of panels per data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.results_table import bounds
from pyro_mivae.plots.style import (
    FONT,
    INK,
    LINE,
    MUTED,
    SMALL,
    group_color,
    new_figure,
    render_png,
    style_axes,
)

Runs = Sequence[Mapping[str, Any]]


class Mark(NamedTuple):
    """A figure as a panel shows it."""

    name: str
    label: str
    color: int
    shape: str
    sign: int = 1


PANELS: dict[str, tuple[Mark, ...]] = {
    "nats per test image": (
        Mark("elbo", "−ELBO", 0, "o", -1),
        Mark("log_px", "−log p(x), at most", 8, "D", -1),
    ),
    "information about the image, nats": (
        Mark("mi", "I(x; code), between", 0, "|"),
        Mark("mi_c", "I(x; c), between", 1, "|"),
    ),
    "labels read from the code": (
        Mark("linear_probe", "linear probe", 4, "o"),
        Mark("mlp_probe", "MLP probe", 5, "^"),
    ),
    "categories and labels": (
        Mark("cluster_accuracy", "clustering accuracy", 2, "o"),
        Mark("generation_accuracy", "generation accuracy", 1, "^"),
    ),
}
WIDEST = 1.3
"""How far the panel of nats goes beyond the best figure."""


def draw(contents: Sequence[Mapping[str, Any]]) -> bytes:
    """Draws results files.

    Args:
        contents: What they hold, one data set each.

    Returns:
        The bytes of a PNG.
    """
    variants = list(dict.fromkeys(r["variant"] for content in contents for r in content["runs"]))
    height = 1.0 + len(contents) * (0.9 + 0.3 * len(variants))
    figure, first = new_figure(height=height, width=11.0)
    first.remove()
    axes = figure.subplots(len(contents), len(PANELS), sharey=True, squeeze=False)
    for row, content in zip(axes, contents):
        for ax, (title, marks) in zip(row, PANELS.items()):
            style_axes(ax, grid=True)
            ax.set_yticks(range(len(variants)), variants)
            ax.set_ylim(len(variants) - 0.4, -0.6)
            for which, mark in enumerate(marks):
                _draw_mark(ax, content["runs"], variants, mark, which - (len(marks) - 1) / 2)
                known = (content.get("pixels") or {}).get(mark.name)
                if known is not None:
                    style = {"linewidth": 1.0, "linestyle": ":", "label": "the same of the pixels"}
                    ax.axvline(known, color=group_color(mark.color), **style)
            ax.set_xlabel(title)
            if "elbo" in {mark.name for mark in marks}:
                _limit(ax, content["runs"], variants)
            if "mi" in {mark.name for mark in marks}:
                _show_ceiling(ax, content["test"])
        row[0].set_title(_name(content), color=INK, fontsize=FONT, loc="left")
    handles = {
        label: handle
        for ax in axes.flat
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(), handles, loc="outside upper center", ncols=4, fontsize=SMALL,
        frameon=False, labelcolor=INK,
    )  # fmt: skip
    return render_png(figure)


def _name(content: Mapping[str, Any]) -> str:
    seeds = {run["seed"] for run in content["runs"]}
    return f"{content['data']}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"


def _draw_mark(ax: Any, runs: Runs, variants: Sequence[str], mark: Mark, side: float) -> None:
    """Draws a figure of every run: a point, or a line from one bound to the other."""
    color, labels = group_color(mark.color), iter([mark.label])
    for place, variant in enumerate(variants):
        own = [run["metrics"] for run in runs if run["variant"] == variant]
        for seed, metrics in enumerate(own):
            level = place + 0.3 * side + 0.22 * ((seed + 0.5) / len(own) - 0.5)
            if mark.shape != "|":
                value = metrics.get(mark.name)
                if value is not None:
                    ax.plot(
                        mark.sign * value, level, mark.shape, color=color, markersize=4,
                        alpha=0.8, markeredgewidth=0, label=next(labels, None),
                    )  # fmt: skip
                continue
            low, high = bounds(metrics, mark.name)
            if low is not None:
                ends = [low, low if high is None else high]
                ax.plot(
                    ends, [level, level], "|-", color=color, linewidth=1.6, markersize=4,
                    label=next(labels, None),
                )  # fmt: skip


def _show_ceiling(ax: Any, num_test: int) -> None:
    """Marks what the sandwich cannot exceed from below; ends the axis at twice that."""
    ceiling = math.log(num_test)
    ax.axvline(ceiling, color=MUTED, linewidth=1.0, linestyle="--")
    ax.set_xlim(-0.03 * ceiling, min(ax.get_xlim()[1], 2.4 * ceiling))
    ax.text(ceiling, -0.5, f" log {num_test:,}", color=MUTED, fontsize=SMALL - 1.5, va="center")


def _limit(ax: Any, runs: Runs, variants: Sequence[str]) -> None:
    """Ends the axis where one variant's price would hide the others' differences."""
    known = [run for run in runs if run["metrics"].get("elbo") is not None]
    if not known:
        return
    end = WIDEST * min(-run["metrics"]["elbo"] for run in known)
    near = [value for line in ax.get_lines() for value in line.get_xdata() if value <= end]
    margin = 0.06 * (max(near) - min(near)) or 1.0
    end = min(end, max(near) + 3 * margin)
    ax.set_xlim(min(near) - margin, end)
    for place, variant in enumerate(variants):
        far = [-r["metrics"]["elbo"] for r in known if r["variant"] == variant]
        if far and fmean(far) > end:
            ax.text(
                end, place, f"{fmean(far):.0f} ▸", color=INK, fontsize=SMALL, ha="right",
                va="center", backgroundcolor="white",
            )  # fmt: skip
    for spine in ax.spines.values():
        spine.set_color(LINE)
