"""Bounds on the information in the code, its sites and its single dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from pyro_mivae.diagnostics.aggregate import (
    AggregatePosterior,
    aggregate,
    aggregate_conditioned,
    blocks,
    posteriors,
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
from pyro_mivae.diagnostics.fitted import (
    LEAST_ITEMS,
    Fitted,
    fitted_information,
    fitted_log_marginal,
)
from pyro_mivae.figures import key
from pyro_mivae.posterior.densities import (
    Codes,
    Draws,
    Posterior,
    distinct,
    is_flow,
    log_density_anywhere,
    rows_of,
)
from pyro_mivae.posterior.layout import ProbedPair, SiteLayout, factors

FLOW_ITEMS = 300  # data of which each code is scored under each by the networks of a flow
MOST_NUMBERS = 2**31  # densities of single coordinates in a report
SMALLER = 2  # times less at once than elsewhere: every number is gone over several times
PRUNED = 1e-9  # components of a one-dimensional mixture below this weight are left out
NEAR = 1e4  # span of codes, in deviations, up to which single precision resolves neighbours

Names = tuple[str, ...] | None


def information_in_code(context: Context, draws: Draws) -> Figures:
    """Bounds the information in the whole code and in each site, over all data."""
    layout, device = context.pair.layout, context.pair.device
    x = context.take(torch.arange(min(2, len(context.x))))
    fns = Posterior(context.pair.guide, x, layout).fns
    most = len(context.x)
    if any(map(is_flow, fns.values())):
        context.protocol["flow_items"] = most = min(most, FLOW_ITEMS)
    items = context.choose(most).to(device)
    aggregates = _aggregates(context, draws, items)
    rows: AggregatePosterior | _Categorical | None = None
    if layout.enumerated == layout.latent:
        rows = _Categorical(draws.log_weights.exp())
    elif layout.is_known(*layout.latent):
        rows = aggregates[None]
    elif not layout.unscored:
        items = context.choose(min(most, context.options.subset)).to(device)
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


def _aggregates(context: Context, draws: Draws, items: Tensor) -> dict[Names, AggregatePosterior]:
    """Aggregates of the whole code and of each drawn site whose density is known."""
    layout = context.pair.layout
    everything = torch.arange(len(items), device=items.device)
    mixed = everything[torch.isin(items, context.choose(context.options.subset).to(items))]
    targets: list[tuple[Names, Tensor]] = []
    if layout.is_known(*layout.latent) and layout.enumerated != layout.latent:
        targets.append((None, everything))
    for name in filter(layout.is_known, layout.drawn):
        if layout.latent == (name,):
            continue  # it is the whole code
        targets.append(((name,), mixed if name in layout.branching else everything))
    if not targets:
        return {}
    x, codes = context.x[items.to(context.x.device)], rows_of(draws.codes, items)
    results = aggregate(context.pair, x, codes, targets, context.second_half[items])
    return dict(zip((names for names, _ in targets), results))


def _marginal_divergence(
    context: Context,
    rate: Tensor,
    rows: AggregatePosterior | _Categorical | None,
    lower: Figure,
    upper: Figure,
) -> dict[str, Figure]:
    """Bounds the KL divergence of q(code) from p(code): the rate less the information."""
    if context.pair.layout.conditional:
        sites = ", ".join(sorted(context.pair.layout.conditional))
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
    """Bounds on one site's information, given those of the whole code."""
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


