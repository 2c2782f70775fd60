"""Traces of a guide and its model, with enumerated sites and the cost of each site in nats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.distributions.util import broadcast_shape, scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.util import prune_subsample_sites, site_is_factor
from pyro.util import check_model_guide_match
from torch import Tensor
from torch.distributions import OneHotCategorical

from pyro_mivae.errors import SiteError
from pyro_mivae.sites import (
    Site,
    base_of,
    batches,
    check_shapes,
    data_sites,
    divergence,
    fixed_mean,
    fixed_variance,
    is_auxiliary,
    is_note,
    log_density_of_draw,
    log_prob,
    negative_entropy,
    same_masks,
    same_weight,
    sum_of,
    support_log_prob,
    weigh,
)

Program = Callable[..., Any]


def is_enumerated(site: Site) -> bool:
    """True if the site's whole support is laid out along a dimension of its own."""
    return "_enumerate_dim" in site["infer"]


def is_deterministic(site: Site) -> bool:
    """True if the site is a point mass, for which no KL divergence is defined."""
    return isinstance(base_of(site["fn"]), Delta)


def bind(program: Program, others: Sequence[Any], kwargs: Mapping[str, Any]) -> Program:
    """Returns a program of the data alone, with its other arguments fixed."""
    return lambda x: program(x, *others, **kwargs)


def trace_program(program: Program, args: Iterable[Any], kwargs: Mapping[str, Any]) -> Any:
    """Runs a program and returns its trace, without sub-sampling sites."""
    return prune_subsample_sites(poutine.trace(program).get_trace(*args, **kwargs))


def replay_model(
    model: Program,
    guide_trace: Any,
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    max_plate_nesting: int | None,
) -> Any:
    """Runs a model with a guide's values at its latent sites."""
    if max_plate_nesting is not None:
        model = EnumMessenger()(model)
    return poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)


def run_programs(
    model: Program,
    guide: Program,
    args: Iterable[Any],
    kwargs: Mapping[str, Any],
    max_plate_nesting: int | None,
) -> tuple[Any, Any]:
    """Runs a guide, and the model against it; returns the guide's trace and the model's."""
    # Pyro's get_importance_trace does the same, but also computes every density.
    unwrapped = poutine.unwrap(guide)
    if isinstance(unwrapped, GuideMessenger):
        guide(*args, **kwargs)
        model_trace, guide_trace = unwrapped.get_traces()
    else:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = replay_model(model, guide_trace, args, kwargs, max_plate_nesting)
    return guide_trace, model_trace


