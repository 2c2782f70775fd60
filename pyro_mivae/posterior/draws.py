"""Draws of every datum's code, with what each costs under a model/guide pair."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_mivae.compat import tree_map
from pyro_mivae.posterior.layout import ProbedPair, factors, observed_sites, run_pair
from pyro_mivae.posterior.progress import telling
from pyro_mivae.traces import TracePair, is_deterministic, mean_of

DECIMALS = 5  # to which values of deterministic sites are compared

Tree = TypeVar("Tree")


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
    """Joins every tensor of some tuples by its rows; anything else is that of the first."""
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
            means[name] = mean(mean_of(q["fn"]), event).reshape(batch, -1)
    codes = Codes(values, configuration)
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
