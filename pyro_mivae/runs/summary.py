"""The table that a run ends with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

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
from pyro_mivae.tables import write_error

Row = tuple[str, str, str]
"""Label, figure and standard error."""


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
    lines = ["nats per test image", *_align(list(_nats(metrics)))]
    if note:
        lines.append(f"  ({note})")
    parts = [] if num_categories else list(_parts(metrics))
    if parts:
        lines += ["share of the variance reconstructed", *_align(parts)]
    for about in ("labels", "factors"):
        rows = [
            _row(metrics, figure.name)
            for figure in FIGURES.values()
            if figure.about == about and figure.tables == "summary"
            if not math.isnan(metrics.get(figure.name, math.nan))
        ]
        if rows:
            lines += [f"against {about}, which training did not see", *_align(rows)]
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
    intervals = [("mi", ""), *(("mi", site) for site in sites)]
    if metrics.get("saturated"):
        intervals.append(("fitted_mi", ""))
    intervals.append(("generative_mi", ""))
    whole = _interval(metrics, "generative_mi", "")
    for site in sites:
        if _interval(metrics, "generative_mi", site) not in (whole, _number(math.nan)):
            intervals.append(("generative_mi", site))
    for name, site in intervals:
        ends = [key(name, site, side) for side in (LOWER, UPPER)]
        if all(end in metrics for end in ends):
            errors = [error_of(metrics, end) for end in ends]
            margin = write_error(max(filter(math.isfinite, errors), default=math.nan))
            yield f"information {label(key(name, site))}", _interval(metrics, name, site), margin
    for k, value in parsed(metrics):
        margin = write_error(error_of(metrics, str(k)))
        if k.side == CRITIC:
            yield f"information {k.label}", _number(value), margin
        if k.name == "barber_agakov":
            yield f"information {k.label}", f"at least {_number(value)}", margin


def _parts(metrics: Mapping[str, float]) -> Iterator[Row]:
    """R² of all of a code and of each site alone, where there are several."""
    found = list(parsed(metrics, "reconstruction_r2"))
    for k, _ in found if len(found) > 1 else ():
        _, number, margin = _row(metrics, str(k), digits=2)
        yield f"{k.site} alone" if k.site else "the whole code", number, margin


def _row(metrics: Mapping[str, float], name: str, digits: int | None = None) -> Row:
    """A figure, with as many digits as its unit has."""
    found = next(k for k, _ in parsed({name: 0.0}))
    digits = DIGITS[found.figure.unit] if digits is None else digits
    margin = write_error(error_of(metrics, name), digits)
    return found.label, _number(metrics[name], digits), margin


def _number(value: float, digits: int = 2) -> str:
    return "not defined" if math.isnan(value) else f"{value:.{digits}f}"


def _interval(metrics: Mapping[str, float], name: str, site: str) -> str:
    low, high = interval(metrics, name, site)
    if math.isnan(low) or math.isnan(high):
        if math.isnan(low) and math.isnan(high):
            return _number(high)
        return f"at most {_number(high)}" if math.isnan(low) else f"at least {_number(low)}"
    return f"{_number(low)} to {_number(high)}"


def _align(rows: list[Row]) -> Iterator[str]:
    left = max((len(label) for label, _, _ in rows), default=0)
    right = max((len(text) for _, text, _ in rows), default=0)
    return (
        f"  {label:<{left}}  {text:>{right}} {margin}".rstrip() for label, text, margin in rows
    )
