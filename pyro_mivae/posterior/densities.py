"""Draws of codes, their costs, and their densities under the posteriors of data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.contrib.zuko import ZukoToPyro
from pyro.infer import config_enumerate
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor
from torch.distributions import Normal, TransformedDistribution, kl_divergence

from pyro_mivae.compat import tree_map
from pyro_mivae.posterior.layout import (
    ProbedPair,
    SiteLayout,
    factors,
    leading,
    run_pair,
    support_of,
)
from pyro_mivae.priors import base_of
from pyro_mivae.progress import telling
from pyro_mivae.sites import has_mean, mean_of
from pyro_mivae.traces import Program, TracePair, is_deterministic, trace_program

FARTHEST = 3e5  # deviations from the centre up to which expanded squares are exact to 1e-4

WIDTH = 8  # numbers for each coordinate of a code while a flow scores it
DECIMALS = 5  # to which values of deterministic sites are compared

Tree = TypeVar("Tree")
Values = Mapping[str, Tensor]


class Codes(NamedTuple):
    """One code of each datum."""

    values: dict[str, Tensor]  # by site, (n, *event)
    configuration: Tensor  # index of the joint value of the enumerated sites, (n,)
    group: Tensor | None = None  # equal for data whose deterministic sites agree, (n,)


class Draws(NamedTuple):
    """Means over one or more draws of each datum's code, enumerated sites summed out."""

    distortion: Tensor  # -log p(x | code), (n,); NaN where data are a function of the code
    divergences: dict[str, Tensor]  # of each site, (n,); NaN for deterministic sites
    parts: dict[str, Tensor]  # of every dimension of drawn sites, (n, dims); NaN where tied
    codes: Codes  # the first draw, of the enumerated sites too
    log_prior: Tensor  # log-density of that code in the model, (n,); deterministic sites left out
    log_weights: Tensor  # of every configuration in the first draw, (n, configurations)
    # Posterior means of sites that are not enumerated, (n, dims), given what was drawn before, in
    # the first and the second draw; those of 100 more draws where they have no closed form.
    means: list[dict[str, Tensor]]

    @property
    def rate(self) -> Tensor:
        """Sum of the sites' divergences, shape ``(n,)``."""
        return torch.stack(list(self.divergences.values())).sum(0)


def rows_of(tree: Tree, rows: Any) -> Tree:
    """Takes some rows of every tensor in a tuple."""
    return tree_map(lambda leaf: leaf[rows] if isinstance(leaf, Tensor) else leaf, tree)


def join(parts: list[Tree]) -> Tree:
    """Concatenates the tensors of tuples by rows; other values come from the first tuple."""
    return tree_map(lambda *p: torch.cat(p) if isinstance(p[0], Tensor) else p[0], *parts)


def draw_codes(pair: ProbedPair, x: Tensor, num_samples: int) -> Draws:
    """Draws every datum's code and scores model and guide."""
    batches = []
    for chunk in telling("draws", x.split(pair.data_at_once)):
        every = [_draw(pair, chunk.to(pair.device)) for _ in range(num_samples)]
        distortion, divergences, parts = tree_map(
            lambda *costs: torch.stack(costs).mean(0), *[draws[:3] for draws in every]
        )
        means = [draws.means[0] for draws in every[:2]]
        batches.append(Draws(distortion, divergences, parts, *every[0][3:6], means))
    draws = join(batches)
    fixed = [draws.codes.values[name].reshape(len(x), -1) for name in pair.layout.deterministic]
    group = distinct(torch.cat(fixed, 1)) if fixed else None
    return draws._replace(codes=draws.codes._replace(group=group))


def distinct(values: Tensor) -> Tensor:
    """Numbers the distinct values, compared to five decimals."""
    rounded = values.double().reshape(len(values), -1).round(decimals=DECIMALS)
    index: Tensor = torch.unique(rounded, dim=0, return_inverse=True)[1]
    return index


