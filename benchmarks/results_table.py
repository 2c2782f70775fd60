"""Lays what `benchmarks.results` measured out as Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

NONE = "–"
PARTS = ("z", "c", "u")


def tables(contents: Sequence[Mapping[str, Any]]) -> str:
    """Lays results files out, with what was scored and how, after the last.

    Args:
        contents: What the files hold, one data set each.

    Returns:
        Markdown.
    """
    parts = [part for content in contents for part in _of_data(content)]
    return "\n\n".join([*parts, *(protocol(content) for content in contents[:1])])


def protocol(content: Mapping[str, Any]) -> str:
    """Says what the figures are, and how they were measured.

    Args:
        content: What a file holds.

    Returns:
        Markdown.
    """
    settings = content["runs"][0]["settings"]
    how, made = settings["evaluate"], content["runs"][0]["made_with"]
    lines = [
        "Figures are of the test images, mean ± standard deviation over the seeds, none "
        "selected; labels served the figures alone. A dash: the variant has no such figure.",
        "Nats per image. Pixels are grey, so that a Bernoulli likelihood gives a cross-entropy: "
        "compare −ELBO among the rows, not with figures of binarised images.",
        f"−log p(x) is importance-weighted: {how['iwae_samples']} samples of up to "
        f"{how['iwae_items']:,} images.",
        "I(x; ·) lies between two bounds over all test images; ± is the larger deviation of the "
        "two. The upper one cannot exceed the rate, the lower one the logarithm of the number of "
        "images; where that is the limit, bounds on I(x; code) by a fitted marginal count too.",
        "Clustering: the most probable category, matched to labels one to one. Generation: the "
        "share of a category's samples that a classifier of real images puts in one class "
        f"({how['samples_per_category']:,} of each).",
        f"Probes of the posterior means learn on up to {how['probe_items']:,} training images.",
        "Seconds are the processor's, for training, on one thread "
        f"({made['processor']}, {made['cores']} cores).",
    ]
    return "\n".join(f"* {line}" for line in lines)


def _of_data(content: Mapping[str, Any]) -> list[str]:
    runs = content["runs"]
    shape = " × ".join(map(str, content["shape"][1:]))
    shares = [column for column in LABELS if _is_there(runs, column)]
    return [
        f"### {content['data']}",
        f"    {content['command']}",
        f"{content['train']:,} training and {content['test']:,} test images of {shape} "
        f"(log {content['test']:,} = {math.log(content['test']):.2f}). " + " ".join(_told(runs)),
        table(runs, NATS),
        *([table(runs, shares, content.get("pixels"))] if shares else []),
    ]


def _told(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says in sentences how runs were made."""
    seeds = sorted({run["seed"] for run in runs})
    fits = [run["settings"]["fit"] for run in runs]
    makers = [run[name] for run in runs for name in ("made_with", "trained_with") if name in run]
    differing = [
        name for name in makers[0] if any(maker.get(name) != makers[0][name] for maker in makers)
    ]
    first = runs[0]["made_with"]
    told = [
        f"Epochs {_by_variant(runs, 'epochs')}, batches of {_by_variant(runs, 'batch_size')}, "
        f"lr {fits[0]['lr']:g}, every other option at its default, "
        f"seeds {', '.join(map(str, seeds))}; torch {first['torch']}, pyro {first['pyro']}.",
    ]
    if differing:
        told.append(f"The runs were made with more than one version of: {_list(differing)}.")
    failed = [f"{run['variant']} from seed {run['seed']}" for run in runs if "failed" in run]
    if failed:
        told.append(f"Without a finite loss to the end: {', '.join(failed)}.")
    return told


def _list(names: Sequence[str]) -> str:
    """Names as a sentence has them; ``source`` is the package's."""
    return ", ".join("the package's source" if name == "source" else name for name in names)


def _by_variant(runs: Sequence[Mapping[str, Any]], option: str) -> str:
    """An option of training: what most have, and who else has another."""
    values = {run["variant"]: run["settings"]["fit"][option] for run in runs}
    usual = max(values.values(), key=list(values.values()).count)
    others = [f"{value} for {name}" for name, value in values.items() if value != usual]
    return f"{usual}" + (f" ({', '.join(others)})" if others else "")


