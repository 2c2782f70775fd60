"""Invariant information: a category that a transformation of the data does not change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor

from pyro_mivae.arguments import checked, function
from pyro_mivae.errors import ShapeError
from pyro_mivae.ranks import summed, whole_size
from pyro_mivae.sites import weigh
from pyro_mivae.terms.base import TermOptions
from pyro_mivae.terms.categories import (
    CategoryTerm,
    category_site,
    log_probs,
    running_statistics_kept,
)
from pyro_mivae.traces import Program


class InvariantInformation(CategoryTerm):
    r"""Information between the categories of a datum and of a transformed copy of it.

    .. math::
        I(c; c') = \sum_{c, c'} P(c, c') \log \frac{P(c, c')}{P(c)\, P(c')}, \qquad
        P = \tfrac12 (A + A^\top), \quad A = E_x[q(c \mid x)\, q(c' \mid t(x))^\top]

    The expectation is over the data of the batch. The plug-in estimate is at most :math:`\log K`,
    and too high by about :math:`(K - 1)^2 / 2n` for n data. It is large if the transformation
    keeps the category, all categories are in use, and each datum has one. The term needs only the
    guide, no decoder and no labels. The transformation states what does not matter in the data, so
    report results with it separately.

    Args:
        site: A category of the guide.
        transform: From data ``(batch, *data_shape)`` to altered copies of the same shape, such as
            `RandomAffine`; called in every step.
        **term: The weight, of at least 0, see `InformationTerm`.

    References:
        Ji, Henriques & Vedaldi (2019), Invariant Information Clustering, eqs. 2 and 3.
        https://arxiv.org/abs/1807.06653

    Example:
        >>> term = InvariantInformation("c", transform=lambda x: x.flip(-1))
        >>> vae = mi.CatVAE((1, 8, 8), num_categories=3)
        >>> information = term.per_datum(vae.guide, torch.rand(16, 1, 8, 8))
        >>> bool(0 <= information <= torch.tensor(3.0).log())
        True
    """

    least_weight = 0

    @checked(transform=function("transform(x)"))
    def __init__(
        self,
        site: str = "c",
        *,
        transform: Callable[[Tensor], Tensor],
        **term: Unpack[TermOptions],
    ) -> None:
        super().__init__(site, **term)
        self.transform = transform
        self.name = f"iic_{site}"
        self.formula = f"I({site}; {site}'),  {site}' ~ q({site}|t(x))"

    def _estimate(self, guide: Program, x: Tensor, log_q: Tensor) -> Tensor:
        moved = self.transform(x)
        if moved.shape != x.shape:
            raise ShapeError(
                f"the transform returns shape {tuple(moved.shape)} for data of shape "
                f"{tuple(x.shape)}; let it return altered copies of the same shape"
            )
        with running_statistics_kept():
            log_r = log_probs(category_site(self, guide, moved))
        joint = summed(log_q.exp().T @ log_r.exp()) / whole_size(len(x))
        joint = (joint + joint.T) / 2
        marginal, tiny = joint.sum(0), torch.finfo(joint.dtype).tiny
        logs = joint.clamp(min=tiny).log(), marginal.clamp(min=tiny).log()
        return weigh(joint, logs[0] - logs[1] - logs[1].unsqueeze(-1)).sum()
