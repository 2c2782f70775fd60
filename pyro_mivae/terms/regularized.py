"""Regularised information maximisation: a category that changes smoothly with the data."""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pyro_mivae.arguments import checked, number
from pyro_mivae.ranks import joined, rows_before, summed, whole_size
from pyro_mivae.sites import weigh
from pyro_mivae.terms.base import TermOptions
from pyro_mivae.terms.categories import (
    CategoryTerm,
    category_site,
    log_probs,
    running_statistics_kept,
)
from pyro_mivae.traces import Program


class RegularizedInformation(CategoryTerm):
    r"""Separates data by a category that changes little in the neighbourhood of each datum.

    .. math::
        - \mu\, KL(E_x q(c \mid x) \| U) - E_x H(q(c \mid x))
        - \eta\, E_x KL(q(c \mid x) \| q(c \mid x + r))

    With :math:`\mu = 1` and :math:`\eta = 0` it is the plug-in estimate of :math:`I_q(c; x)` from
    the batch, less its largest value :math:`\log K`. A larger :math:`\mu` keeps all categories in
    use. :math:`r` is the direction in which :math:`q` changes most, so borders of categories move
    to where data are sparse. Its length is a share of the distance from the datum to its nearest
    neighbour in the batch.

    The term needs only the guide, no decoder and no labels. Running statistics of batch
    normalisation are those of the data, without the moved copies.

    Args:
        site: A category of the guide.
        marginal_weight: :math:`\mu`, of at least 0, as the next two.
        smoothness: :math:`\eta`.
        radius: Share of the distance to the nearest neighbour.
        **term: The weight, see `InformationTerm`.

    References:
        Krause, Perona & Gomes (2010), Discriminative Clustering by Regularized Information
        Maximization. Hu et al. (2017), Learning Discrete Representations via Information
        Maximizing Self-Augmented Training. https://arxiv.org/abs/1702.08720
        Miyato et al. (2018), Virtual Adversarial Training. https://arxiv.org/abs/1704.03976

    Example:
        >>> print(mi.explain(mi.MutualInformationELBO([RegularizedInformation("c", weight=2.0)])))
        J =  E_q[log p(x|code)]
           - 1 * KL of every site
           + 2 * -(4 KL(E q(c|x) || U) + E H(q(c|x)) + 10 KL(q(c|x) || q(c|x+r)))
        maximised; nats per datum
    """

    @checked(marginal_weight=number(least=0), smoothness=number(least=0), radius=number(least=0))
    def __init__(
        self,
        site: str = "c",
        *,
        marginal_weight: float = 4.0,
        smoothness: float = 10.0,
        radius: float = 0.16,
        **term: Unpack[TermOptions],
    ) -> None:
        super().__init__(site, **term)
        self.marginal_weight = marginal_weight
        self.smoothness = smoothness
        self.radius = radius
        self.name = f"rim_{site}"
        self.formula = (
            f"-({marginal_weight:g} KL(E q({site}|x) || U) + E H(q({site}|x)) "
            f"+ {smoothness:.3g} KL(q({site}|x) || q({site}|x+r)))"
        )

    def _estimate(self, guide: Program, x: Tensor, log_q: Tensor) -> Tensor:
        marginal = summed(log_q.exp().sum(0)) / whole_size(len(x))
        tiny = torch.finfo(log_q.dtype).tiny
        imbalance = weigh(marginal, marginal.clamp(min=tiny).log()).sum() + math.log(len(marginal))
        entropy = -weigh(log_q.exp(), log_q).sum(-1).mean()
        fixed = log_q.detach()
        with running_statistics_kept():
            direction = self._steepest(guide, x, fixed)
            length = self.radius * _nearest(x)
            moved = log_probs(category_site(self, guide, x + length * direction))
        change = weigh(fixed.exp(), fixed - moved).sum(-1).mean()
        return -self.marginal_weight * imbalance - entropy - self.smoothness * change

    @torch.enable_grad()
    def _steepest(self, guide: Program, x: Tensor, log_q: Tensor) -> Tensor:
        """Unit vectors along which q changes most, by one power iteration from random ones."""
        probe = _unit(torch.randn_like(x)).requires_grad_()
        moved = log_probs(category_site(self, guide, x + _spread(x) * probe))
        (gradient,) = torch.autograd.grad(-weigh(log_q.exp(), moved).sum(), probe)
        return _unit(gradient)


@torch.no_grad()
def _nearest(x: Tensor) -> Tensor:
    """Distance of each datum to its nearest neighbour, ``(batch, 1, ...)``; 0 for one datum."""
    if whole_size(len(x)) == 1:
        return torch.zeros_like(x)
    flat, everyone = x.flatten(1), joined(x.flatten(1))
    own = torch.arange(len(x), device=x.device) + rows_before()
    itself = own[:, None] == torch.arange(len(everyone), device=x.device)
    nearest = torch.cdist(flat, everyone).masked_fill(itself, math.inf).amin(1)
    return nearest.reshape(-1, *[1] * (x.dim() - 1))


def _spread(x: Tensor) -> Tensor:
    """Root mean square distance between two data of the batch."""
    return (2 * joined(x).var(0, correction=0).sum()).sqrt()


def _unit(directions: Tensor) -> Tensor:
    return normalize(directions.flatten(1)).view_as(directions)
