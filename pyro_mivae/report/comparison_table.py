"""Figures of several models side by side, with marks at significant differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pyro_mivae.figures import DIGITS, FIGURES, LOWER, UPPER, Key, error_of, parsed
from pyro_mivae.tables import write_error, write_interval

_ERRORS = 2.0  # standard errors of a difference, over many data, from which it counts
_CHANCE = 0.975  # of Student's t, whose quantile takes their place for a few runs


@dataclass(frozen=True)
class Cell:
    """One model's figure or interval; undefined bounds are NaN.

    The text shows the spread: the standard error over the data for one run, the standard deviation
    for several. The margin is two standard errors; for a mean of several runs the factor is the
    97.5 % quantile of Student's t.
    """

    text: str
    lower: float
    upper: float
    margin: float
    differs: bool = False  # from the first model's, by more than both margins explain

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Line:
    """A figure of every model."""

    key: str  # in ``metrics.json``; without a side where it is an interval
    name: str
    cells: tuple[Cell, ...]  # one per model


def compare_metrics(metrics: Sequence[Sequence[Mapping[str, float]]]) -> list[Line]:
    """Compares the figures of models.

    A difference from the first model is marked if it exceeds two standard errors of the difference
    (more for the mean of a few runs, by Student's t: 12.7 for two, 2.8 for five). The errors are
    taken as independent, which is cautious: on the same data they are correlated. For intervals
    the difference is the gap between them. A figure without a standard error is not marked.
    """
    found = [k for runs in metrics for run in runs for k, _ in parsed(run) if k.index is None]
    places = list(FIGURES)
    sides: dict[Key, set[str]] = {}
    for k in sorted(found, key=lambda k: places.index(k.name)):
        is_shown = k.figure.tables != "listing" and (not k.site or k.figure.labels_site)
        if is_shown and k.side in ("", LOWER, UPPER):
            sides.setdefault(replace(k, side=""), set()).add(k.side)
    lines = []
    for k, of in sides.items():
        cells = [_cell(runs, k, is_interval=bool(of - {""})) for runs in metrics]
        if any(math.isfinite(cell.lower) or math.isfinite(cell.upper) for cell in cells):
            marked = tuple(_marked(cells[0], cell) for cell in cells)
            lines.append(Line(str(k), k.label, marked))
    return lines


def _cell(runs: Sequence[Mapping[str, float]], k: Key, *, is_interval: bool) -> Cell:
    from scipy.stats import t

    means, errors, spreads = [], [], []
    for side in (LOWER, UPPER) if is_interval else ("",):
        name = str(replace(k, side=side))
        values = [run.get(name, math.nan) for run in runs]
        means.append(statistics.fmean(values))
        if len(values) == 1:
            spread = error = error_of(runs[0], name)
        else:
            defined = all(map(math.isfinite, values))
            spread = statistics.stdev(values) if defined else math.nan
            error = spread / math.sqrt(len(values))
        spreads.append(spread)
        errors.append(error)
    lower, upper, digits = means[0], means[-1], DIGITS[k.figure.unit]
    text = write_interval(lower, upper, digits)
    if lower == upper:
        text = f"{text} {write_error(spreads[0], digits)}".rstrip()
    if math.isnan(lower) and math.isnan(upper):
        text = "–"
    times = _ERRORS if len(runs) == 1 else max(_ERRORS, float(t.ppf(_CHANCE, len(runs) - 1)))
    margin = times * max(filter(math.isfinite, errors), default=math.nan)
    return Cell(text, lower, upper, margin)


def _marked(first: Cell, cell: Cell) -> Cell:
    gap = max(cell.lower - first.upper, first.lower - cell.upper)
    margin = math.hypot(first.margin, cell.margin)
    differs = gap > max(margin, 0.0)  # never for undefined figures
    return replace(cell, differs=differs)
