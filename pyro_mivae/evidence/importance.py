"""Prior predictive draws, and importance sampling of the evidence p(x)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_mivae.handlers import push_forward
from pyro_mivae.posterior.densities import (
    Posterior,
    conditioned_trace,
    configurations,
    join,
    log_density,
    repeat,
    rows_of,
)
from pyro_mivae.posterior.layout import ProbedPair, run_pair
from pyro_mivae.progress import tell, telling
from pyro_mivae.sites import base_of, data_sites
from pyro_mivae.traces import TracePair, is_deterministic, replay_model, trace_program

Bounds = tuple[Tensor, Tensor]
Values = dict[str, Tensor]

PRIOR_SHARE = 4  # one draw in this number comes from the prior


class PriorPredictive(NamedTuple):
    """Data drawn from a model, with the codes that generated them."""

    x: Tensor  # sampled from the likelihood, (n, ...)
    code: dict[str, Tensor]  # the value of every site, (n, *event)
    log_likelihood: Tensor  # log p(x | code), float64, (n,)
    observed: str  # the site of the data
    distribution: str  # name of what they were sampled from


def generate(pair: ProbedPair, x: Tensor, items: int) -> PriorPredictive:
    """Draws codes from the prior, and samples (not means) like x from the likelihood."""
    program = push_forward(pair.model, lambda fn: fn.sample())
    parts = []
    for places in (torch.arange(items, device=x.device) % len(x)).split(pair.batch_size):
        trace = trace_program(program, (x[places],), {})
        (name,) = data_sites(trace)
        fn, value = trace.nodes[name]["fn"], trace.nodes[name]["value"].to(x.dtype)
        code = {site: trace.nodes[site]["value"] for site in pair.layout.latent}
        likelihood = fn.log_prob(value).double()
        kinds = [kind.__name__ for kind in type(base_of(fn)).__mro__]
        kind = next(kind for kind in kinds if not kind.startswith("_"))
        parts.append(PriorPredictive(value, code, likelihood, name, kind))
    return join(parts)


def why_undefined(probed: ProbedPair, x: Tensor) -> str | None:
    """Returns why the model cannot draw data, or why their information has no bounds, or None."""
    layout = probed.layout
    if layout.deterministic:
        return f"the guide makes {', '.join(layout.deterministic)} a function of the data"
    if layout.unscored:
        return layout.why_unscored
    if layout.conditional:
        return f"the prior of {', '.join(sorted(layout.conditional))} depends on the data"
    pair = run_pair(probed.model, probed.guide, x)
    if len(pair.observed) > 1:
        return f"the model observes several sites, {', '.join(pair.observed)}"
    (name,) = pair.observed
    site = pair.model.nodes[name]
    if is_deterministic(site):
        return "the model makes the data, which have no density then, a function of the code"
    if site["value"].shape != x.shape or not torch.equal(site["value"], x):
        return f"the observed site {name} is not the model's argument itself"
    other = generate(replace(probed, batch_size=len(x)), x, len(x)).x
    again = replay_model(probed.model, pair.guide, (other,), {}, max_plate_nesting=1)
    for latent in (*pair.latent, name):
        before, after = pair.model.nodes[latent], again.nodes[latent]
        first, second = (node["fn"].log_prob(before["value"]) for node in (before, after))
        if not torch.allclose(first, second, rtol=1e-4, atol=1e-4, equal_nan=True):
            return f"the model makes the site {latent} depend on the data that it is given"
    return None


def refusal(pair: ProbedPair, x: Tensor) -> str | None:
    """Returns the error of a guide that refuses the model's own data, or None."""
    try:
        for part in x.split(pair.batch_size):
            pair.guide(part)
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        return f"the guide refuses data drawn from the model: {type(error).__name__}: {line}"
    return None


