"""Curves of a training run: losses and information by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyro_mivae.arguments import checked, instance, named, several, text, whole
from pyro_mivae.errors import ShapeError
from pyro_mivae.figures import parse
from pyro_mivae.plots.style import (
    FONT,
    INK,
    MUTED,
    PALETTE,
    color,
    group_color,
    pair,
    series,
    site_color,
    style_axes,
    write,
)
from pyro_mivae.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Curve = tuple[str, Sequence[float] | None, Sequence[float], dict[str, Any]]
FITTED = "a result of fit"
_TERM_COLORS = ("#bd1f01", "#832db6", "#a96b59")


@checked(
    curves=named(series),
    epochs=series,
    colors=named(color),
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
    """Draws one line per curve; ``val_NAME``, of held-out data, is dashed.

    If the first part would flatten the rest, the Axes cut it off at the top.

    Example:
        >>> _, ax = mi.plots.new_figure()
        >>> len(plot_curves(ax, {"loss": [3.0, 2.0], "val_loss": [3.5, 2.5]}).lines)
        2
    """
    from matplotlib.lines import Line2D

    colors, names, others, lines = dict(colors or {}), names or {}, 0, []
    for name, values in curves.items():
        key = name.removeprefix("val_")
        if key not in colors:
            colors[key], others = group_color(others), others + 1
        held_out = name.startswith("val_")
        look = {"color": colors[key], "linewidth": 1.8, "linestyle": "--" if held_out else "-"}
        look["label"] = "_" * held_out + names.get(name, name)
        lines.append((name, epochs, values, look))
    further = []
    if any(name.startswith("val_") for name in curves):
        further.append(Line2D([], [], color=MUTED, linestyle="--", label="held out"))
    return _draw_lines(ax, lines, ylabel, further)


@checked(runs=named(several(pair(series), least=0)), colors=named(color), ylabel=text())
def plot_runs(
    ax: Axes,
    runs: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]],
    *,
    colors: Mapping[str, str] | None = None,
    ylabel: str = "nats per datum",
) -> Axes:
    """Draws one quantity of several models, a colour per model, a line per seed.

    Example:
        >>> runs = {"a": [([1, 2], [3.0, 2.0])], "b": [([1, 2, 3], [4.0, 2.0, 1.0])]}
        >>> len(plot_runs(mi.plots.new_figure()[1], runs).lines)
        2
    """
    lines: list[Curve] = []
    for place, (name, curves) in enumerate(runs.items()):
        look: dict[str, Any] = {"color": (colors or {}).get(name, group_color(place))}
        look |= {"linewidth": 1.8} if len(curves) == 1 else {"linewidth": 1.1, "alpha": 0.75}
        for number, curve in enumerate(curves):
            lines.append((name, *curve, look | {"label": "_" * (number > 0) + name}))
    return _draw_lines(ax, lines, ylabel)


@checked(history=instance(History, example=FITTED))
def plot_loss_curves(ax: Axes, history: History) -> Axes:
    """Draws the loss, −ELBO and the distortion of a run, dashed for held-out data.

    Loss and −ELBO share a line if they are equal. The held-out loss is left out.

    Example:
        >>> rows = [{"epoch": k, "loss": 3.0 - k, "elbo": k - 3.0} for k in (1, 2)]
        >>> len(plot_loss_curves(mi.plots.new_figure()[1], mi.training.History(rows)).lines)
        1
    """
    curves: dict[str, Sequence[float]] = {}
    names = {"elbo": "−ELBO"}
    for column in ("loss", "elbo", "distortion", "val_elbo", "val_distortion"):
        values = history[column] if column in history else []
        if any(map(math.isfinite, values)):
            curves[column] = [-v for v in values] if column in ("elbo", "val_elbo") else values
    if {"loss", "elbo"} <= curves.keys() and all(
        math.isclose(a, b, rel_tol=1e-6) for a, b in zip(curves["loss"], curves["elbo"])
    ):
        del curves["loss"]
        names["elbo"] = "loss (−ELBO)"
    colors = {"loss": "#717581", "elbo": PALETTE[0], "distortion": "#e76300"}
    return plot_curves(ax, curves, epochs=epochs_of(history), colors=colors, names=names)


@checked(history=instance(History, example=FITTED), num_categories=whole(least=0))
def plot_information_curves(
    ax: Axes, history: History, *, num_categories: int | None = None
) -> Axes:
    """Draws the KL of every site and every information term.

    Example:
        >>> rows = [{"epoch": k, "kl_z": 1.0 * k, "mi_z_lower": 0.5 * k} for k in (1, 2)]
        >>> len(plot_information_curves(mi.plots.new_figure()[1], mi.training.History(rows)).lines)
        2
    """
    curves: dict[str, Sequence[float]] = {}
    colors, names = {}, {}
    terms = [k for k in map(parse, history.columns) if k is not None and k.name == "mi"]
    for column in history.columns:
        found = parse(column.removeprefix("val_"))
        if found is None or found.name not in ("kl", "mi"):
            continue
        if any(map(math.isfinite, history[column])):
            curves[column], names[column] = history[column], found.label
            if found.name == "kl":
                colors[str(found)] = site_color(found.site)
            else:
                colors[str(found)] = _TERM_COLORS[terms.index(found) % 3]
    plot_curves(ax, curves, epochs=epochs_of(history), colors=colors, names=names)
    if curves and num_categories and num_categories > 1:
        ceiling = math.log(num_categories)
        ax.axhline(ceiling, color=MUTED, linewidth=1.0, linestyle=":")
        ax.set_ylim(top=max(ax.get_ylim()[1], 1.05 * ceiling))
        name = f"log {num_categories} = {ceiling:.2f}"
        at_right = ("axes fraction", "data")
        write(ax, name, (1.0, ceiling), (0, 3), xycoords=at_right, ha="right", color=MUTED)
    return ax


def epochs_of(history: History) -> Sequence[float] | None:
    """The epochs of a history."""
    return history["epoch"] if "epoch" in history else None


def _draw_lines(
    ax: Axes, lines: Sequence[Curve], ylabel: str, further: Sequence[Any] = ()
) -> Axes:
    """Draws curves; a legend above them has as many columns as fit."""
    from matplotlib.ticker import MaxNLocator

    for name, epochs, values, look in lines:
        epochs = range(1, len(values) + 1) if epochs is None else epochs
        if len(epochs) != len(values):
            raise ShapeError(
                f"curve {name!r} has {len(values)} values for {len(epochs)} epochs; give one per "
                "epoch"
            )
        ax.plot(list(epochs), list(values), marker="o" if len(values) < 3 else None, **look)
    style_axes(ax, grid=True)
    _limit_height(ax, [values for _, _, values, _ in lines])
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    handles = [*ax.get_legend_handles_labels()[0], *further]
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
    return ax


def _limit_height(ax: Axes, curves: Sequence[Sequence[float]]) -> None:
    whole = [v for values in curves for v in values if math.isfinite(v)]
    later = [v for values in curves for v in values[len(values) // 4 + 1 :] if math.isfinite(v)]
    span = max(later) - min(later) if later else 0.0
    if span > 0 and max(whole) - min(whole) > 4 * span:
        ax.set_ylim(min(whole) - 0.05 * span, max(later) + 0.25 * span)
