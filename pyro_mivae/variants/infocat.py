"""InfoCatVAE: CatVAE with the information that the categories carry into what they generate.

Pineau & Lelarge (2018), InfoCatVAE, https://arxiv.org/abs/1806.08240.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_mivae.arguments import checked, number_or_schedule
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms import BarberAgakov, InformationTerm
from pyro_mivae.variants.cat import Categorical, CatVAE


class InfoCatVAE(CatVAE):
    r"""Adds :math:`\lambda` times a lower bound on :math:`I(c; x')` to CatVAE's objective.

    .. math:: I(c; x') \ge E_{c,z \sim p}[\log q(c \mid x')] + H(c),\quad x' = E[x \mid z]

    Args:
        data_shape: Shape of one datum.
        mi_weight: :math:`\lambda`, per datum. The original code's 100 on a batch mean, beside a
            loss summed over 128 images, is 100/128.
        num_categories: :math:`K`; a prior that is given has its own.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted, or the
            prior's.
        radius: Distance of every category's mean from the origin.
        categorical: ``"enumerate"``, ``"sample"``, ``"soft"`` or ``"gumbel"``, see `CatVAE`.
        decodes: How many categories of each datum ``"sample"`` decodes, 2 if omitted.
        temperature: Of the Gumbel-softmax, 0.5 if omitted.
        warm_start: Steps of the categories' unsupervised start, see `CatVAE`.
        start_weight: Weight with which that start goes on, see `CatVAE`.
        warmup: Share of the training during which the weights rise from 0.
        likelihood: A likelihood or its name.
        prior: Takes the place of the mixture.
        guide: Takes the place of the mixture's guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.
    """

    name = "infocat"

    @checked(mi_weight=number_or_schedule(least=0))
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        mi_weight: float | Schedule = 5.0,
        num_categories: int = 10,
        latent_dim: int | None = None,
        radius: float = 3.0,
        categorical: Categorical = "enumerate",
        decodes: int | None = None,
        temperature: float | Schedule | None = None,
        warm_start: int = 900,
        start_weight: float = 20.0,
        warmup: float = 0.5,
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            data_shape,
            num_categories=num_categories,
            latent_dim=latent_dim,
            radius=radius,
            categorical=categorical,
            decodes=decodes,
            temperature=temperature,
            warm_start=warm_start,
            start_weight=start_weight,
            warmup=warmup,
            likelihood=likelihood,
            prior=prior,
            guide=guide,
            encoder=encoder,
            decoder=decoder,
        )
        self.mi_weight = mi_weight
        self.objective()

    def _terms(self, num_steps: int | None) -> tuple[InformationTerm, ...]:
        weight = self._rising(self.mi_weight, num_steps)
        return (BarberAgakov(self.category or "c", weight=weight), *super()._terms(num_steps))