class TracePair:
    """The traces of one run of a guide, and of the model replayed against it.

    Sites that the guide annotates with ``infer={"enumerate": "parallel"}`` are laid out along
    dimensions left of the plates, and `expectation` sums them out exactly.
    """

    def __init__(self, guide: Any, model: Any) -> None:
        self.batches = batches(model)  # the sub-sampling sites, which the traces go without
        self.guide: Any = prune_subsample_sites(guide)
        self.model: Any = prune_subsample_sites(model)
        self.program: Program | None = None  # runs the guide again
        self.observed = [n for n, s in _samples(self.model) if s["is_observed"] and not is_note(s)]
        self.data = data_sites(self.model)  # the observed sites without factors
        sites = [(n, s) for n, s in _samples(self.guide) if not is_note(s)]
        # A site that the guide observes, or a factor, counts as in Pyro's Trace_ELBO.
        self.auxiliary = [n for n, s in sites if s["is_observed"] or is_auxiliary(s)]
        self.noted = [n for n, s in sites if s["is_observed"] and not site_is_factor(s)]
        self.latent = [n for n, _ in sites if n not in self.auxiliary]
        self.enumerated = [n for n in self.latent if is_enumerated(self.guide.nodes[n])]
        self._check_sites([n for n, s in _samples(self.model) if not s["is_observed"]])
        self._check_enumeration()
        self._is_laid_out = False  # True once enumerated sites hold their whole support in order
        self._log_weights: dict[str, Tensor] = {}  # in place of the density of drawn sites
        # Each density is computed once: a second one would double the work of its gradient.
        self._densities: dict[tuple[str, bool], Tensor] = {}
        self._weights: dict[tuple[str, ...], Tensor] = {}

    @classmethod
    def run(
        cls,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        max_plate_nesting: int | None,
    ) -> TracePair:
        """Runs the guide and replays the model against it, on the same mini-batches."""
        if max_plate_nesting is not None:
            guide = EnumMessenger(first_available_dim=-1 - max_plate_nesting)(guide)
        guide_trace, model_trace = run_programs(model, guide, args, kwargs, max_plate_nesting)
        pair = cls(guide_trace, model_trace)
        pair._is_laid_out = True
        unwrapped = poutine.unwrap(guide)
        if isinstance(unwrapped, GuideMessenger):
            pair.batches = batches(unwrapped.trace)
        pair.program = partial(guide, *args, **kwargs)
        if max_plate_nesting is not None and is_validation_enabled():
            check_model_guide_match(model_trace, guide_trace, max_plate_nesting)
            check_shapes(pair.guide, max_plate_nesting)
            check_shapes(pair.model, max_plate_nesting)
        return pair

    def on_same_batches(self, program: Program) -> Program:
        """Makes another run of a program use the mini-batches of these traces."""
        return poutine.replay(program, trace=self.batches) if self.batches.nodes else program

    def log_likelihood(self, name: str) -> Tensor:
        r"""Returns :math:`\log p(x \mid code)` of an observed site, unscaled, by batch element."""
        return log_prob(self.model.nodes[name])

    def rate(self, name: str) -> Tensor:
        r"""Returns a guide site's part of the KL divergence, summed over the data."""
        return sum_of(self.expectations(self.rate_costs(name)))

    def rate_costs(self, name: str) -> list[tuple[Tensor, Site]]:
        """Returns costs with their sites; their expectations sum to the `rate`."""
        q = self.guide.nodes[name]
        if name in self.auxiliary:
            return [(self.log_density(name), q)]
        p = self.model.nodes[name]
        alike = same_weight(q, p)
        closed = self.divergence(name)
        if closed is not None and alike:
            return [(closed, q)]
        own = None if closed is None else negative_entropy(q)
        if closed is not None and own is not None:  # E_q[log q], the weights' difference times
            return [(closed, p), (own, q), (-own, p)]
        log_q, log_p = self.log_density(name), self._density(name, of_guide=False)
        if not is_enumerated(q):
            log_q = log_density_of_draw(q, log_q)
        if alike and log_q.shape == log_p.shape:
            return [(log_q - log_p, q)]
        return [(log_q, q), (-log_p, p)]

    def log_density(self, name: str) -> Tensor:
        r"""Returns :math:`\log q` of a site of the guide at its value, over its batch shape."""
        return self._density(name, of_guide=True)

    def expectation(self, cost: Tensor, site: Site) -> Tensor:
        r"""Sums a site's cost over its plates, and over enumerated sites under the guide."""
        return self.expectations([(cost, site)])[0]

    def expectations(self, costs: Sequence[tuple[Tensor, Site]]) -> list[Tensor]:
        """Returns the `expectation` of each cost; costs of the same shape are weighted at once."""
        weighed = [scale_and_mask(c, scale=s["scale"], mask=s["mask"]) for c, s in costs]
        groups: dict[Any, list[int]] = {}
        for index, (cost, (_, site)) in enumerate(zip(weighed, costs, strict=True)):
            key = self._parents(cost, site), cost.shape, cost.dtype
            groups.setdefault(key, []).append(index)
        totals: dict[int, Tensor] = {}
        for (names, *_), members in groups.items():
            if not names:
                totals |= {index: weighed[index].sum() for index in members}
            elif len(members) == 1:
                totals[members[0]] = weigh(self._weight(names), weighed[members[0]]).sum()
            else:
                stacked = weigh(self._weight(names), torch.stack([weighed[i] for i in members]))
                totals |= zip(members, stacked.flatten(1).sum(1).unbind(), strict=True)
        return [totals[index] for index in range(len(costs))]

    def marginal_mean(self, name: str) -> Tensor:
        r"""Returns the mean of a latent site given the data, enumerated sites summed out."""
        site = self.guide.nodes[name]
        return self._sum_out(
            name, site["fn"].probs if is_enumerated(site) else fixed_mean(site["fn"])
        )

    def marginal_variance(self, name: str, mean: Tensor) -> Tensor:
        """Returns the variance of a latent site about its `marginal_mean`, given the data."""
        site = self.guide.nodes[name]
        if is_enumerated(site):
            return mean * (1 - mean)  # of each coordinate of a one-hot vector
        squares = (fixed_mean(site["fn"]) - mean).square()
        return self._sum_out(name, fixed_variance(site["fn"]) + squares)

    def _sum_out(self, name: str, mean: Tensor) -> Tensor:
        """Averages values that depend on enumerated sites, with the event shape of a site last."""
        site = self.guide.nodes[name]
        event_dim = mean.dim() - len(site["fn"].batch_shape)
        names = self._parents(mean[(...,) + (0,) * event_dim], site)
        if names:
            mean = self._weight(names)[(...,) + (None,) * event_dim] * mean
        dims = [self.guide.nodes[n]["infer"]["_enumerate_dim"] for n in self.enumerated]
        for dim in (d - event_dim for d in dims):
            if mean.dim() >= -dim:
                mean = mean.sum(dim, keepdim=True)
        while dims and mean.dim() - event_dim >= -max(dims):
            mean = mean.squeeze(0)
        return mean

    def gradient_faults(self) -> Iterator[tuple[str, SiteError]]:
        """Yields the sites of the guide that are neither reparametrised nor enumerated.

        Without any, the gradient of an expectation is the mean of the sample gradients.
        """
        for name in self.latent + self.auxiliary:
            site = self.guide.nodes[name]
            fn = site["fn"]
            if is_enumerated(site) or fn.has_rsample or is_deterministic(site):
                continue
            if site_is_factor(site):
                remedy = "give pyro.factor has_rsample=True if it is a density of such sites"
            elif site["is_observed"]:
                continue
            elif fn.has_enumerate_support:
                remedy = 'annotate it with infer={"enumerate": "parallel"}'
            else:
                remedy = "use a distribution with rsample, or pyro's TraceGraph_ELBO"
            yield (
                name,
                SiteError(
                    f"site {name!r} ({type(base_of(fn)).__name__}) of the guide is neither "
                    f"reparametrised nor enumerated; {remedy}"
                ),
            )

    def _density(self, name: str, *, of_guide: bool) -> Tensor:
        key = name, of_guide
        if key not in self._densities:
            q = self.guide.nodes[name]
            site = q if of_guide else self.model.nodes[name]
            if self._is_laid_out and name in self.enumerated and site["value"] is q["value"]:
                density = support_log_prob(site, q["infer"]["_enumerate_dim"])
                self._densities[key] = density.contiguous() if of_guide else density
            else:
                self._densities[key] = log_prob(site)
        return self._densities[key]

    def _log_weight(self, name: str) -> Tensor:
        known = self._log_weights.get(name)
        return self.log_density(name) if known is None else known

    def _weight(self, names: tuple[str, ...]) -> Tensor:
        """The joint probability of the enumerated values of some sites."""
        if names not in self._weights:
            self._weights[names] = sum_of(map(self._log_weight, names)).exp()
        return self._weights[names]

    def _parents(self, cost: Tensor, site: Site) -> tuple[str, ...]:
        names: tuple[str, ...] = ()
        shape = cost.shape
        for name in reversed(self.enumerated):  # a site's parents come before it
            node = self.guide.nodes[name]
            dim = -node["infer"]["_enumerate_dim"]
            if len(shape) < dim or shape[-dim] == 1:
                continue
            if not _plates(node) <= _plates(site):
                raise SiteError(
                    f"site {site['name']!r} depends on the enumerated site {name!r} but is "
                    f"outside its plates {sorted(_plates(node) - _plates(site))}; move both into "
                    "one plate, or draw the site instead of enumerating it"
                )
            shape = broadcast_shape(shape, self._log_weight(name).shape)
            names += (name,)
        return names

    def divergence(self, name: str) -> Tensor | None:
        r"""Returns the closed-form :math:`KL(q \| p)` of a latent site, where it is valid."""
        q, p = self.guide.nodes[name], self.model.nodes[name]
        if is_enumerated(q) or is_deterministic(q) or not self._parents_precede(name):
            return None
        if q["fn"].event_shape != p["fn"].event_shape or not same_masks(q["fn"], p["fn"]):
            return None
        if isinstance(q["fn"], OneHotCategorical) and isinstance(p["fn"], OneHotCategorical):
            log_q, log_p = q["fn"].logits, p["fn"].logits
            return weigh(log_q.exp(), log_q - log_p).sum(-1)  # right where a probability is 0
        try:
            closed = divergence(q["fn"], p["fn"])
        except NotImplementedError:
            return None
        if isinstance(closed, Tensor):
            return closed
        return q["value"].new_full(q["fn"].batch_shape, closed)  # 0.0, of masked distributions

    def _parents_precede(self, name: str) -> bool:
        # A closed form given a parent that the guide draws later has another expectation.
        in_model = [n for n in self.model.nodes if n in self.latent]
        parents = in_model[: in_model.index(name)]
        return set(parents) <= set(self.latent[: self.latent.index(name)])

    def _check_sites(self, model_latent: list[str]) -> None:
        missing = set(model_latent) ^ set(self.latent)
        if missing:
            raise SiteError(
                f"the model samples {model_latent} and the guide samples {self.latent}: sites "
                f"{sorted(missing)} are not in both; sample the same sites in each, and mark "
                'those that only the guide needs with infer={"is_auxiliary": True}'
            )

    def _check_enumeration(self) -> None:
        dims: dict[int, str] = {}
        for name in self.enumerated:
            infer = self.guide.nodes[name]["infer"]
            if infer.get("num_samples") is not None:
                raise SiteError(
                    f"site {name!r} of the guide asks for num_samples={infer['num_samples']} in "
                    "place of its whole support, whose weights are others; drop num_samples"
                )
            other = dims.setdefault(infer["_enumerate_dim"], name)
            if other != name:
                raise SiteError(
                    f"sites {other!r} and {name!r} of the guide are enumerated along the same "
                    "dimension; leave pyro.markov out of the guide, or use pyro's TraceEnum_ELBO"
                )


def _samples(trace: Any) -> list[tuple[str, Site]]:
    return [(name, node) for name, node in trace.nodes.items() if node["type"] == "sample"]


def _plates(site: Site) -> set[str]:
    return {frame.name for frame in site["cond_indep_stack"]}