def importance_weighted(pair: ProbedPair, x: Tensor, num_samples: int) -> tuple[Tensor, Tensor]:
    r"""Lower-bounds each datum's log-likelihood, in memory that does not grow with the samples.

    .. math:: \log \frac1k \sum_{s=1}^k \frac{p(x, code_s)}{q(code_s \mid x)},
        \quad code_s \sim q(\cdot \mid x)

    Every site is drawn, also enumerable ones. It is low in expectation for every k, equals the
    ELBO for k = 1, and rises to :math:`\log p(x)`. The ELBO of the same draws is returned too.

    References:
        Burda, Grosse & Salakhutdinov (2016), Importance Weighted Autoencoders, eq. 8.
        https://arxiv.org/abs/1509.00519
    """
    bounds, elbos = [], []
    done, of = 0, len(x) * num_samples
    for chunk in x.split(pair.batch_size):
        total = torch.full((len(chunk),), -torch.inf, dtype=torch.float64, device=x.device)
        elbo = torch.zeros_like(total)
        for count in _shares(num_samples, max(1, pair.batch_size // len(chunk))):
            repeated = repeat(chunk, count)
            log_weight = _log_weight(pair, repeated).reshape(count, len(chunk))
            total = torch.logaddexp(total, log_weight.logsumexp(0))
            elbo += log_weight.sum(0)
            done += len(repeated)
            tell("log p(x)", done, of)
        bounds.append(total - math.log(num_samples))
        elbos.append(elbo / num_samples)
    return torch.cat(bounds), torch.cat(elbos)


class Evidence:
    r"""Bounds :math:`\log p(x)` of data that the model drew, configuration by configuration.

    With independent draws :math:`r_i \sim q_i` and :math:`\bar q = \frac1k \sum_i q_i`,
    :math:`\hat p = \frac1k \sum_i p(x, r_i) / \bar q(r_i)` has the mean :math:`p(x)`, so :math:`E
    \log \hat p \le \log p(x)`. The code that generated a datum is an exact sample :math:`r^*` of
    its posterior. Put in the place of the i-th draw with probability :math:`q_i(r^*) / k \bar
    q(r^*)`, it gives the draws the joint density

    .. math:: P(r_{1:k}) = \sum_i p(r_i \mid x) \frac{q_i(r_i)}{k \bar q(r_i)}
        \prod_{j \ne i} q_j(r_j) = \frac{\hat p}{p(x)} \prod_j q_j(r_j),

    so :math:`E_P \log \hat p = \log p(x) + KL(P \| \prod_j q_j) \ge \log p(x)`. Both bounds close
    as k grows. Three draws in four come from the guide and one from the prior, so :math:`p(x, r) /
    \bar q(r) \le 4\, p(x \mid r)`: a guide that is wrong or too narrow for new data costs only
    accuracy.

    Enumerable sites c are summed, :math:`\hat p = \sum_c \hat p(c)`, with draws of their own for
    each of their joint values; :math:`r^*` takes its place among those of :math:`c^*`.

    Attributes:
        configurations: Value of each enumerable site, shape ``(configurations, *event)``.
        data: The data and their codes, with enumerable sites in the form of the guide.
        most, least: Draws for the guide's most probable configuration, and for others.
        num_samples: Draws for each datum in all.

    References:
        Grosse, Ghahramani & Adams (2015), Sandwiching the marginal likelihood using bidirectional
        Monte Carlo. https://arxiv.org/abs/1511.02543
        Brekelmans et al. (2022), Improving Mutual Information Estimation with Annealed and
        Energy-Based Bounds (the multi-sample upper bound, for one q).
        https://arxiv.org/abs/2303.06992
        Veach & Guibas (1995), Optimally Combining Sampling Techniques for Monte Carlo Rendering
        (several q weighed by their mean: the balance heuristic).
    """

    def __init__(self, pair: ProbedPair, data: PriorPredictive, num_samples: int) -> None:
        self._pair, self._layout, self.data = pair, pair.layout, data
        layout = pair.layout
        count = layout.num_configurations
        self.most = self.least = num_samples
        if count > 1:
            self.least = max(PRIOR_SHARE, num_samples // (2 * count))
            self.most = max(self.least, num_samples - (count - 1) * self.least)
        self.num_samples = self.most + (count - 1) * self.least
        self.configurations = configurations(pair.guide, data.x, layout)
        self._own = torch.ones((count, len(data.x)), dtype=torch.bool, device=data.x.device)
        for name in layout.enumerated:
            self._own &= self.agrees(name)
        place = self._own.to(torch.uint8).argmax(0)
        # As the guide writes them: the model's own may be of another type.
        summed = {name: value[place] for name, value in self.configurations.items()}
        self.data = data._replace(code={**data.code, **summed})

    def agrees(self, name: str) -> Tensor:
        """Returns which configurations give an enumerable site its value in the data's codes."""
        return same(self.configurations[name], self.data.code[name])

    def bound(self, fixed: str | None = None) -> Bounds:
        """Bounds the evidence of the data, together with the value of a site if one is fixed."""
        return self._tables(fixed, self.data.observed)

    def bound_prior(self, name: str) -> Bounds:
        """Bounds the prior's density of a site's value, the other sites integrated out."""
        fixed = None if name in self._layout.enumerated else name
        return self._tables(fixed, None, exact=self.is_known(name))

    def is_known(self, name: str) -> bool:
        """True if a site's prior density does not depend on the other sites."""
        if not set(self._layout.drawn) - {name}:
            return True
        some = rows_of(self.data, slice(4))
        kept = {site: some.code[site] for site in {*self._layout.enumerated, name}}
        traces = [conditioned_trace(self._pair.model, some.x, kept) for _ in range(2)]
        first, second = ([log_density(t, [site], some.x) for site in kept] for t in traces)
        return all(map(torch.allclose, first, second))

    def _tables(self, fixed: str | None, observed: str | None, exact: bool = False) -> Bounds:
        """Bounds by configuration and datum, of p(x, code) or, without x, of p(code)."""
        lower = torch.empty(self._own.shape, dtype=torch.float64, device=self._own.device)
        upper = torch.empty_like(lower)
        items = torch.arange(len(self.data.x), device=lower.device).split(self._pair.data_at_once)
        for rows in telling("log p(x) of the model's own data", items):
            likely = torch.zeros_like(self._own[:, rows])
            if observed and len(likely) > 1 and not exact:
                posterior = Posterior(self._pair.guide, self.data.x[rows], self._layout)
                found = posterior.log_weights.argmax(0)
                likely[found, torch.arange(len(found), device=found.device)] = True
            for cells, num_samples in ((likely, self.most), (~likely, self.least)):
                place, item = cells.nonzero(as_tuple=True)
                if len(place):
                    data, own = rows_of(self.data, rows[item]), self._own[place, rows[item]]
                    kept = {name: value[place] for name, value in self.configurations.items()}
                    kept |= {name: data.code[name] for name in ([fixed] if fixed else [])}
                    sampler = _Sampler(self._pair, data, kept, observed)
                    bounds = sampler.bound(own, 0 if exact else num_samples)
                    lower[place, rows[item]], upper[place, rows[item]] = bounds
        return lower, upper


class _Sampler:
    """Importance sampling of the free sites, in one configuration for each datum."""

    def __init__(
        self, pair: ProbedPair, data: PriorPredictive, kept: Values, observed: str | None
    ) -> None:
        self._pair, self._data, self._kept, self._observed = pair, data, kept, observed
        # The sites that are integrated out by sampling.
        self.free = [name for name in pair.layout.drawn if name not in kept]
        self._fns: dict[str, Any] | None = None

    def bound(self, own: Tensor, num_samples: int) -> Bounds:
        """Bounds the log of the mean weight, ``(n,)``; from above only for data marked ``own``."""
        code = {**{name: self._data.code[name] for name in self.free}, **self._kept}
        if not num_samples or not self.free:
            joint, prior, _ = self._weigh(code)
            return joint - prior, joint - prior
        from_prior = num_samples // PRIOR_SHARE if self._observed else num_samples
        sizes = {False: num_samples - from_prior, True: from_prior}  # by whether from the prior
        sizes = {kind: size for kind, size in sizes.items() if size}

        def mean_density(drawn: Values, prior: Tensor) -> Tensor:
            """Log of k times the mean density of the proposals, at some draws."""
            densities = [
                math.log(size) + (prior if kind else self._density(drawn))
                for kind, size in sizes.items()
            ]
            return torch.stack(densities).logsumexp(0)

        self._propose()
        nothing = torch.full(own.shape, -torch.inf, dtype=torch.float64).to(own.device)
        sums, rests = {}, {}  # of the weights of all draws, and of all but the first
        for kind, size in sizes.items():
            sums[kind], rests[kind] = nothing, nothing
            for done, some in enumerate(_shares(size, max(1, self._pair.batch_size // len(own)))):
                values = {name: repeat(value, some) for name, value in self._kept.items()}
                values |= {} if kind else self._draw(some)
                joint, prior, drawn = self._weigh(values, some)
                weights = (joint - mean_density(drawn, prior)).reshape(some, len(own))
                sums[kind] = torch.logaddexp(sums[kind], weights.logsumexp(0))
                others = weights if done else weights[1:]
                if len(others):
                    rests[kind] = torch.logaddexp(rests[kind], others.logsumexp(0))
        lower = torch.stack([*sums.values()]).logsumexp(0)
        # The same with the data's own draws in the place of one other each.
        joint, prior, own_draw = self._weigh(code)
        self._propose()
        total = mean_density(own_draw, prior)
        share_of_prior = torch.zeros_like(total)
        if True in sizes:
            share_of_prior = (prior + math.log(sizes[True]) - total).exp()
        in_prior = torch.rand_like(share_of_prior) < share_of_prior
        parts = [joint - total]
        for kind in sizes:
            loses_one = in_prior if kind else ~in_prior
            parts.append(torch.where(loses_one, rests[kind], sums[kind]))
        return lower, torch.where(own, torch.stack(parts).logsumexp(0), lower)

    def _weigh(self, values: Values, count: int = 1) -> tuple[Tensor, Tensor, Values]:
        """Returns the joint log-density, the prior's share of it and the draws of the free sites.

        Sites without a value are drawn from the prior.
        """
        x = repeat(self._data.x, count)
        trace = conditioned_trace(self._pair.model, x, values)
        prior = log_density(trace, self.free, x)
        others = [name for name in self._pair.layout.latent if name not in self.free]
        others += [self._observed] if self._observed else []
        drawn = {name: trace.nodes[name]["value"] for name in self.free}
        return log_density(trace, others, x) + prior, prior, drawn

    def _propose(self) -> None:
        """Runs the guide once for all draws, if no free site depends on a drawn one."""
        if self._pair.layout.free.issuperset(self.free):
            nodes = conditioned_trace(self._pair.guide, self._data.x, self._kept).nodes
            self._fns = {name: nodes[name]["fn"] for name in self.free}

    def _draw(self, count: int) -> Values:
        """Draws the free sites, ``(count * n, *event)`` each, the data running fastest."""
        if self._fns is not None:
            drawn = {name: fn(torch.Size((count,))) for name, fn in self._fns.items()}
            return {name: value.flatten(0, 1) for name, value in drawn.items()}
        trace = self._run(count, {})[0]
        return {name: trace.nodes[name]["value"] for name in self.free}

    def _density(self, values: Values) -> Tensor:
        """Scores values as `_draw` returns them, shape ``(count * n,)``."""
        n = len(self._data.x)
        count = len(values[self.free[0]]) // n
        if self._fns is None:
            trace, x = self._run(count, values)
            return log_density(trace, self.free, x)
        total: Any = 0.0
        for name, fn in self._fns.items():
            total = total + fn.log_prob(values[name].unflatten(0, (count, n))).double()
        return torch.as_tensor(total).flatten()

    def _run(self, count: int, values: Values) -> tuple[Any, Tensor]:
        kept = {name: repeat(value, count) for name, value in self._kept.items()}
        x = repeat(self._data.x, count)
        return conditioned_trace(self._pair.guide, x, {**kept, **values}), x


def same(values: Tensor, others: Tensor) -> Tensor:
    """Returns which values agree, shape ``(values, others)``."""
    equal = values[:, None] == others[None].to(values.dtype)
    return equal.flatten(2).all(-1) if equal.dim() > 2 else equal


def _log_weight(probed: ProbedPair, x: Tensor) -> Tensor:
    pair = TracePair.run(probed.model, probed.guide, (x,), {}, max_plate_nesting=None)
    total = sum(pair.log_likelihood(name).double() for name in pair.observed)
    for name in pair.latent:
        p = pair.model.nodes[name]
        total = total + p["fn"].log_prob(p["value"]).double() - pair.log_density(name).double()
    return torch.as_tensor(total).expand(len(x))


def _shares(total: int, at_most: int) -> Iterator[int]:
    while total > 0:
        yield min(total, at_most)
        total -= at_most