def dimensions(context: Context, draws: Draws) -> Figures:
    """Measures every dimension of the drawn sites, and their total correlation, on a subset."""
    layout, device = context.pair.layout, context.pair.device
    count = sum(part.shape[1] for part in draws.parts.values())
    most = math.isqrt(MOST_NUMBERS // max(1, count * layout.num_configurations))
    items = context.choose(min(context.options.subset, max(2, most)))
    context.protocol["dimension_items"] = len(items)
    context.protocol["total_correlation_items"] = len(items)
    x, codes = context.take(items), rows_of(draws.codes, items.to(device))
    fns = Posterior(context.pair.guide, x[:2], layout).fns
    known = [
        name for name in filter(layout.is_known, layout.drawn) if marginals(fns[name]) is not None
    ]
    each = aggregate_dimensions(context.pair, x, codes, known)
    figures: dict[str, Figure] = {}
    for name in layout.drawn:
        rows, costs = each.get(name), means_of(draws.parts[name])
        bounds = [(UNDEFINED, UNDEFINED)] * len(costs)
        if rows is not None:
            bounds = list(zip(means_of(rows.lower), means_of(rows.upper)))
        ceiling = rows is not None and name in layout.alone
        for d, (cost, (low, high)) in enumerate(zip(costs, bounds)):
            lower, upper, _ = in_order(low, high, [cost] if ceiling else [])
            figures |= {key("kl", name, index=d): cost, **ends("mi", lower, upper, name, d)}
    total = lower = upper = UNDEFINED
    is_known = layout.is_known(*layout.drawn) and not layout.deterministic and len(items) > 1
    if is_known and count == 1:
        total = lower = upper = 0.0, 0.0
    elif is_known and known and known == list(layout.drawn):
        target = (layout.drawn, torch.arange(len(items), device=device))
        half = context.second_half[items.to(device)]
        (whole,) = aggregate(context.pair, x, codes, [target], half)
        marginal = whole.others
        if len(items) >= LEAST_ITEMS:
            marginal = fitted_log_marginal(whole, codes, layout, context.seed)
        everyone = torch.cat([each[name].everyone for name in layout.drawn], 1).sum(1)
        others = torch.cat([each[name].others for name in layout.drawn], 1).sum(1)
        lower, upper = mean_of(marginal - everyone), mean_of(whole.everyone - others)
        lower, upper, wide = in_order(lower, upper, [])
        total = lower if wide else mean_of(whole.everyone - everyone)
    name = "total_correlation"
    return figures | {name: total} | ends(name, lower, upper)


def marginals(fn: Distribution) -> Distribution | None:
    """Returns each coordinate's distribution, also if they are dependent; see `factors`."""
    if isinstance(fn, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(fn.mean, fn.variance.sqrt(), validate_args=False)
    return factors(fn)


def aggregate_dimensions(
    pair: ProbedPair, x: Tensor, codes: Codes, names: Iterable[str]
) -> dict[str, AggregatePosterior]:
    """Aggregates the posteriors of each coordinate of drawn sites separately."""
    rows = torch.arange(len(x), device=pair.device)
    values = {name: codes.values[name].reshape(len(x), -1) for name in names}
    centres = {name: value.double().mean(0) for name, value in values.items()}
    results = {
        name: AggregatePosterior(rows, len(x), value.shape[1:]) for name, value in values.items()
    }
    for start, posterior in posteriors(pair, x):
        mine = slice(start, start + posterior.size)
        for name, result in results.items():
            density = _Coordinates(posterior, name, values[name], centres[name])
            result.own[mine] = density.own(values[name][mine])
            owner = density.datum + start
            for part in blocks(len(x), SMALLER * density.width):
                table = density(values[name][part])  # (dims, part, components)
                row, component = (rows[part, None] == owner).nonzero(as_tuple=True)
                table[:, row, component] = -torch.inf
                result.absorb(part, _logsumexp(table).t().double())
    return results


class _Coordinates:
    """Log-densities of coordinates under posteriors of a few data, by configuration.

    Attributes:
        datum: Index of each component's datum in the posterior, shape ``(components,)``.
        width: Count of numbers per row of values.
    """

    def __init__(self, posterior: Posterior, name: str, values: Tensor, centre: Tensor) -> None:
        fn = posterior.fns[name]
        self._each: Any = marginals(fn)  # known, see `dimensions`
        self._event, self._batch = tuple(fn.event_shape), posterior.size
        self._log_weights = posterior.log_weights
        self._sizes = posterior.layout.sizes
        if posterior.configurations(name) == 1:  # no enumerated site matters here
            self._log_weights = self._log_weights.logsumexp(0, keepdim=True)
            self._sizes = ()
        self._kept = self._log_weights > math.log(PRUNED)
        self.datum = self._kept.nonzero()[:, 1]
        self.width = self._kept.numel() * math.prod(self._event)
        self._normal: tuple[Tensor, ...] | None = None
        if isinstance(self._each, Normal):
            both = (self._each.loc, self._each.scale)
            loc, scale = (self._flat(p)[0, self._kept].double() for p in both)
            constant = self._log_weights[self._kept, None] - scale.log()
            constant -= 0.5 * math.log(2 * math.pi)
            # An error in a far code's density counts for nothing.
            self._centre, self._unit = centre, scale.amin(0)
            span = ((values.double() - centre) / self._unit).abs().max()
            self._type = torch.float32 if span < NEAR else torch.float64
            parameters = ((loc - centre) / self._unit, 0.5**0.5 * self._unit / scale, constant)
            self._normal = tuple(
                p.t().to(self._type).unsqueeze(1).contiguous() for p in parameters
            )

    def __call__(self, values: Tensor) -> Tensor:
        """Scores rows of values, ``(n, dims)``, under every component: ``(dims, n, components)``.

        The weights of the enumerated configurations are included.
        """
        if self._normal is not None:
            loc, shrink, constant = self._normal  # (dims, 1, components)
            places = ((values.double() - self._centre) / self._unit).t().to(self._type)
            squares = (places.unsqueeze(2) - loc).mul_(shrink).square_()
            return torch.sub(constant, squares, out=squares)
        pairs = values.reshape(len(values), *[1] * (len(self._sizes) + 1), *self._event)
        density = self._flat(log_density_anywhere(self._each, pairs))
        density = density[:, self._kept] + self._log_weights[self._kept, None]
        return density.permute(2, 0, 1).contiguous()

    def own(self, values: Tensor) -> Tensor:
        """Scores each datum's own values, float64, ``(batch, dims)``, over all configurations."""
        values = values.reshape(self._batch, *self._event)
        density = self._flat(log_density_anywhere(self._each, values))[0]
        return (density.double() + self._log_weights[:, :, None]).logsumexp(0)

    def _flat(self, value: Tensor) -> Tensor:
        """Shape ``(n, configurations, batch, dims)``, with n = 1 if the value has no rows."""
        shape = (*self._sizes, self._batch, *self._event)
        rows = len(value) if value.dim() > len(shape) else 1
        return value.expand(rows, *shape).reshape(rows, -1, self._batch, math.prod(self._event))


def _logsumexp(table: Tensor) -> Tensor:
    """Log-sum-exp over the last dimension in place: much faster than torch's, which copies."""
    limits = torch.finfo(table.dtype)  # never infinity less infinity
    top = table.amax(-1, keepdim=True).clamp(limits.min, limits.max)
    return table.sub_(top).exp_().sum(-1).log_().add_(top[..., 0])
