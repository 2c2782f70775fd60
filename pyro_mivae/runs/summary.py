"""The table that a run ends with."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

from pyro_mivae.diagnostics import diagnose
from pyro_mivae.diagnostics.keys import is_indexed

LABELS = {
    "distortion": "distortion, -E log p(x|code)",
    "rate": "rate, sum of the KLs",
    "elbo": "ELBO",
    "log_px": "log p(x), importance-weighted",
    "log_px_ais": "log p(x), annealed",
}
ENDS = ("lower", "upper")
Row = tuple[str, str, str]
"""What it is, the figure, and its standard error."""
FACTORS = {
    "mig": "mutual information gap (MIG)",
    "sap": "separated attribute predictability",
    "dci_disentanglement": "DCI disentanglement",
    "dci_completeness": "DCI completeness",
    "dci_informativeness": "DCI informativeness",
    "factor_vae_score": "FactorVAE score",
    "modularity": "modularity",
}


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
    rows = list(_nats(metrics))
    lines = ["nats per test image", *_align(rows)]
    if note:
        lines.append(f"  ({note})")
    parts = [] if num_categories else list(_parts(metrics))
    if parts:
        lines += ["share of the variance reconstructed", *_align(parts)]
    shares = list(_shares(metrics))
    if shares:
        lines += ["against labels, which training did not see", *_align(shares)]
    factors = [
        (label, f"{metrics[key]:.3f}", _margin(metrics, key, digits=3))
        for key, label in FACTORS.items()
        if key in metrics
    ]
    if factors:
        lines += ["against factors, which training did not see", *_align(factors)]
    used = metrics.get("categories_used", math.nan)
    if not math.isnan(used):
        of = f" of {num_categories}" if num_categories else ""
        lines.append(f"categories in use: {used:.0f}{of}")
    stands_out = diagnose(metrics, noise=noise)
    if stands_out:
        lines += ["what stands out", *(f"  {diagnosis}" for diagnosis in stands_out)]
    return "\n".join(lines)


def _nats(metrics: Mapping[str, float]) -> Iterator[Row]:
    costs = [key for key in metrics if key.startswith("kl_") and not is_indexed(key)]
    sites = [key[3:] for key in costs if not key.endswith("_se")]
    bounds = ("rate", "elbo", "log_px", "log_px_ais")
    for key in ("distortion", *(f"kl_{site}" for site in sites), *bounds):
        if key in metrics:
            label = LABELS.get(key, f"KL of {key[3:]}")
            yield label, _number(metrics[key]), _margin(metrics, key)
    intervals = {"mi": "I(x; code)"} | {f"mi_{site}": f"I(x; {site})" for site in sites}
    if metrics.get("saturated"):
        intervals["fitted_mi"] = "I(x; code), by a fitted marginal"
    intervals["generative_mi"] = "I(x; code) in samples"
    for site in sites:
        if not _same(metrics, f"generative_mi_{site}", "generative_mi"):
            intervals[f"generative_mi_{site}"] = f"I(x; {site}) in samples"
    for name, label in intervals.items():
        low, high = (metrics.get(f"{name}_{end}") for end in ENDS)
        if low is not None and high is not None:
            margin = _margin(metrics, *(f"{name}_{end}" for end in ENDS))
            yield f"information {label}", _interval(low, high), margin
    for key, value in metrics.items():
        if key.startswith("mi_") and key.endswith("_critic"):
            site = key.removeprefix("mi_").removesuffix("_critic")
            yield f"information I(x; {site}), by the critic", _number(value), _margin(metrics, key)
        if key.startswith("barber_agakov_") and key.endswith("_mean"):
            site = key.removeprefix("barber_agakov_").removesuffix("_mean")
            bound = f"at least {_number(value)}"
            yield f"information I({site}; mean image)", bound, _margin(metrics, key)


def _same(metrics: Mapping[str, float], one: str, other: str) -> bool:
    """Tells whether two intervals read the same, or the first is not defined."""
    ends = [[metrics.get(f"{name}_{end}", math.nan) for name in (one, other)] for end in ENDS]
    return all(math.isnan(a) or _number(a) == _number(b) for a, b in ends)


def _parts(metrics: Mapping[str, float]) -> Iterator[Row]:
    """R² of all of a code and of each site alone, where there are several."""
    key = "reconstruction_r2"
    sites = [name.removeprefix(f"{key}_") for name in metrics if name.startswith(f"{key}_")]
    for label, name in (("the whole code", key), *((f"{s} alone", f"{key}_{s}") for s in sites)):
        if sites and name in metrics:
            yield label, _number(metrics[name]), _margin(metrics, name)


def _shares(metrics: Mapping[str, float]) -> Iterator[Row]:
    labels = {
        "cluster_accuracy": "clustering accuracy",
        "nmi": "normalised mutual information",
        "generation_accuracy": "generation accuracy",
        "generation_consistency": "generation consistency",
        "linear_probe": "linear probe of the code",
    }
    for key, label in labels.items():
        if not math.isnan(metrics.get(key, math.nan)):
            yield label, f"{metrics[key]:.3f}", _margin(metrics, key, digits=3)


def _margin(metrics: Mapping[str, float], *keys: str, digits: int = 2) -> str:
    """The largest standard error of some figures, written out."""
    errors = [metrics.get(f"{key}_se", math.nan) for key in keys]
    known = [error for error in errors if not math.isnan(error)]
    return f"± {max(known):.{digits}f}" if known else ""


def _number(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.2f}"


def _interval(low: float, high: float) -> str:
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
