"""Draws of the code: what each datum costs under a model/guide pair, and its code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from pyro_mivae.diagnostics.layout import Layout, observed_sites, run_pair
from pyro_mivae.diagnostics.progress import tell, telling
from pyro_mivae.traces import Program, TracePair, has_mean, is_deterministic, mean_by_draws

DECIMALS = 5  # to which values of deterministic sites are compared


@dataclass(frozen=True)
class Codes:
    """One code of each datum.

    Attributes:
        values: By site, shape ``(n, *event)``.
        configuration: Index of the joint value of the enumerated sites, shape ``(n,)``.
        group: Equal for data whose deterministic sites agree, shape ``(n,)``; None without such.
    """

    values: dict[str, Tensor]
    configuration: Tensor
    group: Tensor | None

    def take(self, rows: Tensor) -> Codes:
        """Returns the codes of some data."""
        return Codes(
            {name: value[rows] for name, value in self.values.items()},
            self.configuration[rows],
            None if self.group is None else self.group[rows],
        )


@dataclass
class Draws:
    """What one or more draws of each datum's code gave, enumerated sites summed out.

    Attributes:
        distortion: Mean of :math:`-log p(x | code)` over the draws, shape ``(n,)``; NaN where the
            model makes the data a function of the code.
        divergences: KL divergence of each site, mean over the draws, shape ``(n,)``; NaN for
            deterministic sites.
        parts: Of each drawn site, the divergence of its every dimension, which add up to that of
            the site, shape ``(n, dims)``; NaN where guide or model tie them together.
        codes: The first draw, of the enumerated sites too.
        log_prior: Log-density of that code in the model, shape ``(n,)``; without deterministic
            sites.
        log_weights: Log-probability of every configuration in the first draw, shape
            ``(n, configurations)``.
        means: Posterior mean of every site that is not enumerated, given what was drawn before
            it, in the first and in the second draw if there is one; shape ``(n, dims)``. The
            mean of 100 more draws where the distribution has none in closed form.
    """

    distortion: Tensor
    divergences: dict[str, Tensor]
    parts: dict[str, Tensor]
    codes: Codes
    log_prior: Tensor
    log_weights: Tensor
    means: list[dict[str, Tensor]]

    @property
    def rate(self) -> Tensor:
        """Sum of the sites' divergences, shape ``(n,)``."""
        return torch.stack(list(self.divergences.values())).sum(0)


def draw_codes(
    model: Program,
    guide: Program,
    x: Tensor,
    layout: Layout,
    *,
    num_samples: int,
    batch_size: int,
    device: torch.device,
) -> Draws:
    """Draws every datum's code and scores model and guide."""
    batches = []
    for chunk in telling("draws", x.split(batch_size)):
        draws = [_draw(model, guide, chunk.to(device), layout) for _ in range(num_samples)]
        first = draws[0]
        first.distortion = torch.stack([d.distortion for d in draws]).mean(0)
        first.divergences = {
            name: torch.stack([d.divergences[name] for d in draws]).mean(0)
            for name in layout.latent
        }
        first.parts = {
            name: torch.stack([d.parts[name] for d in draws]).mean(0) for name in layout.drawn
        }
        first.means = [d.means[0] for d in draws[:2]]
        batches.append(first)
    values = _cat(d.codes.values for d in batches)
    configuration = torch.cat([d.codes.configuration for d in batches])
    fixed = [values[name].reshape(len(x), -1) for name in layout.deterministic]
    group = distinct(torch.cat(fixed, 1)) if fixed else None
    return Draws(
        distortion=torch.cat([d.distortion for d in batches]),
        divergences=_cat(d.divergences for d in batches),
        parts=_cat(d.parts for d in batches),
        codes=Codes(values, configuration, group),
        log_prior=torch.cat([d.log_prior for d in batches]),
        log_weights=torch.cat([d.log_weights for d in batches]),
        means=[_cat(d.means[i] for d in batches) for i in range(len(batches[0].means))],
    )


def factors(fn: Distribution) -> Distribution | None:
    """Returns the distributions of coordinates that are independent of each other."""
    base = fn
    while isinstance(base, Independent):
        base = base.base_dist
    return None if base.event_shape else base


def distinct(values: Tensor) -> Tensor:
    """Numbers the distinct values, compared to five decimals."""
    rounded = values.double().reshape(len(values), -1).round(decimals=DECIMALS)
    index: Tensor = torch.unique(rounded, dim=0, return_inverse=True)[1]
    return index


def importance_weighted(
    model: Program, guide: Program, x: Tensor, *, num_samples: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    r"""Lower-bounds each datum's log-likelihood, in memory that does not grow with the samples.

    .. math:: \log \frac1k \sum_{s=1}^k \frac{p(x, code_s)}{q(code_s \mid x)},
        \quad code_s \sim q(\cdot \mid x)

    Every site is drawn, the enumerable ones too. A lower bound in expectation for every k, at
    k = 1 the ELBO, rising to :math:`\log p(x)`.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders, eq. 8.
        https://arxiv.org/abs/1509.00519
    """
    bounds, elbos = [], []
    done, of = 0, len(x) * num_samples
    for chunk in x.split(batch_size):
        total = torch.full((len(chunk),), -torch.inf, dtype=torch.float64, device=x.device)
        elbo = torch.zeros_like(total)
        for count in _shares(num_samples, max(1, batch_size // len(chunk))):
            repeated = chunk.repeat(count, *[1] * (chunk.dim() - 1))
            pair = TracePair.run(model, guide, (repeated,), {}, max_plate_nesting=None)
            log_weight = _log_weight(pair, len(repeated)).reshape(count, len(chunk))
            total = torch.logaddexp(total, log_weight.logsumexp(0))
            elbo += log_weight.sum(0)
            done += len(repeated)
            tell("log p(x)", done, of)
        bounds.append(total - math.log(num_samples))
        elbos.append(elbo / num_samples)
    return torch.cat(bounds), torch.cat(elbos)


def _draw(model: Program, guide: Program, x: Tensor, layout: Layout) -> Draws:
    pair = run_pair(model, guide, x)
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
    for name in observed_sites(pair):
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
            center = q["fn"].mean if has_mean(q["fn"]) else mean_by_draws(q["fn"])
            means[name] = mean(center, event).reshape(batch, -1)
    codes = Codes(values, configuration, None)
    return Draws(distortion, divergences, parts, codes, log_prior, log_weights.t(), [means])


def _parts(pair: TracePair, name: str) -> Tensor:
    """Divergence of a site's every dimension, NaN if they are tied; ends in the event shape."""
    q, p = pair.guide.nodes[name], pair.model.nodes[name]
    own, prior = factors(q["fn"]), factors(p["fn"])
    if own is None or prior is None or q["fn"].event_shape != p["fn"].event_shape:
        return torch.full(q["fn"].event_shape, torch.nan, device=q["value"].device)
    if pair.divergence(name) is not None:
        return kl_divergence(own, prior)
    difference: Tensor = own.log_prob(q["value"]) - prior.log_prob(p["value"])
    return difference


def _log_weight(pair: TracePair, batch: int) -> Tensor:
    total = sum(pair.log_likelihood(name).double() for name in observed_sites(pair))
    for name in pair.latent:
        p = pair.model.nodes[name]
        total = total + p["fn"].log_prob(p["value"]).double() - pair.log_density(name).double()
    return torch.as_tensor(total).expand(batch)


def _shares(total: int, at_most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, at_most)
        total -= at_most


def _cat(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    every = list(parts)
    return {name: torch.cat([part[name] for part in every]) for name in every[0]}
