"""The information in the code, between bounds, as a whole and site by site."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_mivae.diagnostics.aggregate import Contrast, contrast, contrast_conditioned
from pyro_mivae.diagnostics.context import UNDEFINED, Context, Figure, Figures, mean_of, means_of
from pyro_mivae.diagnostics.draws import Draws, distinct
from pyro_mivae.diagnostics.fitted import LEAST_ITEMS, Fitted, fitted_information
from pyro_mivae.diagnostics.layout import Layout

OPEN = 0.5  # nats between the bounds from which the sandwich counts as open

Names = tuple[str, ...] | None


def information_in_code(context: Context, draws: Draws) -> Figures:
    """Bounds the information in the whole code and in each site, over all data."""
    layout = context.layout
    contrasts = _contrasts(context, draws)
    rows, items = _whole(context, draws, contrasts)
    context.protocol["information_items"] = len(items)
    ceilings = [] if layout.conditional else [mean_of(draws.rate)]
    if rows is None:
        context.protocol["mi"] = f"not defined: {layout.why_unscored}"
        lower, upper, saturated = between(UNDEFINED, UNDEFINED, ceilings)
    else:
        lower, upper, saturated = between(mean_of(rows.lower), mean_of(rows.upper), ceilings)
    if layout.deterministic:
        upper = UNDEFINED
    figures: dict[str, Figure | float] = {
        "mi_lower": lower,
        "mi_upper": upper,
        "saturated": saturated,
        **_marginal_divergence(context, draws.rate, rows, lower, upper),
        **_fitted(context, draws, rows, items),
    }
    for name in layout.latent:
        figures |= _site(name, layout, draws, contrasts, (lower, upper))
    return figures


def _whole(
    context: Context, draws: Draws, contrasts: Mapping[Names, Contrast]
) -> tuple[Contrast | _Plugin | None, Tensor]:
    """Contrast of whole codes, if they can be scored, and which data it is of."""
    layout = context.layout
    items = torch.arange(len(context.x), device=context.device)
    if layout.enumerated == layout.latent:
        return _Plugin(draws.log_weights.exp()), items
    if layout.unscored:
        return None, items
    if layout.is_known(*layout.latent):
        return contrasts[None], items
    items = context.choose(context.subset).to(context.device)
    rows = contrast_conditioned(
        context.guide,
        context.take(items),
        draws.codes.take(items),
        layout,
        context.second_half[items],
    )
    return rows, items[: len(rows.rows)]


def _fitted(
    context: Context, draws: Draws, rows: Contrast | _Plugin | None, items: Tensor
) -> dict[str, Figure | float]:
    """What a marginal fitted on other data says, the upper bound never above the rate."""
    layout = context.layout
    found = Fitted()
    lower, upper = found.lower, found.upper
    has_density = isinstance(rows, Contrast) and not layout.deterministic
    if isinstance(rows, Contrast) and has_density and len(items) >= LEAST_ITEMS:
        log_prior = None if layout.conditional else draws.log_prior[items]
        found = fitted_information(rows, draws.codes.take(items), log_prior, layout, context.seed)
        ceilings = [] if layout.conditional else [mean_of(draws.rate)]
        lower, upper, _ = between(found.lower, found.upper, ceilings)
        if found.why_unfitted:
            context.protocol["fitted_mi"] = found.why_unfitted
    return {
        "fitted_mi_lower": lower,
        "fitted_mi_upper": upper,
        "fitted_reach": found.reach,
    }


def _contrasts(context: Context, draws: Draws) -> dict[Names, Contrast]:
    """Those of the whole code and of each drawn site whose density is known."""
    layout = context.layout
    everything = torch.arange(len(context.x), device=context.device)
    mixed = context.choose(context.subset).to(context.device)
    targets: list[tuple[Names, Tensor]] = []
    if layout.is_known(*layout.latent) and layout.enumerated != layout.latent:
        targets.append((None, everything))
    for name in layout.drawn:
        if layout.is_known(name):
            targets.append(((name,), mixed if name in layout.branching else everything))
    if not targets:
        return {}
    results = contrast(
        context.guide,
        context.x,
        draws.codes,
        layout,
        targets,
        batch_size=context.batch_size,
        device=context.device,
        second=context.second_half,
    )
    return dict(zip((names for names, _ in targets), results))


def _marginal_divergence(
    context: Context,
    rate: Tensor,
    rows: Contrast | _Plugin | None,
    lower: Figure,
    upper: Figure,
) -> dict[str, Figure]:
    """What is left of the rate, which is a divergence from one prior for all data."""
    if context.layout.conditional:
        sites = ", ".join(sorted(context.layout.conditional))
        context.protocol["marginal_kl"] = f"not defined: the prior of {sites} depends on the data"
        return {"marginal_kl_lower": UNDEFINED, "marginal_kl_upper": UNDEFINED}
    figures = {}
    mean, error = mean_of(rate)
    for name, bound, each in (
        ("marginal_kl_lower", upper, None if rows is None else rows.upper),
        ("marginal_kl_upper", lower, None if rows is None else rows.lower),
    ):
        if bound[0] == mean:  # the rate itself is the bound
            figures[name] = (0.0, 0.0)
        elif each is not None and len(each) == len(rate):
            figures[name] = (mean - bound[0], mean_of(rate - each)[1])
        else:
            figures[name] = (mean - bound[0], math.hypot(error, bound[1]))
    return figures


def _site(
    name: str,
    layout: Layout,
    draws: Draws,
    contrasts: Mapping[Names, Contrast],
    whole: tuple[Figure, Figure],
) -> dict[str, Figure]:
    lower, upper = whole if layout.drawn == layout.latent == (name,) else (UNDEFINED, UNDEFINED)
    ceiling = whole[1]
    shares: dict[str, Figure] = {}
    own = mean_of(draws.divergences[name]) if name in layout.alone else UNDEFINED
    if name in layout.deterministic:
        if name in layout.free:
            values = distinct(draws.codes.values[name])
            lower = mean_of(math.log(len(values)) - values.bincount()[values].double().log())
    elif name in layout.enumerated:
        plugin = _Plugin(_marginal(draws.log_weights.exp(), layout, name))
        lower, upper, _ = between(mean_of(plugin.lower), mean_of(plugin.upper), [own, ceiling])
        known = layout.free.issuperset(layout.enumerated)  # else weights hold what was drawn
        shares = _shares(name, plugin, lower, upper, known)
        if not known:
            lower = UNDEFINED
    elif (name,) in contrasts:
        rows = contrasts[(name,)]
        lower, upper, _ = between(mean_of(rows.lower), mean_of(rows.upper), [own, ceiling])
    return {f"mi_{name}_lower": lower, f"mi_{name}_upper": upper, **shares}


def _shares(
    name: str, plugin: _Plugin, lower: Figure, upper: Figure, known: bool
) -> dict[str, Figure]:
    """What each category has of the information in its site."""
    figures = {}
    gap = upper[0] - lower[0]
    for k, (low, high) in enumerate(zip(means_of(plugin.lowers), means_of(plugin.uppers))):
        figures[f"mi_{name}[{k}]_lower"] = low if known else UNDEFINED
        # What the site holds at most, less what the other categories hold at least.
        rest = (low[0] + gap, upper[1])
        figures[f"mi_{name}[{k}]_upper"] = high if high[0] < rest[0] else rest
    return figures


class _Plugin:
    """Both bounds for a categorical code, with the category summed out.

    Attributes:
        lowers: Summands of each category, whose means bound its share of the information from
            below, shape ``(n, categories)``.
        uppers: Those that bound it from above.
    """

    def __init__(self, probs: Tensor) -> None:
        everyone = probs.mean(0)
        others = (probs.sum(0) - probs).clamp_min(0) / max(1, len(probs) - 1)
        self.lowers = probs.xlogy(probs) - probs.xlogy(everyone)
        self.uppers = probs.xlogy(probs) - probs.xlogy(others)
        if len(probs) < 2:
            self.uppers = torch.full_like(self.uppers, torch.nan)

    @property
    def lower(self) -> Tensor:
        """Rows whose mean bounds the information from below."""
        return self.lowers.sum(1)

    @property
    def upper(self) -> Tensor:
        """Rows whose mean bounds the information from above."""
        return self.uppers.sum(1)


def between(lower: Figure, upper: Figure, ceilings: list[Figure]) -> tuple[Figure, Figure, float]:
    """Puts bounds of an information in their places: at least 0, and in order."""
    defined = [figure for figure in (*ceilings, upper) if not math.isnan(figure[0])]
    if defined:
        upper = min(defined)
    gap = upper[0] - lower[0]
    saturated = math.nan if math.isnan(gap) else float(gap > OPEN)
    if upper[0] < 0:
        upper = (0.0, upper[1])
    if lower[0] < 0:
        lower = (0.0, lower[1])
    if lower[0] > upper[0]:
        lower = (upper[0], lower[1])
    return lower, upper, saturated


def _marginal(probs: Tensor, layout: Layout, name: str) -> Tensor:
    """Probabilities of one enumerated site, shape ``(n, categories)``."""
    # Enumerated dimensions go leftwards in the order of the guide.
    dim = len(layout.sizes) - layout.enumerated.index(name)
    table = probs.reshape(-1, *layout.sizes)
    rest = [d for d in range(1, table.dim()) if d != dim]
    return table.sum(rest) if rest else table
