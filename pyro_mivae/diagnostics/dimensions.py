"""What single dimensions of the drawn sites hold, and how far they are from independent."""

from __future__ import annotations

import math

import torch

from pyro_mivae.diagnostics.aggregate import Contrast, contrast
from pyro_mivae.diagnostics.context import (
    UNDEFINED,
    Context,
    Figure,
    Figures,
    mean_of,
    means_of,
)
from pyro_mivae.diagnostics.coordinates import contrast_coordinates, marginals
from pyro_mivae.diagnostics.draws import Draws
from pyro_mivae.diagnostics.fitted import LEAST_ITEMS, fitted_log_marginal
from pyro_mivae.diagnostics.posterior import Posterior
from pyro_mivae.diagnostics.sandwich import between

MOST_NUMBERS = 2**31  # densities of single coordinates in a report


def dimensions(context: Context, draws: Draws) -> Figures:
    """Measures every dimension of the drawn sites, and their total correlation, on a subset."""
    layout, device = context.layout, context.device
    dims = {name: part.shape[1] for name, part in draws.parts.items()}
    width = max(1, sum(dims.values()) * layout.num_configurations)
    items = context.choose(min(context.subset, max(2, math.isqrt(MOST_NUMBERS // width))))
    context.protocol["dimension_items"] = len(items)
    context.protocol["total_correlation_items"] = len(items)
    x, codes = context.take(items), draws.codes.take(items.to(device))
    posterior = Posterior(context.guide, x[:2], layout)
    known = [
        name
        for name in layout.drawn
        if layout.is_known(name) and marginals(posterior.fns[name]) is not None
    ]
    contrasts = contrast_coordinates(
        context.guide, x, codes, layout, known, batch_size=context.batch_size, device=device
    )
    figures: dict[str, Figure] = {}
    for name in layout.drawn:
        figures |= _site(name, draws, contrasts.get(name), name in layout.alone)
    tied = [UNDEFINED] * 3
    whole_is_known = not layout.deterministic and layout.is_known(*layout.drawn)
    if sum(dims.values()) == 1 and whole_is_known and len(items) > 1:
        tied = [(0.0, 0.0)] * 3
    elif layout.drawn and set(known) == set(layout.drawn) and whole_is_known and len(items) > 1:
        rows = torch.arange(len(items), device=device)
        (whole,) = contrast(
            context.guide,
            x,
            codes,
            layout,
            [(layout.drawn, rows)],
            batch_size=context.batch_size,
            device=device,
            second=context.second_half[items.to(device)],
        )
        marginal = whole.others
        if len(items) >= LEAST_ITEMS:
            marginal = fitted_log_marginal(whole, codes, layout, context.seed)
        everyone = torch.cat([contrasts[name].everyone for name in layout.drawn], 1).sum(1)
        others = torch.cat([contrasts[name].others for name in layout.drawn], 1).sum(1)
        lower, upper, wide = between(
            mean_of(marginal - everyone), mean_of(whole.everyone - others), []
        )
        tied = [lower if wide else mean_of(whole.everyone - everyone), lower, upper]
    names = ("total_correlation", "total_correlation_lower", "total_correlation_upper")
    return figures | dict(zip(names, tied))


def _site(name: str, draws: Draws, rows: Contrast | None, alone: bool) -> dict[str, Figure]:
    figures = {}
    costs = means_of(draws.parts[name])
    unknown = [UNDEFINED] * len(costs)
    lowest = unknown if rows is None else means_of(rows.lower)
    highest = unknown if rows is None else means_of(rows.upper)
    for d, (cost, low, high) in enumerate(zip(costs, lowest, highest)):
        lower, upper, _ = between(low, high, [cost] if alone and rows is not None else [])
        figures[f"kl_{name}[{d}]"] = cost
        figures[f"mi_{name}[{d}]_lower"], figures[f"mi_{name}[{d}]_upper"] = lower, upper
    return figures
