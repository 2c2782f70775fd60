"""Figures of several models side by side, and which differences their errors leave standing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pyro_mivae.diagnostics.keys import is_indexed
from pyro_mivae.plots.bars import write_interval

_ERRORS = 2.0  # standard errors of a difference, over many data, from which it counts
_CHANCE = 0.975  # of Student's t, whose quantile takes their place for a few runs
_NATS = {
    "distortion": "distortion, −E log p(x | code)",
    "rate": "rate, sum of the KLs",
    "elbo": "ELBO",
    "log_px": "log p(x), importance-weighted",
    "log_px_ais": "log p(x), annealed",
}
_SHARES = {
    "reconstruction_r2": "R² of the reconstruction",
    "cluster_accuracy": "clustering accuracy",
    "nmi": "normalised mutual information",
    "ari": "adjusted Rand index",
    "generation_accuracy": "generation accuracy",
    "generation_consistency": "generation consistency",
    "linear_probe": "linear probe of the code",
    "mlp_probe": "MLP probe of the code",
    "mig": "mutual information gap",
    "sap": "SAP",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informativeness",
    "factor_vae_score": "FactorVAE score",
    "modularity": "modularity",
}
_COUNTS = {"active_units": "active units", "categories_used": "categories in use"}


@dataclass(frozen=True)
class Cell:
    """One model's figure, or interval.

    Attributes:
        lower: The figure, or the lower bound; NaN where it is not defined.
        upper: The same, or the upper bound.
        spread: Of one run the standard error over the data, of several their standard deviation.
        error: Standard error of the figure, of several runs that of their mean.
        margin: How far the figure may be off: two errors, or as many as Student's t has at 97.5 %
            for the number of runs.
        digits: How many digits are written after the point.
        differs: Whether it differs from the first model's by more than both margins explain.
    """

    lower: float
    upper: float
    spread: float
    error: float
    margin: float
    digits: int
    differs: bool = False

    def __str__(self) -> str:
        written = write_interval(self.lower, self.upper, self.digits)
        if math.isnan(self.lower) and math.isnan(self.upper):
            return "–"
        if self.lower == self.upper and math.isfinite(self.spread):
            written += f" ± {self.spread:.{self.digits}f}"
        return written


@dataclass(frozen=True)
class Line:
    """A figure of every model.

    Attributes:
        key: Its name in ``metrics.json``, without a side where it is an interval.
        name: What it is called.
        cells: One per model.
    """

    key: str
    name: str
    cells: tuple[Cell, ...]


def contrast(metrics: Sequence[Sequence[Mapping[str, float]]]) -> list[Line]:
    """Sets the figures of models side by side.

    A difference from the first model counts where it is more than two standard errors of the
    difference (more of a few runs' mean, by Student's t: 12.7 of two runs', 2.8 of five's), taken
    as if the models had been measured on different data: on the same data they err together, so
    that this is on the cautious side. Of intervals it is the gap between them.
    A figure without a standard error is not marked.

    Example:
        >>> runs = [{"rate": 3.0, "rate_se": 0.1}], [{"rate": 4.0, "rate_se": 0.1}]
        >>> (line,) = contrast(runs)
        >>> [str(cell) for cell in line.cells], line.cells[1].differs
        (['3.00 ± 0.10', '4.00 ± 0.10'], True)
    """
    lines = []
    for key, name, digits, sided in _figures(metrics):
        cells = [_cell(runs, key, digits, sided) for runs in metrics]
        if all(math.isnan(cell.lower) and math.isnan(cell.upper) for cell in cells):
            continue
        marked = [_marked(cells[0], cell) for cell in cells]
        lines.append(Line(key, name, tuple(marked)))
    return lines


def _figures(
    metrics: Sequence[Sequence[Mapping[str, float]]],
) -> Iterator[tuple[str, str, int, bool]]:
    """Key, name, digits, and whether it is an interval."""
    keys = list(dict.fromkeys(key for runs in metrics for run in runs for key in run))
    keys = [key for key in keys if not key.endswith("_se") and not is_indexed(key)]
    sites = [key[3:] for key in keys if key.startswith("kl_")]
    costs = {f"kl_{site}": f"KL of {site}" for site in sites}
    for key, name in {"distortion": _NATS["distortion"], **costs, **_NATS}.items():
        if key in keys:
            yield key, name, 2, False
    known = {"mi": "I(x; code)", "fitted_mi": "I(x; code), fitted marginal"}
    known |= {f"mi_{site}": f"I(x; {site})" for site in sites}
    known |= {"generative_mi": "I(x; code) in samples"}
    known |= {f"generative_mi_{site}": f"I(x; {site}) in samples" for site in sites}
    for key, name in known.items():
        if f"{key}_lower" in keys or f"{key}_upper" in keys:
            yield key, name, 2, True
    yield from ((key, name, 1, False) for key, name in _COUNTS.items() if key in keys)
    yield from ((key, name, 3, False) for key, name in _SHARES.items() if key in keys)


def _cell(runs: Sequence[Mapping[str, float]], key: str, digits: int, is_interval: bool) -> Cell:
    sides = (f"{key}_lower", f"{key}_upper") if is_interval else (key, key)
    means, errors, spreads = [], [], []
    for side in sides:
        values = [run.get(side, math.nan) for run in runs]
        means.append(statistics.fmean(values))
        if len(values) == 1:
            spread = error = runs[0].get(f"{side}_se", math.nan)
        else:
            defined = all(map(math.isfinite, values))
            spread = statistics.stdev(values) if defined else math.nan
            error = spread / math.sqrt(len(values))
        spreads.append(spread)
        errors.append(error)
    known = [error for error in errors if math.isfinite(error)]
    error = max(known, default=math.nan)
    return Cell(means[0], means[1], spreads[0], error, _times(len(runs)) * error, digits)


def _times(runs: int) -> float:
    """How many standard errors a mean may be off."""
    from scipy.stats import t

    return _ERRORS if runs == 1 else max(_ERRORS, float(t.ppf(_CHANCE, runs - 1)))


def _marked(first: Cell, cell: Cell) -> Cell:
    gap = max(cell.lower - first.upper, first.lower - cell.upper)
    margin = math.hypot(first.margin, cell.margin)
    differs = gap > max(margin, 0.0)  # never of what is not defined
    return replace(cell, differs=differs)
