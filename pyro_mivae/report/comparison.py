"""Several trained models on one page: their figures, curves and pictures side by side."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_mivae import plots
from pyro_mivae.diagnostics import Diagnosis
from pyro_mivae.plots.style import group_color
from pyro_mivae.report.comparison_table import Line
from pyro_mivae.report.panel import Panel
from pyro_mivae.report.render import render, render_panels
from pyro_mivae.report.subject import Subject
from pyro_mivae.training import History, atomic_path

if TYPE_CHECKING:
    from pyro_mivae.plots.curves import Columns
    from pyro_mivae.variants import Variant

_COLUMNS = 10
_SAMPLE_ROWS = 2
_LONGEST = 18


@dataclass(frozen=True)
class Contender:
    """A model that is compared with others, trained once or from several seeds.

    Attributes:
        name: What it is called.
        vae: The model, of several the first.
        histories: What was recorded, of every run.
        metrics: What was measured, of every run.
        x: Data that it was not trained on.
        labels: Their labels, if there are any.
        data_name: What the data are called.
    """

    name: str
    vae: Variant
    histories: Sequence[Columns]
    metrics: Sequence[Mapping[str, float]]
    x: Tensor
    labels: Tensor | None
    data_name: str

    @property
    def short(self) -> str:
        """Its name, cut where it is long, for pictures."""
        return self.name if len(self.name) <= _LONGEST else "…" + self.name[1 - _LONGEST :]

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """What stands out, in the first of its runs."""
        return Subject(self.vae, self.x, self.labels, History(), self.metrics[0]).diagnoses


def write_comparison(
    path: Path,
    contenders: Sequence[Contender],
    *,
    lines: Sequence[Line],
    settings: Mapping[str, Sequence[str]],
    warnings: Sequence[str],
) -> Path:
    """Writes one page that needs no other file."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        makers = _makers(contenders)
        pictures = [picture for make, *args in makers for picture in render_panels(make, *args)]
    page = render(
        "compare.html",
        title=f"{len(contenders)} models compared",
        names=[one.name for one in contenders],
        chips=[group_color(index) for index in range(len(contenders))],
        kinds=[_describe(one) for one in contenders],
        lines=lines,
        settings=settings,
        warnings=warnings,
        diagnoses=[(one.name, one.diagnoses) for one in contenders if one.diagnoses],
        several=any(len(one.metrics) > 1 for one in contenders),
        alone=any(len(one.metrics) == 1 for one in contenders),
        pictures=pictures,
    )
    with atomic_path(path) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return path


def _describe(one: Contender) -> str:
    seeds = f", {len(one.metrics)} seeds" if len(one.metrics) > 1 else ""
    return f"{type(one.vae).__name__} on {one.data_name}{seeds}"


def _makers(contenders: Sequence[Contender]) -> Iterator[tuple[Any, ...]]:
    """What makes the panels, each with what it is called with."""
    groups: dict[tuple[str, tuple[int, ...]], list[Contender]] = {}
    for one in contenders:
        groups.setdefault((one.data_name, one.vae.data_shape), []).append(one)
    for number, group in enumerate(groups.values()):
        suffix, where = ("", "") if len(groups) == 1 else (f"_{number}", f": {group[0].data_name}")
        yield _reconstructions, group, suffix, where
        yield _samples, group, suffix, where
    yield _intervals, contenders
    yield _curves, contenders


def _reconstructions(group: Sequence[Contender], suffix: str, where: str) -> Iterator[Panel]:
    subject = Subject(group[0].vae, group[0].x, group[0].labels, History(), {})
    x = group[0].x[subject.examples.to(group[0].x.device)]
    rows = {
        name: one.vae.reconstruct(x.to(one.vae.device)).cpu()
        for name, one in zip(_distinct(group), group)
    }
    figure, ax = plots.grid_figure(
        len(rows) + 1, len(x), group[0].vae.data_shape, label_width=_label_width(rows)
    )
    plots.plot_reconstructions(ax, x, rows)
    yield Panel(
        f"reconstructions{suffix}",
        f"Reconstructions{where}",
        f"Top: {subject.nouns} that no model was trained on. Below, a row per model: what it "
        "decodes from their codes.",
        "What one row keeps and another loses: that is the difference in distortion.",
        figure,
    )


