"""Figures, each with a line about its measurement."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pyro_mivae.arguments import checked, instance, named, text
from pyro_mivae.figures import ERROR, LOWER, UPPER, key, with_errors, without_errors


class Findings:
    """Figures measured so far.

    Attributes:
        values: Every figure by key.
        lines: Measurement of the figures: a sentence by comma-separated keys, in which ``*``
            matches anything. The first match of a figure is its line.
    """

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self.lines: dict[str, str] = {}

    def record(
        self, line: str, values: Mapping[str, float | tuple[float, float]], keys: str = ""
    ) -> None:
        """Adds figures with a common measurement, alone or paired with their standard errors."""
        self.values |= with_errors(values)
        self.lines[keys or ", ".join(without_errors(values))] = line


@checked(protocol=instance(Mapping, example="evaluate(...).protocol"), name=text())
def how_measured(protocol: Mapping[str, Any], name: str) -> str | None:
    """Finds a protocol's line on a figure; a standard error's line is that of its figure."""
    name = name.removesuffix(ERROR)
    lines = named(text())("protocol['figures']", protocol.get("figures", {}))
    for patterns, line in lines.items():
        for pattern in patterns.split(", "):
            if re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name):
                return str(line)
    return None


def information_lines(report: Mapping[str, Any]) -> dict[str, str]:
    """Describes the measurement of each figure of `information`."""
    items, samples = report["items"], report["num_samples"]
    codes = f"{samples} draw{'s' if samples > 1 else ''} of the code of each of the {items} items"
    if report["configurations"] > 1:
        codes += ", categories summed out"
    dims = report.get("dimension_items", items)

    def of_all(measured: int) -> str:
        return "" if measured == items else "; the ELBO of all items plus its gain"

    def both(name: str, site: str = "") -> str:
        return ", ".join(key(name, site, side) for side in (LOWER, UPPER))

    annealed = str(report.get("ais", "not asked for"))
    if "ais_items" in report:
        annealed += (
            f" at {report['ais_temperatures']} temperatures, {report['ais_items']} of {items} "
            f"items, {report['ais_acceptance']:.0%} of the proposals accepted"
            + of_all(report["ais_items"])
        )
    gap = str(report.get("ais_gap", "not asked for"))
    if "ais_gap_items" in report:
        gap = (
            f"annealed log p(x) of {report['ais_gap_items']} data drawn from the model, whose "
            "codes are exact draws of the posterior: from above less from below, the most by "
            "which the annealed figure is low there on average"
        )
    refined = str(report.get("refined", "not asked for"))
    if "refined_items" in report:
        refined += f" of {report['refined_items']} of {items} items, less the guide's, same draws"
    return {
        f"distortion, rate, elbo, {key('kl', '*')}": codes,
        "log_px": (
            f"importance-weighted bound, {report['iwae_samples']} draws of each of "
            f"{report['iwae_items']} items" + of_all(report["iwae_items"])
        ),
        "log_px_ais": annealed,
        "log_px_ais_gap": gap,
        "amortization_gap": refined,
        f"{both('mi')}, saturated, {both('marginal_kl')}": "; ".join(
            [
                f"InfoNCE and leave-one-out bounds over the known posteriors, codes of "
                f"{report.get('information_items', 0)} items; the upper one at most the rate",
                *(f"{name} {report[name]}" for name in ("mi", "marginal_kl") if name in report),
            ]
        ),
        both("mi", "*[*]"): (
            f"the same bounds of each dimension by itself on {dims} items; for a category its "
            f"share in the posterior probabilities of {items} items"
        ),
        both("mi", "*"): (
            "the same bounds of each site by itself; a category by its posterior probabilities"
        ),
        "fitted_*": report.get(
            "fitted_mi", "a marginal fitted on other items' codes in place of their mixture"
        ),
        "total_correlation*": (
            f"posteriors of {report.get('total_correlation_items', dims)} items as the mixture; "
            "from below a density fitted on the other half of them"
        ),
        "active_units*": report.get(
            "active_units",
            "dimensions whose posterior means over all items have a variance above 0.01",
        ),
        "generative_mi*": str(report.get("generative_mi", "not asked for")),
        "*_se": "; ".join(
            ["standard error over the items", *filter(None, [report.get("standard_errors")])]
        ),
    }