def _draw(probed: ProbedPair, x: Tensor) -> Draws:
    pair, layout = run_pair(probed.model, probed.guide, x), probed.layout
    batch = len(x)
    log_weights = torch.zeros(
        (layout.num_configurations, batch), dtype=torch.float64, device=x.device
    )
    for name in layout.enumerated:
        log_weights = log_weights + layout.flatten(pair.log_density(name).double(), batch)
    weights = log_weights.exp()

    def mean(cost: Tensor, event: tuple[int, ...] = ()) -> Tensor:
        every = layout.flatten(cost.double(), batch, event)
        weight = weights.reshape(*weights.shape, *[1] * len(event))
        return torch.where(weight == 0, 0.0, weight * every).sum(0)  # 0 * inf counts as 0

    distortion = torch.zeros_like(weights[0])
    for name in pair.observed:
        if is_deterministic(pair.model.nodes[name]):
            distortion = torch.full_like(distortion, torch.nan)
        else:
            distortion = distortion - mean(pair.log_likelihood(name))
    configuration = torch.distributions.Categorical(logits=log_weights.t()).sample()
    place = torch.arange(batch, device=x.device)
    divergences, parts, values, means = {}, {}, {}, {}
    log_prior = torch.zeros_like(distortion)
    for name in layout.latent:
        q, p = pair.guide.nodes[name], pair.model.nodes[name]
        event = tuple(q["fn"].event_shape)
        if name in layout.deterministic:
            divergences[name] = torch.full_like(distortion, torch.nan)
        else:
            prior = p["fn"].log_prob(p["value"])
            cost = pair.divergence(name)
            divergences[name] = mean(pair.log_density(name) - prior if cost is None else cost)
            log_prior = log_prior + layout.flatten(prior.double(), batch)[configuration, place]
        if name in layout.drawn:
            parts[name] = mean(_parts(pair, name), event).reshape(batch, -1)
        values[name] = layout.flatten(q["value"], batch, event)[configuration, place]
        if name not in layout.enumerated:
            means[name] = mean(mean_of(q["fn"]), event).reshape(batch, -1)
    codes = Codes(values, configuration)
    return Draws(distortion, divergences, parts, codes, log_prior, log_weights.t(), [means])


def _parts(pair: TracePair, name: str) -> Tensor:
    """Divergence of each dimension of a site, the event shape last; NaN if they are dependent."""
    q, p = pair.guide.nodes[name], pair.model.nodes[name]
    own, prior = factors(q["fn"]), factors(p["fn"])
    if own is None or prior is None or q["fn"].event_shape != p["fn"].event_shape:
        return torch.full(q["fn"].event_shape, torch.nan, device=q["value"].device)
    if pair.divergence(name) is not None:
        return kl_divergence(own, prior)
    difference: Tensor = own.log_prob(q["value"]) - prior.log_prob(p["value"])
    return difference


class Posterior:
    """Posteriors of a few data, which score any code."""

    def __init__(self, guide: Program, x: Tensor, layout: SiteLayout) -> None:
        with pyro.validation_enabled(False):  # a code may be outside another datum's support
            trace = enumerated_trace(guide, x)
        self.size = len(x)
        self.layout = layout
        # Log-probability of each configuration of the enumerated sites, (configurations, batch).
        self.log_weights = torch.zeros(
            (layout.num_configurations, len(x)), dtype=torch.float64, device=x.device
        )
        for name in layout.enumerated:
            density = log_density(trace, [name], x)
            self.log_weights = self.log_weights + layout.flatten(density, len(x))
        self.fns = {name: trace.nodes[name]["fn"] for name in layout.drawn}
        self._normals = {name: self._normal(fn) for name, fn in self.fns.items()}

    def configurations(self, name: str) -> int:
        """Number of distributions of a site per datum: 1 if it depends on no enumerated site."""
        return 1 if leading(self.fns[name]) == 1 else self.layout.num_configurations

    def numbers(self, name: str, *, in_one: bool = False) -> int:
        """Count of numbers held to score a code under a datum, in all configurations or one."""
        if self._normals[name] is None:
            return self.configurations(name) * WIDTH * self.fns[name].event_shape.numel()
        return 1 if in_one else self.configurations(name)

    def log_density(self, name: str, values: Tensor, configuration: int | None = None) -> Tensor:
        """Scores values of a drawn site, ``(configurations, n, batch)``.

        Given one configuration of the enumerated sites, only for that one: ``(n, batch)``.
        """
        normals, fn = self._normals[name], self.fns[name]
        count = self.configurations(name)
        which = ... if configuration is None else min(configuration, count - 1)
        if normals is not None and normals.are_near(values):
            return normals.features(values) @ normals.weights[which]
        sizes = self.layout.sizes if count > 1 else ()
        pairs = values.reshape(len(values), *[1] * (len(sizes) + 1), *fn.event_shape)
        # Written out, as conditional flows do not broadcast their context.
        pairs = pairs.expand(len(values), *sizes, self.size, *fn.event_shape)
        density = log_density_anywhere(fn, pairs).double()
        expanded = density.expand((len(values), *sizes, self.size))
        return expanded.reshape(len(values), count, self.size).transpose(0, 1)[which]

    def mixture(self, names: Iterable[str], values: Values) -> Tensor:
        """Scores values of drawn sites with the enumerated sites summed out."""
        total = torch.zeros((), dtype=torch.float64)
        for name in names:
            total = total + self.log_density(name, values[name])
        if len(total) == 1:
            return total[0]
        return (total + self.log_weights[:, None]).logsumexp(0)

    def _normal(self, fn: Any) -> _Normals | None:
        base = factors(fn)
        if not isinstance(base, Normal):
            return None
        dims = math.prod(fn.event_shape)
        flat = (p.reshape(*fn.batch_shape, dims) for p in (base.loc, base.scale))
        if leading(fn) == 1:
            return _Normals(*(p.reshape(1, self.size, dims) for p in flat))
        return _Normals(*(self.layout.flatten(p, self.size, (dims,)) for p in flat))


