"""Categories of a guide, as terms read them: from data of their own choice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.nn.modules.module import register_module_forward_pre_hook

from pyro_mivae.compat import BatchNorm
from pyro_mivae.errors import SiteError
from pyro_mivae.sites import Site
from pyro_mivae.terms.base import InformationTerm, Particle
from pyro_mivae.traces import Program, bind, trace_program

CATEGORIES = (
    torch.distributions.Categorical,
    torch.distributions.OneHotCategorical,
    torch.distributions.RelaxedOneHotCategorical,
)


class CategoryTerm(InformationTerm):
    """A term about a category, read from the guide alone."""

    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the term."""
        x, *others = particle.args
        guide = bind(particle.guide, others, particle.kwargs)
        site = category_site(self, guide, x)
        return site["scale"] * len(x) * self._estimate(guide, x, log_probs(site))

    def per_datum(self, guide: Program, x: Tensor) -> Tensor:
        """Estimates the term per datum, in nats, from a guide and a batch of data.

        Raises:
            ShapeError: If a transformation returns data of another shape.
            SiteError: If the site is not a category of the guide, one per datum.
        """
        return self._estimate(guide, x, log_probs(category_site(self, guide, x)))

    @abstractmethod
    def _estimate(self, guide: Program, x: Tensor, log_q: Tensor) -> Tensor:
        """Estimates the term per datum; the category's log-probabilities are known."""


def category_site(term: InformationTerm, guide: Program, x: Tensor) -> Site:
    """Runs a guide, and returns the site of a term's category, of which each datum has one."""
    nodes, kind = trace_program(guide, (x,), {}).nodes, type(term).__name__
    sites = {name: node for name, node in nodes.items() if node["type"] == "sample"}
    (name,) = term.sites
    if name not in sites or not isinstance(sites[name]["fn"], CATEGORIES):
        raise SiteError(
            f"{kind} needs a category {name!r} in the guide; its sites are {list(sites)}"
        )
    site: Site = sites[name]
    if site["fn"].batch_shape != x.shape[:1]:
        raise SiteError(
            f"{kind} needs one category of {name!r} for each of {len(x)} data; their shape is "
            f"{tuple(site['fn'].batch_shape)}: give the guide the mini-batch itself where its "
            "plate sub-samples the data"
        )
    return site


def log_probs(site: Site) -> Tensor:
    """Returns the log-probabilities of a category, shape ``(batch, K)``."""
    return log_softmax(site["fn"].logits, -1)


@contextmanager
def running_statistics_kept() -> Iterator[None]:
    """Keeps batch normalisation's running statistics as they are; it normalises by the batch."""
    held = []

    def hold(module: nn.Module, args: object) -> None:
        if isinstance(module, BatchNorm) and module.training and module.track_running_stats:
            held.append(module)
            module.track_running_stats = False

    try:
        with register_module_forward_pre_hook(hold):
            yield
    finally:
        for module in held:
            module.track_running_stats = True
