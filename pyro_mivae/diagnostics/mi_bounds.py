"""Bounds of the information in the code, as a whole and site by site."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_mivae.diagnostics.aggregate import (
    AggregatePosterior,
    aggregate,
    aggregate_conditioned,
)
from pyro_mivae.diagnostics.context import (
    UNDEFINED,
    Context,
    Figure,
    Figures,
    ends,
    in_order,
    mean_of,
    means_of,
)
from pyro_mivae.diagnostics.fitted import LEAST_ITEMS, Fitted, fitted_information
from pyro_mivae.posterior.draws import Draws, distinct, rows_of
from pyro_mivae.posterior.layout import SiteLayout

Names = tuple[str, ...] | None


def information_in_code(context: Context, draws: Draws) -> Figures:
    """Bounds the information in the whole code and in each site, over all data."""
    layout = context.layout
    aggregates = _aggregates(context, draws)
    rows: AggregatePosterior | _Categorical | None = None
    items = torch.arange(len(context.x), device=context.device)
    if layout.enumerated == layout.latent:
        rows = _Categorical(draws.log_weights.exp())
    elif layout.is_known(*layout.latent):
        rows = aggregates[None]
    elif not layout.unscored:
        items = context.choose(context.options.subset).to(context.device)
        codes, half = rows_of(draws.codes, items), context.second_half[items]
        rows = aggregate_conditioned(context.pair, context.take(items), codes, half)
        items = items[: len(rows.rows)]
    context.protocol["information_items"] = len(items)
    ceilings = [] if layout.conditional else [mean_of(draws.rate)]
    lower, upper = UNDEFINED, UNDEFINED
    if rows is None:
        context.protocol["mi"] = f"not defined: {layout.why_unscored}"
    else:
        lower, upper = mean_of(rows.lower), mean_of(rows.upper)
    lower, upper, saturated = in_order(lower, upper, ceilings)
    if layout.deterministic:
        upper = UNDEFINED
    figures: dict[str, Figure | float] = {
        **ends("mi", lower, upper),
        "saturated": saturated,
        **_marginal_divergence(context, draws.rate, rows, lower, upper),
    }
    fitted = Fitted()
    is_fitted = not layout.deterministic and len(items) >= LEAST_ITEMS
    if isinstance(rows, AggregatePosterior) and is_fitted:
        log_prior = None if layout.conditional else draws.log_prior[items]
        codes = rows_of(draws.codes, items)
        fitted = fitted_information(rows, codes, log_prior, layout, context.seed)
        low, high, _ = in_order(fitted.lower, fitted.upper, ceilings)
        fitted = fitted._replace(lower=low, upper=high)
        if fitted.why_unfitted:
            context.protocol["fitted_mi"] = fitted.why_unfitted
    figures |= ends("fitted_mi", fitted.lower, fitted.upper) | {"fitted_reach": fitted.reach}
    for name in layout.latent:
        figures |= _site(name, layout, draws, aggregates.get((name,)), lower, upper)
    return figures


def _aggregates(context: Context, draws: Draws) -> dict[Names, AggregatePosterior]:
    """Aggregates of the whole code and of each drawn site whose density is known."""
    layout = context.layout
    everything = torch.arange(len(context.x), device=context.device)
    mixed = context.choose(context.options.subset).to(context.device)
    targets: list[tuple[Names, Tensor]] = []
    if layout.is_known(*layout.latent) and layout.enumerated != layout.latent:
        targets.append((None, everything))
    for name in filter(layout.is_known, layout.drawn):
        targets.append(((name,), mixed if name in layout.branching else everything))
    if not targets:
        return {}
    results = aggregate(context.pair, context.x, draws.codes, targets, context.second_half)
    return dict(zip((names for names, _ in targets), results))


def _marginal_divergence(
    context: Context,
    rate: Tensor,
    rows: AggregatePosterior | _Categorical | None,
    lower: Figure,
    upper: Figure,
) -> dict[str, Figure]:
    """The rate less the information, which is a divergence from one prior for all data."""
    if context.layout.conditional:
        sites = ", ".join(sorted(context.layout.conditional))
        context.protocol["marginal_kl"] = f"not defined: the prior of {sites} depends on the data"
        return ends("marginal_kl", UNDEFINED, UNDEFINED)
    mean, error = mean_of(rate)

    def rest(bound: Figure, each: Tensor | None) -> Figure:
        if bound[0] == mean:  # the rate itself is the bound
            return 0.0, 0.0
        if each is not None and len(each) == len(rate):
            return mean - bound[0], mean_of(rate - each)[1]
        return mean - bound[0], math.hypot(error, bound[1])

    low, high = (None, None) if rows is None else (rows.upper, rows.lower)
    return ends("marginal_kl", rest(upper, low), rest(lower, high))


def _site(
    name: str,
    layout: SiteLayout,
    draws: Draws,
    rows: AggregatePosterior | None,
    least: Figure,
    most: Figure,
) -> dict[str, Figure]:
    """Bounds of one site's information, given those of the whole code's."""
    lower, upper = UNDEFINED, UNDEFINED
    if layout.drawn == layout.latent == (name,):
        lower, upper = least, most
    shares: dict[str, Figure] = {}
    own = mean_of(draws.divergences[name]) if name in layout.alone else UNDEFINED
    if name in layout.deterministic:
        if name in layout.free:
            values = distinct(draws.codes.values[name])
            lower = mean_of(math.log(len(values)) - values.bincount()[values].double().log())
    elif name in layout.enumerated:
        plugin = _Categorical(_marginal(draws.log_weights.exp(), layout, name))
        lower, upper, _ = in_order(mean_of(plugin.lower), mean_of(plugin.upper), [own, most])
        known = layout.free.issuperset(layout.enumerated)  # else weights hold what was drawn
        gap = upper[0] - lower[0]
        for k, (low, high) in enumerate(zip(means_of(plugin.lowers), means_of(plugin.uppers))):
            # The site's upper bound less the other categories' lower bounds.
            rest = (low[0] + gap, upper[1])
            high = high if high[0] < rest[0] else rest
            shares |= ends("mi", low if known else UNDEFINED, high, name, k)
        lower = lower if known else UNDEFINED
    elif rows is not None:
        lower, upper, _ = in_order(mean_of(rows.lower), mean_of(rows.upper), [own, most])
    return ends("mi", lower, upper, name) | shares


class _Categorical:
    """Both bounds for a categorical code, with the category summed out.

    Attributes:
        lowers: Summands of each category, whose means bound its share of the information from
            below, shape ``(n, categories)``.
        uppers: Summands that bound it from above.
        lower, upper: Their sums over the categories.
    """

    def __init__(self, probs: Tensor) -> None:
        everyone = probs.mean(0)
        others = (probs.sum(0) - probs).clamp_min(0) / max(1, len(probs) - 1)
        self.lowers = probs.xlogy(probs) - probs.xlogy(everyone)
        self.uppers = probs.xlogy(probs) - probs.xlogy(others)
        if len(probs) < 2:
            self.uppers = torch.full_like(self.uppers, torch.nan)
        self.lower, self.upper = self.lowers.sum(1), self.uppers.sum(1)


def _marginal(probs: Tensor, layout: SiteLayout, name: str) -> Tensor:
    """Probabilities of one enumerated site, shape ``(n, categories)``."""
    # Enumerated dimensions go leftwards in the order of the guide.
    dim = len(layout.sizes) - layout.enumerated.index(name)
    table = probs.reshape(-1, *layout.sizes)
    rest = [d for d in range(1, table.dim()) if d != dim]
    return table.sum(rest) if rest else table
