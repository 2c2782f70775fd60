"""CatVAE and InfoCatVAE: categories with a Gaussian each, and the information they carry.

Pineau & Lelarge (2018), InfoCatVAE, https://arxiv.org/abs/1806.08240.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from pyro_mivae.elbo import MutualInformationELBO, RelaxedCategoricalELBO
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import MixtureGuide
from pyro_mivae.information.terms import InformationTerm
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.priors import MixturePrior
from pyro_mivae.schedules import Schedule
from pyro_mivae.variants.base import Variant

Categorical = Literal["enumerate", "soft", "gumbel"]


class CatVAE(Variant):
    r"""A category, and a Gaussian about its mean; the category is summed out.

    .. math::
        J = \sum_c q(c \mid x) \{E_{q(z \mid x,c)}[\log p(x \mid z)]
            - KL(q(z \mid x,c) \| p(z \mid c))\} - KL(q(c \mid x) \| p(c))

    Args:
        data_shape: Shape of one datum.
        num_categories: :math:`K`.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted.
        radius: Distance of every category's mean from the origin.
        categorical: ``"enumerate"``: exact, the decoder sees every category. ``"soft"``: one
            decode of the probabilities, as the original code. ``"gumbel"``: one decode of a
            Gumbel-softmax sample. The last two train on what is not a bound.
        temperature: Of the Gumbel-softmax.
        likelihood: A likelihood or its name.
        prior: Takes the place of the mixture.
        guide: Takes the place of the mixture's guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If ``num_categories`` does not divide ``latent_dim``, or ``categorical`` is
            none of these.
        SiteError: If a prior that is given has no category.
    """

    name = "cat"

    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        num_categories: int = 10,
        latent_dim: int | None = None,
        radius: float = 3.0,
        categorical: Categorical = "enumerate",
        temperature: float | Schedule = 0.5,
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        if categorical not in get_args(Categorical):
            raise OptionError(
                f"categorical={categorical!r}: allowed are {', '.join(get_args(Categorical))}"
            )

        def build_guide(sites: Mapping[str, int], encoder: nn.Module) -> nn.Module:
            return MixtureGuide(data_shape, sites["c"], sites["z"], encoder)

        super().__init__(
            data_shape,
            prior=prior or MixturePrior(num_categories, latent_dim, radius),
            guide=guide,
            likelihood=likelihood,
            encoder=encoder,
            decoder=decoder,
            build_guide=build_guide,
        )
        if self.category is None:
            raise SiteError(
                f"the prior samples {list(self.sites)}, none of them a category; "
                f"{type(self).__name__} needs one"
            )
        self.categorical = categorical
        self.temperature = temperature

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        if self.categorical == "enumerate":
            return MutualInformationELBO(self._terms())
        return RelaxedCategoricalELBO(
            self._terms(), relaxation=self.categorical, temperature=self.temperature
        )

    def _terms(self) -> tuple[InformationTerm, ...]:
        return ()
