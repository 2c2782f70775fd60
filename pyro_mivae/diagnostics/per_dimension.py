"""Information in single dimensions of the drawn sites, and the dimensions' total correlation."""

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

from pyro_mivae.diagnostics.aggregate import AggregatePosterior, aggregate, blocks, posteriors
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
from pyro_mivae.diagnostics.fitted import LEAST_ITEMS, fitted_log_marginal
from pyro_mivae.figures import key
from pyro_mivae.posterior.densities import Posterior, log_density_anywhere
from pyro_mivae.posterior.draws import Codes, Draws, rows_of
from pyro_mivae.posterior.layout import ProbedPair, factors

MOST_NUMBERS = 2**31  # densities of single coordinates in a report
SMALLER = 2  # times less at once than elsewhere: every number is gone over several times
PRUNED = 1e-9  # components of a one-dimensional mixture below this weight are left out
NEAR = 1e4  # deviations that codes span up to which single precision tells neighbours apart


def dimensions(context: Context, draws: Draws) -> Figures:
    """Measures every dimension of the drawn sites, and their total correlation, on a subset."""
    layout, device = context.layout, context.device
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
        figures |= _site(name, draws, each.get(name), name in layout.alone)
    tied = [UNDEFINED] * 3
    is_known = layout.is_known(*layout.drawn) and not layout.deterministic and len(items) > 1
    if is_known and count == 1:
        tied = [(0.0, 0.0)] * 3
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
        tied = [lower if wide else mean_of(whole.everyone - everyone), lower, upper]
    name = "total_correlation"
    return figures | {name: tied[0]} | ends(name, *tied[1:])


def marginals(fn: Distribution) -> Distribution | None:
    """Returns the distribution of each coordinate, be they independent or not, as `factors`."""
    if isinstance(fn, MultivariateNormal | LowRankMultivariateNormal):
        return Normal(fn.mean, fn.variance.sqrt(), validate_args=False)
    return factors(fn)


def aggregate_dimensions(
    pair: ProbedPair, x: Tensor, codes: Codes, names: Iterable[str]
) -> dict[str, AggregatePosterior]:
    """Aggregates the posteriors of every coordinate of drawn sites, on its own."""
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


def _site(
    name: str, draws: Draws, rows: AggregatePosterior | None, alone: bool
) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    costs = means_of(draws.parts[name])
    unknown = [UNDEFINED] * len(costs)
    lowest = unknown if rows is None else means_of(rows.lower)
    highest = unknown if rows is None else means_of(rows.upper)
    for d, (cost, low, high) in enumerate(zip(costs, lowest, highest)):
        lower, upper, _ = in_order(low, high, [cost] if alone and rows is not None else [])
        figures |= {key("kl", name, index=d): cost, **ends("mi", lower, upper, name, d)}
    return figures


class _Coordinates:
    """Log-densities of coordinates under a few data's posteriors, configurations apart.

    Attributes:
        datum: Datum of each component, counted within the posterior, shape ``(components,)``.
        width: How many numbers each row of values makes.
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

        The weights of the enumerated sites' configurations are counted in.
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
    """Sums over the last dimension in place: much faster than torch's, which makes copies."""
    limits = torch.finfo(table.dtype)  # never infinity less infinity
    top = table.amax(-1, keepdim=True).clamp(limits.min, limits.max)
    total: Tensor = table.sub_(top).exp_().sum(-1)
    return total.log_().add_(top[..., 0])
