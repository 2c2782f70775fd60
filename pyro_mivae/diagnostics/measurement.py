"""The figures of the information report, one family after the other."""

from __future__ import annotations

import time

from pyro_mivae.diagnostics.annealed import annealed_evidence
from pyro_mivae.diagnostics.context import Context
from pyro_mivae.diagnostics.costs import active_units, costs
from pyro_mivae.diagnostics.dimensions import dimensions
from pyro_mivae.diagnostics.draws import draw_codes
from pyro_mivae.diagnostics.generative import generative_information
from pyro_mivae.diagnostics.sandwich import information_in_code
from pyro_mivae.figures import with_errors

FAMILIES = (
    costs,
    information_in_code,
    dimensions,
    active_units,
    generative_information,
    annealed_evidence,
)

RELIABLE = 10  # data from which a standard error is one


def measure(context: Context) -> dict[str, float]:
    """Measures every figure of the report; see `information`."""
    context.protocol.update(
        items=len(context.x),
        seed=context.seed,
        num_samples=context.num_samples,
        configurations=context.layout.num_configurations,
    )
    if context.layout.meanless:
        context.protocol["active_units"] = (
            f"by means of 100 draws of each code, twice, as the guide knows no mean of "
            f"{', '.join(sorted(context.layout.meanless))}"
        )
    began = time.perf_counter()
    draws = draw_codes(
        context.model,
        context.guide,
        context.x,
        context.layout,
        num_samples=context.num_samples,
        batch_size=context.batch_size,
        device=context.device,
    )
    context.seconds["draw_codes"] = time.perf_counter() - began
    values: dict[str, float] = {}
    for family in FAMILIES:
        began = time.perf_counter() - sum(context.seconds.values())
        values |= with_errors(family(context, draws))
        passed = time.perf_counter() - began
        context.seconds[family.__name__] = passed - sum(context.seconds.values())
    few = sorted(
        name
        for name, count in context.protocol.items()
        if name.endswith("items") and 0 < count < RELIABLE
    )
    if few:
        context.protocol["standard_errors"] = (
            f"unreliable where they are of under {RELIABLE} data ({', '.join(few)})"
        )
    return values
