"""InfoCatVAE of Pineau & Lelarge (2018), https://arxiv.org/abs/1806.08240."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pyro_mivae.terms import BarberAgakov, InformationTerm
from pyro_mivae.variants import options
from pyro_mivae.variants.cat import CatVAE


class InfoCatVAE(CatVAE):
    r"""Adds :math:`\lambda` times a lower bound on :math:`I(c; x')` to CatVAE's objective.

    .. math:: I(c; x') \ge E_{c,z \sim p}[\log q(c \mid x')] + H(c),\quad x' = E[x \mid z]

    The other arguments are those of `CatVAE`.

    Args:
        mi_weight: :math:`\lambda`, per datum. The original code has 100 on a batch mean and a loss
            summed over 128 images, which is 100/128 here.

    Example:
        >>> print(mi.explain(InfoCatVAE((1, 8, 8)).objective()))
        J =  E_q[log p(x|code)]
           - 1 * KL(q(c|x) || p(c))
           - 1 * KL(q(z|x) || p(z))
           + 5 * (E_p[log q(c|x')] + H(c)),  x' = mean of p(x|code)
        maximised; nats per datum
    """

    name = "infocat"

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        mi_weight: options.MIWeight = 5.0,
        **parts: Unpack[options.CategoryParts],
    ) -> None:
        super().__init__(data_shape, **parts)
        self.mi_weight = mi_weight

    def _terms(self, num_steps: int | None) -> tuple[InformationTerm, ...]:
        weight = self.start.rising(self.mi_weight, num_steps)
        return (BarberAgakov(*self.categories, weight=weight), *super()._terms(num_steps))