class _Normals:
    """Log-densities of independent normals as products of features of a value and weights.

    Values are centred first, because squares of large numbers lose the digits of differences. The
    weights are the coefficients of the square, the value and 1, float64, shape ``(configurations,
    2 dims + 1, batch)``.
    """

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        loc, scale = loc.double(), scale.double()
        self._unit, self._centre = scale.flatten(0, 1).amin(0), loc.flatten(0, 1).mean(0)
        loc, scale = (loc - self._centre) / self._unit, scale / self._unit
        constant = -0.5 * (loc / scale).square() - (scale * self._unit).log()
        constant = (constant - 0.5 * math.log(2 * math.pi)).sum(-1, keepdim=True)
        coefficients = [-0.5 / scale.square(), loc / scale.square(), constant]
        self.weights = torch.cat(coefficients, -1).transpose(1, 2)

    def are_near(self, values: Tensor) -> bool:
        """True if the products keep enough digits."""
        return bool(self._standardised(values).abs().max() < FARTHEST)

    def features(self, values: Tensor) -> Tensor:
        """Returns the square, the value and 1, shape ``(n, 2 dims + 1)``."""
        flat = self._standardised(values)
        return torch.cat([flat.square(), flat, torch.ones_like(flat[:, :1])], -1)

    def _standardised(self, values: Tensor) -> Tensor:
        return (values.double().reshape(len(values), -1) - self._centre) / self._unit


def is_flow(fn: Any) -> bool:
    """True for transformed noise whose coordinates depend on each other."""
    noise = base_of(fn)
    return factors(fn) is None and isinstance(noise, TransformedDistribution | ZukoToPyro)


def enumerated_trace(program: Program, x: Tensor) -> Any:
    """Traces a program with its enumerable sites laid out left of the data plate."""
    return trace_program(
        EnumMessenger(first_available_dim=-2)(config_enumerate(program)), (x,), {}
    )


def conditioned_trace(program: Program, x: Tensor, values: Values) -> Any:
    """Traces a program with some of its sites fixed."""
    return trace_program(poutine.condition(program, data=dict(values)), (x,), {})


def log_density(trace: Any, names: Iterable[str], x: Tensor) -> Tensor:
    """Adds up the log-densities of some sites of a trace of data x, float64, ``(..., n)``."""
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for name in names:
        site = trace.nodes[name]
        total = total + site["fn"].log_prob(site["value"]).double()
    return total


def log_density_anywhere(fn: Any, values: Tensor) -> Tensor:
    """Scores values that may be outside the support, where the log-density is minus infinity."""
    values = values.to(fn.mean.dtype) if has_mean(fn) else values
    density: Tensor = fn.log_prob(values)
    support = support_of(fn)
    return density if support is None else density.masked_fill(~support.check(values), -torch.inf)


def configurations(guide: Program, x: Tensor, layout: SiteLayout) -> dict[str, Tensor]:
    """Returns the value of each enumerable site in every configuration."""
    nodes = enumerated_trace(guide, x[:1]).nodes
    return {
        name: layout.flatten(nodes[name]["value"], 1, tuple(nodes[name]["fn"].event_shape))[:, 0]
        for name in layout.enumerated
    }


def agrees(fast: Callable[[], Iterable[Tensor]], plain: Callable[[], Iterable[Tensor]]) -> bool:
    """True if fast scores equal plain ones, without an error."""
    try:
        pairs = zip(plain(), fast(), strict=True)
        return all(torch.allclose(a, b, rtol=1e-4, atol=1e-4) for a, b in pairs)
    except (RuntimeError, ValueError, IndexError):
        return False


def repeat(value: Tensor, count: int) -> Tensor:
    """Repeats the rows of a tensor, the rows running fastest."""
    return value.repeat(count, *[1] * (value.dim() - 1))