def _samples(group: Sequence[Contender], suffix: str, where: str) -> Iterator[Panel]:
    shape = group[0].vae.data_shape
    pictures, names = [], []
    for name, one in zip(_distinct(group), group):
        drawn = one.vae.sample(_SAMPLE_ROWS * _COLUMNS).cpu()
        pictures.append(drawn.unflatten(0, (_SAMPLE_ROWS, _COLUMNS)))
        names += [name] + [""] * (_SAMPLE_ROWS - 1)
    width = _label_width(names)
    figure, ax = plots.grid_figure(len(names), _COLUMNS, shape, label_width=width)
    plots.plot_grid(ax, torch.cat(pictures), names)
    yield Panel(
        f"samples{suffix}",
        f"Samples{where}",
        f"{_SAMPLE_ROWS} rows per model: what it generates from codes drawn from its prior.",
        "Which model's samples look most like the data, and differ as the data do.",
        figure,
    )


def _intervals(contenders: Sequence[Contender]) -> Iterator[Panel]:
    rows, colors = {}, {}
    for index, (name, one) in enumerate(zip(_distinct(contenders), contenders)):
        bounds = [_mean(one.metrics, f"mi_{side}") for side in ("lower", "upper")]
        if any(map(math.isfinite, bounds)):
            rows[name] = (bounds[0], bounds[1])
            colors[name] = group_color(index)
    if not rows:
        return
    sizes = {len(one.x) for one in contenders}
    n = sizes.pop()
    marks = {} if sizes or n < 2 else {f"log {n:,} =": math.log(n)}
    figure, ax = plots.new_figure(0.9 + 0.34 * len(rows))
    plots.plot_sandwich(ax, rows, marks=marks, colors=colors)
    yield Panel(
        "information",
        "What the codes know",
        "A bar per model, from the lower to the upper bound of the information that its code has "
        "on the data, in nats. The dashed line, where there is one, is the most that so few data "
        "can show.",
        "Bars that do not overlap: one code says more than the other. Bars that do: so much is "
        "not known.",
        figure,
    )


_CURVES = (
    ("elbo", "ELBO", "−ELBO, every weight 1 and no further term. Lower is better."),
    ("distortion", "distortion", "The distortion, −log p(x | code). Lower is better."),
    ("rate", "rate", "The rate, the KL of all sites together: what the code costs."),
)


def _curves(contenders: Sequence[Contender]) -> Iterator[Panel]:
    names = _distinct(contenders)
    for column, name, sentence in _CURVES:
        runs: dict[str, list[tuple[Sequence[float], Sequence[float]]]] = {}
        colors = {}
        for index, (label, one) in enumerate(zip(names, contenders)):
            curves = [_curve(h, column) for h in one.histories if column in h.columns]
            curves = [curve for curve in curves if any(map(math.isfinite, curve[1]))]
            if curves:
                runs[label], colors[label] = curves, group_color(index)
        if not runs:
            continue
        figure, ax = plots.new_figure(2.9)
        plots.plot_runs(ax, runs, colors=colors)
        yield Panel(
            f"curves_{column}",
            f"Training: the {name}",
            f"{sentence} A colour per model, epoch by epoch, on the training data"
            + ("; a curve per seed." if any(len(c) > 1 for c in runs.values()) else "."),
            "Curves that still fall: that model was not trained to the end, and the comparison is "
            "not fair to it."
            if column != "rate"
            else "Where a model spends more on its code, "
            "see whether its distortion is lower for it.",
            figure,
        )


def _curve(history: Columns, column: str) -> tuple[Sequence[float], Sequence[float]]:
    values = history[column]
    if column == "elbo":
        values = [-value for value in values]
    epochs = history["epoch"] if "epoch" in history.columns else range(1, len(values) + 1)
    return epochs, values


def _distinct(contenders: Sequence[Contender]) -> list[str]:
    """Short names where these tell the models apart, else the whole ones."""
    short = [one.short for one in contenders]
    return short if len(set(short)) == len(short) else [one.name for one in contenders]


def _label_width(names: Sequence[str] | Mapping[str, object]) -> float:
    return 0.3 + 0.075 * max(8, *map(len, names))


def _mean(metrics: Sequence[Mapping[str, float]], key: str) -> float:
    values = [run.get(key, math.nan) for run in metrics]
    return sum(values) / len(values)
