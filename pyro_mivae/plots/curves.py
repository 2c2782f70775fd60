"""Curves of a training run: what is lost, and what the code carries, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pyro_mivae.arguments import checked, several, text, whole
from pyro_mivae.errors import ShapeError
from pyro_mivae.figures import parse
from pyro_mivae.plots.checks import color, columns, named, pair, series
from pyro_mivae.plots.style import (
    FONT,
    INK,
    MUTED,
    PALETTE,
    SMALL,
    group_color,
    site_color,
    style_axes,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_TERM_COLORS = ("#bd1f01", "#832db6", "#a96b59")


class Columns(Protocol):
    """What the curves need of a history: named columns with one number per epoch."""

    @property
    def columns(self) -> Sequence[str]:
        """The names of the columns."""

    def __getitem__(self, column: str, /) -> Sequence[float]:
        """The numbers of one column, one per epoch."""


@checked(
    curves=named(series()),
    epochs=series(),
    colors=named(color()),
    names=named(text()),
    ylabel=text(),
)
def plot_curves(
    ax: Axes,
    curves: Mapping[str, Sequence[float]],
    *,
    epochs: Sequence[float] | None = None,
    colors: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
    ylabel: str = "nats per datum",
) -> Axes:
    """Draws one line per curve; a curve called ``val_NAME`` is NAME's on held-out data, dashed.

    A first stretch that would flatten all the rest is cut off at the top of the Axes.

    Example:
        >>> from pyro_mivae.plots import new_figure
        >>> _, ax = new_figure()
        >>> len(plot_curves(ax, {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5]}).lines)
        2
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    colors, names, taken = dict(colors or {}), names or {}, 0
    for name, values in curves.items():
        at = range(1, len(values) + 1) if epochs is None else epochs
        if len(at) != len(values):
            raise ShapeError(
                f"curve {name!r} has {len(values)} values for {len(at)} epochs; give one per epoch"
            )
        key = name.removeprefix("val_")
        if key not in colors:
            colors[key], taken = group_color(taken), taken + 1
        ax.plot(
            list(at),
            list(values),
            color=colors[key],
            linestyle="--" if name.startswith("val_") else "-",
            linewidth=1.8,
            marker="o" if len(values) < 3 else None,
            label="_" * name.startswith("val_") + names.get(name, name),
        )
    style_axes(ax, grid=True)
    _limit_height(ax, list(curves.values()))
    ax.set_xlabel("epoch")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    handles = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    if any(name.startswith("val_") for name in curves):
        handles.append(Line2D([], [], color=MUTED, linestyle="--", label="held out"))
    _write_legend(ax, handles)
    return ax


@checked(runs=named(several(pair(), least=0)), colors=named(color()), ylabel=text())
def plot_runs(
    ax: Axes,
    runs: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    *,
    colors: Mapping[str, str] | None = None,
    ylabel: str = "nats per datum",
) -> Axes:
    """Draws one quantity of several models, a colour each, a line per seed.

    Example:
        >>> from pyro_mivae.plots import new_figure
        >>> runs = {"a": [([1, 2], [3.0, 2.0])], "b": [([1, 2, 3], [4.0, 2.0, 1.0])]}
        >>> len(plot_runs(new_figure()[1], runs).lines)
        2
    """
    from matplotlib.ticker import MaxNLocator

    handles: list[Artist] = []
    for place, (name, curves) in enumerate(runs.items()):
        color = (colors or {}).get(name, group_color(place))
        for number, (epochs, values) in enumerate(curves):
            if len(epochs) != len(values):
                raise ShapeError(
                    f"a curve of {name!r} has {len(values)} values for {len(epochs)} epochs; "
                    "give one per epoch"
                )
            (line,) = ax.plot(
                list(epochs),
                list(values),
                color=color,
                linewidth=1.8 if len(curves) == 1 else 1.1,
                alpha=1.0 if len(curves) == 1 else 0.75,
                marker="o" if len(values) < 3 else None,
                label="_" * (number > 0) + name,
            )
            if number == 0:
                handles.append(line)
    style_axes(ax, grid=True)
    _limit_height(ax, [values for curves in runs.values() for _, values in curves])
    ax.set_xlabel("epoch")
    ax.set_ylabel(ylabel)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    _write_legend(ax, handles)
    return ax


@checked(history=columns())
def plot_loss_curves(ax: Axes, history: Columns) -> Axes:
    """Draws the loss, −ELBO and the distortion of a run, those on held-out data dashed.

    Where the loss is −ELBO, one line stands for both. The held-out loss is left to its two parts.
    """
    curves: dict[str, Sequence[float]] = {}
    names = {"elbo": "−ELBO"}
    for column in ("loss", "elbo", "distortion", "val_elbo", "val_distortion"):
        values = history[column] if column in history.columns else ()
        if any(map(math.isfinite, values)):
            curves[column] = [-v for v in values] if column.endswith("elbo") else values
    if {"loss", "elbo"} <= curves.keys() and all(map(_same, curves["loss"], curves["elbo"])):
        del curves["loss"]
        names["elbo"] = "loss (−ELBO)"
    colors = {"loss": "#717581", "elbo": PALETTE[0], "distortion": "#e76300"}
    return plot_curves(ax, curves, epochs=_epochs(history), colors=colors, names=names)


@checked(history=columns(), num_categories=whole(least=0))
def plot_information_curves(
    ax: Axes, history: Columns, *, num_categories: int | None = None
) -> Axes:
    """Draws what the code carries: the KL of every site, and every information term."""
    curves: dict[str, Sequence[float]] = {}
    colors: dict[str, str] = {}
    names = {}
    for column in history.columns:
        name = column.removeprefix("val_")
        found = parse(name)
        if found is None or found.name not in ("kl", "mi"):
            continue
        if name not in colors:
            terms = sum(color in _TERM_COLORS for color in colors.values())
            colors[name] = (
                site_color(found.site) if found.name == "kl" else _TERM_COLORS[terms % 3]
            )
        if any(map(math.isfinite, history[column])):
            curves[column] = history[column]
            names[column] = found.label
    plot_curves(ax, curves, epochs=_epochs(history), colors=colors, names=names)
    if num_categories and num_categories > 1 and any("_c" in name for name in curves):
        ceiling = math.log(num_categories)
        ax.axhline(ceiling, color=MUTED, linewidth=1.0, linestyle=":")
        ax.annotate(
            f"log {num_categories} = {ceiling:.2f}",
            (1.0, ceiling),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            color=MUTED,
            fontsize=SMALL,
        )
    return ax


def _write_legend(ax: Axes, handles: Sequence[Artist]) -> None:
    """Writes a legend above the Axes, in as many columns as fit."""
    if handles:
        longest = max(len(str(handle.get_label())) for handle in handles)
        ax.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=max(1, min(4, 60 // (longest + 6))),
            frameon=False,
            fontsize=FONT,
            labelcolor=INK,
            borderaxespad=0.2,
            handlelength=1.6,
            columnspacing=1.4,
        )


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6)


def _epochs(history: Columns) -> Sequence[float] | None:
    return history["epoch"] if "epoch" in history.columns else None


def _limit_height(ax: Axes, curves: Sequence[Sequence[float]]) -> None:
    whole = [v for values in curves for v in values if math.isfinite(v)]
    later = [v for values in curves for v in values[len(values) // 4 + 1 :] if math.isfinite(v)]
    if not later:
        return
    span = max(later) - min(later)
    if span > 0 and max(whole) - min(whole) > 4 * span:
        ax.set_ylim(min(whole) - 0.05 * span, max(later) + 0.25 * span)
