r"""The evidence :math:`p(x)` of data that a model drew, bounded on both sides.

The code that a datum was drawn with is an exact sample of its posterior. In the place of one of
the draws of importance sampling, it turns the lower bound into an upper one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from pyro import poutine
from torch import Tensor

from pyro_mivae.diagnostics.generated import Generated, Values
from pyro_mivae.diagnostics.layout import Layout
from pyro_mivae.diagnostics.posterior import Posterior
from pyro_mivae.diagnostics.progress import telling
from pyro_mivae.diagnostics.proposals import (
    Proposal,
    Stratum,
    Terms,
    configurations,
    log_density,
    repeat,
)
from pyro_mivae.traces import Program, trace_program

Bounds = tuple[Tensor, Tensor]
Strata = list[tuple[bool, int]]  # whether they come from the prior, and how many draws

PRIOR_SHARE = 4  # one in so many draws comes from the prior


class Evidence:
    r"""Bounds :math:`\log p(x)` of generated data, configuration by configuration.

    Let :math:`\hat p = \frac1k \sum_i p(x, r_i) / \bar q(r_i)`, where the draws
    :math:`r_i \sim q_i` are independent and :math:`\bar q = \frac1k \sum_i q_i`. Then
    :math:`E\,\hat p = p(x)`, and :math:`E \log \hat p \le \log p(x)` by Jensen. Now put an exact
    posterior sample :math:`r^*` in the place of one draw: of the i-th with probability
    :math:`q_i(r^*) / k \bar q(r^*)`. The joint density of the draws becomes

    .. math:: P(r_{1:k}) = \sum_i p(r_i \mid x) \frac{q_i(r_i)}{k \bar q(r_i)}
        \prod_{j \ne i} q_j(r_j) = \frac{\hat p}{p(x)} \prod_j q_j(r_j),

    so that :math:`E_P \log \hat p = \log p(x) + KL(P \| \prod_j q_j) \ge \log p(x)`. Both bounds
    close as k grows. Three draws in four come from the guide and one from the prior, so that
    :math:`p(x, r) / \bar q(r) \le 4\, p(x \mid r)`: a guide that is wrong, or too sure, about data
    that it never saw costs accuracy and no more.

    Enumerable sites c are summed, :math:`\hat p = \sum_c \hat p(c)`, with draws of their own for
    each of their joint values; :math:`r^*` takes its place among those of :math:`c^*`, and the
    same holds, whatever the datum itself makes of k for each value.

    Attributes:
        configurations: Value of each enumerable site, shape ``(configurations, *event)``.
        data: The data, their enumerable sites as the guide writes them.
        most, least: Draws for the configuration that the guide finds likeliest, and for others.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders, eq. 8.
        https://arxiv.org/abs/1509.00519
        Grosse, Ghahramani & Adams (2015), Sandwiching the marginal likelihood using bidirectional
        Monte Carlo. https://arxiv.org/abs/1511.02543
        Brekelmans et al. (2022), Improving Mutual Information Estimation with Annealed and
        Energy-Based Bounds (the multi-sample upper bound, for one q).
        https://arxiv.org/abs/2303.06992
        Veach & Guibas (1995), Optimally Combining Sampling Techniques for Monte Carlo Rendering
        (several q weighed by their mean: the balance heuristic).
    """

    def __init__(
        self,
        model: Program,
        guide: Program,
        data: Generated,
        layout: Layout,
        *,
        num_samples: int,
        batch_size: int,
    ) -> None:
        self._model, self._guide, self.data, self._layout = model, guide, data, layout
        self._batch_size = batch_size
        count = layout.num_configurations
        self.most = self.least = num_samples
        if count > 1:
            self.least = max(PRIOR_SHARE, num_samples // (2 * count))
            self.most = max(self.least, num_samples - (count - 1) * self.least)
        self.configurations = configurations(guide, data.x[:1], layout)
        self._own = torch.ones(
            (layout.num_configurations, len(data.x)), dtype=torch.bool, device=data.x.device
        )
        for name in layout.enumerated:
            self._own &= self.agrees(name)
        place = self._own.to(torch.uint8).argmax(0)
        # As the guide writes them: the model's own may be of another type.
        summed = {name: value[place] for name, value in self.configurations.items()}
        self.data = replace(data, code={**data.code, **summed})

    def agrees(self, name: str) -> Tensor:
        """Tells which configurations give an enumerable site its value in the data's codes."""
        return same(self.configurations[name], self.data.code[name])

    def bound(self, fixed: str | None = None) -> Bounds:
        """Bounds the evidence of the data, together with the value of a site if one is fixed."""
        return self._tables(Terms(self._layout, fixed, self.data.observed))

    def bound_prior(self, name: str) -> Bounds:
        """Bounds the prior's density of a site's value, the other sites integrated out."""
        fixed = None if name in self._layout.enumerated else name
        return self._tables(Terms(self._layout, fixed, None), exact=self.is_known(name))

    def is_known(self, name: str) -> bool:
        """Tells whether a site's prior density is the same whatever is drawn for the others."""
        if not set(self._layout.drawn) - {name}:
            return True
        some = self.data.take(slice(4))
        kept = {site: some.code[site] for site in {*self._layout.enumerated, name}}
        conditioned = poutine.condition(self._model, data=kept)
        traces = [trace_program(conditioned, (some.x,), {}) for _ in range(2)]
        for site in kept:
            first, second = (log_density(trace, [site], some.x) for trace in traces)
            if not torch.allclose(first, second):
                return False
        return True

    def _tables(self, terms: Terms, exact: bool = False) -> Bounds:
        size = max(1, self._batch_size // self._layout.num_configurations)
        parts = []
        starts = range(0, len(self.data.x), size)
        for start in telling("log p(x) of the model's own data", starts):
            rows = slice(start, start + size)
            parts.append(self._table(terms, self.data.take(rows), self._own[:, rows], exact))
        lower, upper = (torch.cat(tables, 1) for tables in zip(*parts, strict=True))
        return lower, upper

    def _table(self, terms: Terms, data: Generated, own: Tensor, exact: bool) -> Bounds:
        lower = torch.empty(own.shape, dtype=torch.float64, device=own.device)
        upper = torch.empty_like(lower)
        likely = torch.zeros_like(own)
        if terms.observed and len(own) > 1 and not exact:
            found = Posterior(self._guide, data.x, self._layout).log_weights.argmax(0)
            likely[found, torch.arange(len(found), device=found.device)] = True
        for cells, num_samples in ((likely, self.most), (~likely, self.least)):
            place, item = cells.nonzero(as_tuple=True)
            if len(place):
                some = data.take(item)
                kept = {name: value[place] for name, value in self.configurations.items()}
                bounds = self._rows(terms, some, kept, own[cells], 0 if exact else num_samples)
                lower[cells], upper[cells] = bounds
        return lower, upper

    def _rows(
        self, terms: Terms, data: Generated, kept: Values, own: Tensor, num_samples: int
    ) -> Bounds:
        """Bounds the log-weights of one configuration for each datum, shape ``(n,)``."""
        if terms.fixed is not None:
            kept = {**kept, terms.fixed: data.code[terms.fixed]}
        if not num_samples or not terms.free:
            rest = {name: data.code[name] for name in terms.free}
            joint, prior, _ = terms.weigh(self._model, data.x, {**rest, **kept})
            return joint - prior, joint - prior
        strata = _strata(terms, num_samples)
        proposal = Proposal(self._guide, data.x, kept, terms.free, self._layout)
        sums = [Stratum(own) for _ in strata]
        for (from_prior, size), total in zip(strata, sums, strict=True):
            for some in _shares(size, max(1, self._batch_size // len(own))):
                values = {name: repeat(value, some) for name, value in kept.items()}
                if not from_prior:
                    values |= proposal.draw(some)
                joint, prior, drawn = terms.weigh(self._model, repeat(data.x, some), values)
                weights = joint - _mean_proposal(strata, proposal, drawn, prior)
                total.add(weights.reshape(some, len(own)))
        lower = torch.stack([total.everything for total in sums]).logsumexp(0)
        return lower, torch.where(own, self._with_own(terms, data, kept, strata, sums), lower)

    def _with_own(
        self,
        terms: Terms,
        data: Generated,
        kept: Values,
        strata: Strata,
        sums: list[Stratum],
    ) -> Tensor:
        """The sums with the data's own draws in the place of one other each."""
        rest = {name: data.code[name] for name in terms.free}
        joint, prior, _ = terms.weigh(self._model, data.x, {**rest, **kept})
        proposal = Proposal(self._guide, data.x, kept, terms.free, self._layout)
        total = _mean_proposal(strata, proposal, rest, prior)
        share_of_prior = torch.zeros_like(total)
        for from_prior, size in strata:
            if from_prior:
                share_of_prior = (prior + math.log(size) - total).exp()
        in_prior = torch.rand_like(share_of_prior) < share_of_prior
        parts = [joint - total]
        for (from_prior, _), stratum in zip(strata, sums, strict=True):
            loses_one = in_prior if from_prior else ~in_prior
            parts.append(torch.where(loses_one, stratum.rest, stratum.everything))
        return torch.stack(parts).logsumexp(0)


def _strata(terms: Terms, num_samples: int) -> Strata:
    """How many draws come from the guide (False), and how many from the prior (True)."""
    from_prior = num_samples // PRIOR_SHARE if terms.observed else num_samples
    sizes = ((False, num_samples - from_prior), (True, from_prior))
    return [(kind, size) for kind, size in sizes if size]


def _mean_proposal(strata: Strata, proposal: Proposal, drawn: Values, prior: Tensor) -> Tensor:
    """Log of k times the mean density of the proposals, at some draws."""
    densities = [
        math.log(size) + (prior if from_prior else proposal.density(drawn))
        for from_prior, size in strata
    ]
    return torch.stack(densities).logsumexp(0)


def same(values: Tensor, others: Tensor) -> Tensor:
    """Tells which values agree."""
    equal = values[:, None] == others[None].to(values.dtype)
    return equal.flatten(2).all(-1) if equal.dim() > 2 else equal


def _shares(total: int, at_most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, at_most)
        total -= at_most
