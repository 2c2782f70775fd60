"""Table of the figures of a run."""

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
from pyro_mivae.tables import align, write_error

Row = tuple[str, str, str]  # label, figure and standard error
UNDEFINED = "not defined"


def summarise(
    metrics: Mapping[str, float],
    num_categories: int | None = None,
    note: str = "",
    noise: Collection[str] = (),
) -> str:
    """Puts the numbers that matter most in a small table, and under it what stands out.

    Standard errors over the images stand beside them; of an interval, the larger of its ends'.

    Example:
        >>> print(summarise({"distortion": 20.0, "kl_z": 5.0, "rate": 5.0, "elbo": -25.0}))
        nats per test image
          distortion, -E log p(x|code)    20.00
          KL of z                          5.00
          rate, sum of the KLs             5.00
          ELBO                           -25.00
    """
    lines = ["nats per test image", *_indented(_nats(metrics))]
    if note:
        lines.append(f"  ({note})")
    parts = [] if num_categories else list(parsed(metrics, "reconstruction_r2"))
    if len(parts) > 1:
        alone = [(f"{k.site} alone" if k.site else "the whole code", str(k)) for k, _ in parts]
        lines.append("share of the variance reconstructed")
        lines += _indented((name, *_row(metrics, k, digits=2)[1:]) for name, k in alone)
    for about in ("labels", "factors"):
        shown = [f.name for f in FIGURES.values() if (f.about, f.tables) == (about, "summary")]
        rows = [_row(metrics, k) for k in shown if not math.isnan(metrics.get(k, math.nan))]
        if rows:
            lines += [f"against {about}, which training did not see", *_indented(rows)]
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
    for name in ("distortion", *costs, "rate", "elbo", "log_px", "log_px_ais"):
        if name in metrics:
            yield _row(metrics, name)
    whole = _interval(metrics, "generative_mi", "")
    told = [_interval(metrics, "generative_mi", site) for site in sites]
    intervals = [
        *(("mi", site) for site in ("", *sites)),
        *([("fitted_mi", "")] if metrics.get("saturated") else []),
        ("generative_mi", ""),
        *(("generative_mi", s) for s, t in zip(sites, told) if t not in (whole, UNDEFINED)),
    ]
    for name, site in intervals:
        ends = [key(name, site, side) for side in (LOWER, UPPER)]
        if all(end in metrics for end in ends):
            errors = [error_of(metrics, end) for end in ends]
            margin = write_error(max(filter(math.isfinite, errors), default=math.nan))
            yield f"information {label(key(name, site))}", _interval(metrics, name, site), margin
    for k, _ in parsed(metrics):
        if k.side == CRITIC or k.name == "barber_agakov":
            name, number, margin = _row(metrics, str(k))
            least = "at least " * (k.side != CRITIC)
            yield f"information {name}", least + number, margin


def _row(metrics: Mapping[str, float], name: str, digits: int | None = None) -> Row:
    """A figure, with as many digits as its unit has."""
    found = next(k for k, _ in parsed({name: 0.0}))
    digits = DIGITS[found.figure.unit] if digits is None else digits
    margin = write_error(error_of(metrics, name), digits)
    return found.label, _number(metrics[name], digits), margin


def _number(value: float, digits: int = 2) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:.{digits}f}"


def _interval(metrics: Mapping[str, float], name: str, site: str) -> str:
    low, high = interval(metrics, name, site)
    if math.isnan(low):
        return UNDEFINED if math.isnan(high) else f"at most {_number(high)}"
    return f"at least {_number(low)}" if math.isnan(high) else f"{_number(low)} to {_number(high)}"


def _indented(rows: Iterable[Row]) -> list[str]:
    return [f"  {line}" for line in align(list(rows))]