def table(
    runs: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    pixels: Mapping[str, float] | None = None,
) -> str:
    """Lays columns out, a row per variant: mean ± standard deviation over its seeds.

    Args:
        runs: Runs of one data set.
        columns: Headings, of `NATS` or `LABELS`.
        pixels: Figures of no model, for a last row.

    Returns:
        A Markdown table. A figure that a variant does not have, or that is not defined for it, is
        a dash.
    """
    lines = ["| variant | seeds | " + " | ".join(columns) + " |"]
    lines.append("|" + " --- |" * (len(columns) + 2))
    for name in dict.fromkeys(run["variant"] for run in runs):
        own = [run for run in runs if run["variant"] == name and "failed" not in run]
        cells = [COLUMNS[column](own) for column in columns]
        lines.append("| " + " | ".join([name, str(len(own)), *cells]) + " |")
    if pixels is not None:
        cells = [COLUMNS[column]([{"metrics": pixels}]) for column in columns]
        lines.append("| " + " | ".join(["*pixels, k-means*", NONE, *cells]) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float | None], decimals: int) -> str:
    """Writes mean ± standard deviation; the mean alone of one value, a dash where one is missing.

    Args:
        values: A figure of each seed; None where it is not defined.
        decimals: How many.

    Example:
        >>> spread([1.0, 2.0, 3.0], 2), spread([1.0], 1), spread([None, 1.0], 1)
        ('2.00 ± 1.00', '1.0', '–')
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known or len(known) < len(values):
        return NONE
    deviation = f" ± {stdev(known):.{decimals}f}" if len(known) > 1 else ""
    return f"{_plain(fmean(known), decimals)}{deviation}"


def _plain(value: float, decimals: int) -> str:
    """A number without the sign of a zero."""
    return f"{value:.{decimals}f}".replace("-0." + "0" * decimals, "0." + "0" * decimals)


def interval(lower: Sequence[float | None], upper: Sequence[float | None]) -> str:
    """Writes the means of two bounds, and the larger one's deviation of the two.

    Args:
        lower: A lower bound of each seed.
        upper: An upper bound of each; None where it is not defined.

    Example:
        >>> interval([1.0, 2.0], [3.0, 3.5]), interval([1.0], [None]), interval([1.0], [1.0])
        ('1.50 to 3.25 ± 0.71', '≥ 1.00', '1.00')
    """
    low, high = spread(lower, 2), spread(upper, 2)
    if NONE in (low, high):
        return NONE if low == NONE else f"≥ {low}"
    if low.split(" ")[0] == high.split(" ")[0]:
        return low
    means = f"{low.split(' ')[0]} to {high.split(' ')[0]}"
    deviations = [float(text.split(" ± ")[1]) for text in (low, high) if " ± " in text]
    return means + (f" ± {max(deviations):.2f}" if deviations else "")


def _figures(runs: Sequence[Mapping[str, Any]], name: str) -> list[float | None]:
    return [run["metrics"].get(name) for run in runs]


def figure(name: str, decimals: int = 2, sign: int = 1) -> Callable[..., str]:
    """Makes a column: the mean and deviation of a figure over runs.

    Args:
        name: Key of the figure.
        decimals: Digits after the point.
        sign: -1 for minus the figure.
    """

    def cell(runs: Sequence[Mapping[str, Any]]) -> str:
        values = _figures(runs, name)
        return spread([None if v is None else sign * v for v in values], decimals)

    return cell


def _between(name: str) -> Callable[..., str]:
    def cell(runs: Sequence[Mapping[str, Any]]) -> str:
        ends = [bounds(run["metrics"], name) for run in runs]
        return interval([low for low, _ in ends], [high for _, high in ends])

    return cell


def bounds(metrics: Mapping[str, float | None], name: str) -> tuple[float | None, float | None]:
    """Gives the bounds on an information, of the code as a whole the tighter ones of two pairs.

    Args:
        metrics: A run's figures.
        name: ``mi``, or ``mi_<site>``.

    Returns:
        The lower and the upper one. Where ``mi`` is saturated, as log N is the limit of the lower
        one, those by a fitted marginal count too. A part of the code knows no more than all of it.

    Example:
        >>> bounds({"mi_lower": 9.0, "mi_upper": 22.0, "saturated": 0.0}, "mi")
        (9.0, 22.0)
    """
    low, high = metrics.get(f"{name}_lower"), metrics.get(f"{name}_upper")
    if name == "mi" and metrics.get("saturated"):
        lows = [low, metrics.get("fitted_mi_lower")]
        highs = [high, metrics.get("fitted_mi_upper")]
        low = max((value for value in lows if value is not None), default=None)
        high = min((value for value in highs if value is not None), default=None)
    whole = None if name == "mi" else bounds(metrics, "mi")[1]
    return low, whole if whole is not None and high is not None and whole < high else high


def _kl_of_sites(runs: Sequence[Mapping[str, Any]]) -> str:
    told = {site: spread(_figures(runs, f"kl_{site}"), 2) for site in PARTS}
    return ", ".join(f"{site} {of}" for site, of in told.items() if of != NONE) or NONE


def _seconds(runs: Sequence[Mapping[str, Any]]) -> str:
    return spread([run.get("seconds") for run in runs], 1)


NATS: dict[str, Callable[..., str]] = {
    "−ELBO": figure("elbo", sign=-1),
    "−log p(x) ≤": figure("log_px", sign=-1),
    "rate": figure("rate"),
    "I(x; code)": _between("mi"),
    "I(x; c)": _between("mi_c"),
    "KL of each site": _kl_of_sites,
    "active units": figure("active_units", 1),
    "R²": figure("reconstruction_r2"),
    "seconds": _seconds,
}
LABELS: dict[str, Callable[..., str]] = {
    "clustering accuracy": figure("cluster_accuracy", 3),
    "NMI": figure("nmi", 3),
    "categories used": figure("categories_used", 1),
    "generation accuracy": figure("generation_accuracy", 3),
    "linear probe": figure("linear_probe", 3),
    "MLP probe": figure("mlp_probe", 3),
}
COLUMNS = NATS | LABELS


def _is_there(runs: Sequence[Mapping[str, Any]], column: str) -> bool:
    return any(COLUMNS[column]([run]) != NONE for run in runs if "failed" not in run)
