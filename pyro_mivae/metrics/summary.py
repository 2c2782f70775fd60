"""The main figures of a model as a small table."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

from pyro_mivae.diagnostics import diagnose
from pyro_mivae.figures import (
    CRITIC,
    DIGITS,
    FIGURES,
    LOWER,
    UPPER,
    error_of,
    interval,
    key,
    label,
    parsed,
    sites_of,
)
from pyro_mivae.tables import align, write_error, write_interval, write_number

Row = tuple[str, str, str]  # label, figure and standard error


def summarise(
    metrics: Mapping[str, float],
    num_categories: int | None = None,
    notes: Collection[str] = (),
    noise: Collection[str] = (),
) -> str:
    """Formats the main figures as a small table, followed by notes and the diagnoses.

    Each has its standard error over the data; for an interval the larger of the two.

    Example:
        >>> print(summarise({"distortion": 20.0, "kl_z": 5.0, "rate": 5.0, "elbo": -25.0}))
        nats per test datum
          distortion, -E log p(x|code)    20.00
          KL of z                          5.00
          rate, sum of the KLs             5.00
          ELBO                           −25.00
    """
    lines = ["nats per test datum", *_indented(_nats(metrics))]
    lines += [f"  ({note})" for note in notes]
    parts = [] if num_categories else list(parsed(metrics, "reconstruction_r2"))
    if len(parts) > 1:
        alone = [(f"{k.site} alone" if k.site else "the whole code", str(k)) for k, _ in parts]
        lines.append("share of the variance reconstructed")
        lines += _indented((name, *_row(metrics, k, digits=2)[1:]) for name, k in alone)
    for about in ("labels", "factors"):
        shown = [f.name for f in FIGURES.values() if (f.about, f.tables) == (about, "summary")]
        rows = [_row(metrics, k) for k in shown if not math.isnan(metrics.get(k, math.nan))]
        if rows:
            seen = about == "labels" and "classification_accuracy" in metrics
            told = "of which training saw some" if seen else "which training did not see"
            lines += [f"against {about}, {told}", *_indented(rows)]
    used = metrics.get("categories_used", math.nan)
    if not math.isnan(used):
        of = f" of {num_categories}" if num_categories else ""
        lines.append(f"{label('categories_used')}: {used:.0f}{of}")
    stands_out = diagnose(metrics, noise=noise)
    if stands_out:
        lines += ["what stands out", *(f"  {diagnosis}" for diagnosis in stands_out)]
    return "\n".join(lines)


def _nats(metrics: Mapping[str, float]) -> Iterator[Row]:
    sites = sites_of(metrics)
    costs = [key("kl", site) for site in sites]
    bounds = ("elbo", "amortization_gap", "log_px", "log_px_ais", "log_px_ais_gap")
    for name in ("distortion", *costs, "rate", *bounds):
        if name in metrics:
            yield _row(metrics, name)
    for name in ("mi", *["fitted_mi"] * bool(metrics.get("saturated")), "generative_mi"):
        whole = write_interval(*interval(metrics, name))
        for site in ("", *sites):
            ends = [key(name, site, side) for side in (LOWER, UPPER)]
            told = write_interval(*interval(metrics, name, site))
            news = name == "mi" or not site or told not in (whole, write_number(math.nan))
            if news and all(end in metrics for end in ends):
                errors = filter(math.isfinite, (error_of(metrics, end) for end in ends))
                margin = write_error(max(errors, default=math.nan))
                yield label(key(name, site)), told, margin
    for k, _ in parsed(metrics):
        if k.side == CRITIC or k.name == "barber_agakov":
            name, number, margin = _row(metrics, str(k))
            yield name, "≥ " * (k.side != CRITIC) + number, margin


def _row(metrics: Mapping[str, float], name: str, digits: int | None = None) -> Row:
    """A figure, with the digits of its unit."""
    found = next(k for k, _ in parsed({name: 0.0}))
    digits = DIGITS[found.figure.unit] if digits is None else digits
    margin = write_error(error_of(metrics, name), digits)
    return found.label, write_number(metrics[name], digits), margin


def _indented(rows: Iterable[Row]) -> list[str]:
    return [f"  {line}" for line in align(list(rows))]
