"""Draws what `benchmarks.bounds` measures: a small plot for each bound, the truth its diagonal."""

from __future__ import annotations

import io
import math
from typing import Any

from PIL import Image

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

TOP = 15.0
"""The nats at which the plots end; what goes on above says so at the edge."""
PANELS = {
    "infonce": ("InfoNCE", "lower bound, never above log n"),
    "interpolated, alpha 0.01": (r"$I_\alpha$, $\alpha$ = 0.01", "lower bound, higher ceiling"),
    "nwj": ("NWJ, n(n−1) pairs", "lower bound on average"),
    "dv": ("DV, n(n−1) pairs", "errs high"),
    "smile, clip 5": ("SMILE, clip 5", "no bound on either side"),
    "leave-one-out": ("Leave-one-out", "upper bound"),
    "club": ("CLUB", "upper bound, soon loose"),
    "nwj, permuted": ("NWJ, n permuted pairs", "most samples err high"),
    "dv, permuted": ("DV, n permuted pairs", "errs high, without limit"),
    "smile, clip 1": ("SMILE, clip 1", "no bound on either side"),
}
NAMES = {
    "infonce": "InfoNCE",
    "interpolated, alpha 0.01": r"$I_\alpha$, $\alpha$ = 0.01",
    "nwj": "NWJ",
    "dv": "DV",
    "mine": "MINE",
    "jensen-shannon": "Jensen-Shannon",
    "smile, clip 5": "SMILE, clip 5",
}


def draw(content: dict[str, Any]) -> bytes:
    """Draws the results as a PNG.

    Args:
        content: What `benchmarks.bounds.main` returns.

    Returns:
        The bytes of the file.
    """
    nats = sorted({row["nats"] for row in content["trained"]})
    figure, first = new_figure(height=9.6 if nats else 6.4, width=11.0)
    first.remove()
    parts = figure.subfigures(2, 1, height_ratios=[2, 1]) if nats else [figure]
    _draw_optimal(parts[0], content)
    if nats:
        _draw_trained(parts[1], content, nats)
    return _with_few_colors(render_png(figure))


def _with_few_colors(png: bytes) -> bytes:
    """Halves a file or better, with no difference to be seen."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


def _draw_optimal(figure: Any, content: dict[str, Any]) -> None:
    n, runs = content["settings"]["n"], content["settings"]["runs"]
    figure.suptitle(
        f"What {n} pairs say of the information between Gaussians, by the best critic there is: "
        f"mean and 5 to 95 % of {runs} samples",
        color=INK,
        fontsize=FONT + 1,
    )
    axes = figure.subplots(2, 5, sharex=True, sharey=True)
    dims = sorted({row["dims"] for row in content["optimal"]})
    end = 1.03 * max(row["nats"] for row in content["optimal"])
    for ax, (bound, (title, remark)) in zip(axes.flat, PANELS.items()):
        style_axes(ax, grid=True)
        ax.set(xlim=(0, end), ylim=(-0.5, TOP))
        ax.plot([0, end], [0, end], color=INK, linewidth=1.2, zorder=3)
        ax.axhline(math.log(n), color=MUTED, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
        for color, d in enumerate(dims):
            rows = [r for r in content["optimal"] if r["bound"] == bound and r["dims"] == d]
            xs, ys = [r["nats"] for r in rows], [r["mean"] for r in rows]
            low, high = ([r["quantiles"][i] for r in rows] for i in (0, -1))
            ax.fill_between(xs, low, high, color=group_color(color), alpha=0.25, linewidth=0)
            ax.plot(
                xs, ys, "o-", color=group_color(color), markersize=3.5, linewidth=1.6, zorder=4
            )
        ax.set_title(title, color=INK, fontsize=FONT, pad=18)
        ax.text(
            0.5, 1.03, remark, transform=ax.transAxes, color=MUTED, fontsize=SMALL, ha="center"
        )
    for ax in axes[:, 0]:
        ax.set_ylabel("what it says, nats")
    for ax in axes[1]:
        ax.set_xlabel("true information, nats")
    _name_lines(axes[0, 0], dims, n, end)


def _name_lines(ax: Any, dims: list[int], n: int, end: float) -> None:
    ax.text(0.62 * end, 0.62 * end + 1.6, "truth", color=INK, fontsize=SMALL, ha="right")
    ax.text(
        0.02 * end, math.log(n) + 0.25, f"log n = {math.log(n):.2f}", color=MUTED, fontsize=8.5
    )
    for row, d in enumerate(dims):
        label = f"{d} dimension{'s' if d > 1 else ''}"
        ax.text(
            0.03 * end, TOP - 1.5 - 1.35 * row, label, color=group_color(row), fontsize=SMALL,
            fontweight="bold",
        )  # fmt: skip


def _draw_trained(figure: Any, content: dict[str, Any], nats: list[float]) -> None:
    settings = content["settings"]
    figure.suptitle(
        f"With critics that learn: {settings['critic_dims']} dimensions, {settings['steps']} "
        f"steps of {settings['batch']} fresh pairs; mean ± sd over samples and "
        f"{settings['seeds']} trainings",
        color=INK,
        fontsize=FONT + 1,
    )
    critics = list(dict.fromkeys(row["critic"] for row in content["trained"]))
    axes = figure.subplots(1, len(nats), sharey=True, squeeze=False)[0]
    names = list(NAMES)
    for ax, information in zip(axes, nats):
        style_axes(ax, grid=True)
        ax.axvline(information, color=INK, linewidth=1.2)
        ax.text(information, -0.75, "truth ", color=INK, fontsize=SMALL, ha="right", va="center")
        for which, critic in enumerate(critics):
            rows = [
                row
                for row in content["trained"]
                if row["critic"] == critic and row["nats"] == information
            ]
            ax.errorbar(
                [row["mean"] for row in rows],
                [
                    names.index(row["bound"]) + 0.22 * (which - (len(critics) - 1) / 2)
                    for row in rows
                ],
                xerr=[row["sd"] for row in rows],
                fmt="os"[which % 2],
                color=group_color((4, 8)[which % 2]),
                markersize=6,
                elinewidth=1.6,
                label=f"{critic} critic",
            )
        ax.set(xlim=(0, 1.25 * information), ylim=(len(names) - 0.5, -1.1))
        ax.set_yticks(range(len(names)), list(NAMES.values()))
        ax.set_xlabel(f"what it says, nats (truth: {information:g})")
    axes[0].legend(loc="lower left", fontsize=SMALL, frameon=False, labelcolor=INK)
    for spine in (s for ax in axes for s in ax.spines.values()):
        spine.set_color(LINE)
