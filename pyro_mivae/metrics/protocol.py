"""How the figures of the information report were measured, in a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COUNTED = "counted by the variance of the posterior means of all items, over 0.01"


def information_lines(report: Mapping[str, Any]) -> dict[str, str]:
    """Says how each figure of `information` was measured."""
    items, samples = report["items"], report["num_samples"]
    codes = f"{samples} draw{'s' if samples > 1 else ''} of the code of each of the {items} items"
    if report["configurations"] > 1:
        codes += ", categories summed out"
    dims = report.get("dimension_items", items)
    return {
        "distortion, rate, elbo, kl_*": codes,
        "log_px": (
            f"importance-weighted bound, {report['iwae_samples']} draws of each of "
            f"{report['iwae_items']} items"
            + ("" if report["iwae_items"] == items else "; the ELBO of all items plus its gain")
        ),
        "log_px_ais": _annealed(report),
        "mi_lower, mi_upper, saturated, marginal_kl_lower, marginal_kl_upper": "; ".join(
            [
                f"InfoNCE and leave-one-out bounds over the known posteriors, codes of "
                f"{report['information_items']} items; the upper one at most the rate",
                *(f"{name} {report[name]}" for name in ("mi", "marginal_kl") if name in report),
            ]
        ),
        "mi_*[*]_lower, mi_*[*]_upper": (
            f"the same bounds of each dimension by itself on {dims} items; of a category its "
            f"share in the posterior probabilities of {items} items"
        ),
        "mi_*_lower, mi_*_upper": (
            "the same bounds of each site by itself; a category by its posterior probabilities"
        ),
        "fitted_*": report.get(
            "fitted_mi", "a marginal fitted on other items' codes in place of their mixture"
        ),
        "total_correlation*": (
            f"posteriors of {report.get('total_correlation_items', dims)} items as the mixture; "
            "from below a density fitted on the other half of them"
        ),
        "active_units*": report.get("active_units", COUNTED),
        "generative_mi*": str(report.get("generative_mi", "not asked for")),
        "*_se": "; ".join(
            ["standard error over the items", *filter(None, [report.get("standard_errors")])]
        ),
    }


def _annealed(report: Mapping[str, Any]) -> str:
    if "ais_items" not in report:
        return str(report.get("ais", "not asked for"))
    gain = (
        "" if report["ais_items"] == report["items"] else "; the ELBO of all items plus its gain"
    )
    return (
        f"{report['ais']} at {report['ais_temperatures']} temperatures, {report['ais_items']} of "
        f"{report['items']} items, {report['ais_acceptance']:.0%} of the proposals accepted{gain}"
    )
