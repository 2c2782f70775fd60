"""Several trained models on one page: figures, curves and pictures side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pyro_mivae import plots
from pyro_mivae.figures import interval
from pyro_mivae.plots.curves import epochs_of
from pyro_mivae.plots.style import group_color
from pyro_mivae.report.comparison_table import Line
from pyro_mivae.report.data import ReportData
from pyro_mivae.report.page import render
from pyro_mivae.report.pictures import Panel, render_panels
from pyro_mivae.training import History, write_file

_COLUMNS = 10
_SAMPLE_ROWS = 2
_LONGEST = 18
_BETTER = (
    "A curve that still falls: that model needs more training, and the comparison is not fair "
    "to it."
)
_CURVES = {
    "elbo": ("ELBO", "−ELBO, with every weight 1 and no other term. Lower is better.", _BETTER),
    "distortion": ("distortion", "The distortion, −log p(x | code). Lower is better.", _BETTER),
    "rate": (
        "rate",
        "The rate, the KL of all sites together: the cost of the code.",
        "If a model has a higher rate, its distortion should be lower.",
    ),
}


@dataclass(frozen=True)
class Contender:
    """A model in a comparison, trained once or from several seeds."""

    name: str
    data: ReportData  # of the first run
    histories: Sequence[History]  # of every run, and so are the metrics
    metrics: Sequence[Mapping[str, float]]
    data_name: str

    @property
    def kind(self) -> str:
        """The model's class, its data, and the number of runs if there are several."""
        seeds = f", {len(self.metrics)} seeds" if len(self.metrics) > 1 else ""
        return f"{type(self.data.vae).__name__} on {self.data_name}{seeds}"


Named = Mapping[str, Contender]


def write_comparison(
    path: Path,
    contenders: Sequence[Contender],
    lines: Sequence[Line],
    settings: Mapping[str, Sequence[str]],
    warnings: Sequence[str],
    costs: Mapping[str, Sequence[str]],
) -> Path:
    """Writes one page that needs no other file."""
    colors = [group_color(index) for index in range(len(contenders))]
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        pictures = list(_pictures(dict(zip(_short_names(contenders), contenders)), colors))
    page = render(
        "compare.html",
        title=f"{len(contenders)} models compared",
        contenders=contenders,
        colors=colors,
        lines=lines,
        settings=settings,
        warnings=warnings,
        costs=costs,
        pictures=pictures,
    )
    return write_file(path, page)


def _short_names(contenders: Sequence[Contender]) -> list[str]:
    """Names cut to fit a picture; the full names if the cut ones would not differ."""
    names = [one.name for one in contenders]
    short = [n if len(n) <= _LONGEST else "…" + n[1 - _LONGEST :] for n in names]
    return short if len(set(short)) == len(short) else names


def _pictures(named: Named, colors: Sequence[str]) -> Iterator[Panel]:
    groups: dict[tuple[str, tuple[int, ...]], dict[str, Contender]] = {}
    for name, one in named.items():
        groups.setdefault((one.data_name, one.data.vae.data_shape), {})[name] = one
    for number, ((data_name, _), group) in enumerate(groups.items()):
        suffix, where = ("", "") if len(groups) == 1 else (f"_{number}", f": {data_name}")
        yield from render_panels(_reconstructions, group, suffix, where)
        yield from render_panels(_samples, group, suffix, where)
    yield from render_panels(_intervals, named, dict(zip(named, colors)))
    yield from render_panels(_curves, named, dict(zip(named, colors)))


def _reconstructions(group: Named, suffix: str, where: str) -> Iterator[Panel]:
    first = next(iter(group.values())).data
    x = first.x[first.examples.to(first.x.device)]
    rows = {}
    for name, one in group.items():
        given = one.data.condition(first.examples)
        rows[name] = one.data.vae.reconstruct(x.to(one.data.vae.device), given=given).cpu()
    width = _label_width(rows)
    figure, ax = plots.grid_figure(len(rows) + 1, len(x), x.shape[1:], label_width=width)
    plots.plot_reconstructions(ax, x, rows)
    yield Panel(
        f"reconstructions{suffix}",
        f"Reconstructions{where}",
        f"Top: {first.nouns} that no model was trained on. Below: their reconstructions, a row "
        "per model.",
        "Details that one row keeps and another loses are the difference in distortion.",
        figure,
    )


def _samples(group: Named, suffix: str, where: str) -> Iterator[Panel]:
    drawn = [one.data.sample(_SAMPLE_ROWS * _COLUMNS).cpu() for one in group.values()]
    names = [text for name in group for text in (name, *[""] * (_SAMPLE_ROWS - 1))]
    told = next((one.data.told for one in group.values() if one.data.told), "")
    shape, width = drawn[0].shape[1:], _label_width(names)
    figure, ax = plots.grid_figure(len(names), _COLUMNS, shape, label_width=width)
    plots.plot_grid(ax, torch.cat(drawn).unflatten(0, (-1, _COLUMNS)), names)
    yield Panel(
        f"samples{suffix}",
        f"Samples{where}",
        f"{_SAMPLE_ROWS} rows per model: codes drawn from its prior and decoded{told}.",
        "Samples that look like the data, and vary as the data do.",
        figure,
    )


def _intervals(named: Named, colors: Mapping[str, str]) -> Iterator[Panel]:
    rows = {}
    for name, one in named.items():
        bounds = [interval(metrics, "mi") for metrics in one.metrics]
        lower, upper = (statistics.fmean(side) for side in zip(*bounds))
        if math.isfinite(lower) or math.isfinite(upper):
            rows[name] = (lower, upper)
    if not rows:
        return
    n, *others = {one.data.num_data for one in named.values()}
    marks = {} if others or n < 2 else {f"log {n:,} =": math.log(n)}
    figure, ax = plots.new_figure(0.9 + 0.34 * len(rows))
    plots.plot_sandwich(ax, rows, marks=marks, colors=colors)
    yield Panel(
        "information",
        "Information in the codes",
        "A bar per model, from the lower to the upper bound on the information of its code "
        "about the data, in nats. A dashed line is the most that this number of data can show.",
        "Bars that do not overlap: one code has more information. Bars that overlap: the order "
        "is not known.",
        figure,
    )


def _curves(named: Named, colors: Mapping[str, str]) -> Iterator[Panel]:
    for column, (name, sentence, look_for) in _CURVES.items():
        runs: dict[str, list[tuple[Sequence[float], Sequence[float]]]] = {}
        for label, one in named.items():
            for history in one.histories:
                values = history[column] if column in history else []
                if any(map(math.isfinite, values)):
                    values = [-value for value in values] if column == "elbo" else values
                    epochs = epochs_of(history) or range(1, len(values) + 1)
                    runs.setdefault(label, []).append((epochs, values))
        if not runs:
            continue
        figure, ax = plots.new_figure(2.9)
        plots.plot_runs(ax, runs, colors=colors)
        seeds = "; a curve per seed." if any(len(c) > 1 for c in runs.values()) else "."
        yield Panel(
            f"curves_{column}",
            f"Training: the {name}",
            f"{sentence} A colour per model, by epoch, on the training data{seeds}",
            look_for,
            figure,
        )


def _label_width(names: Iterable[str]) -> float:
    return 0.3 + 0.075 * max(8, *map(len, names))
