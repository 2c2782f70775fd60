"""CatVAE and InfoCatVAE: categories with a Gaussian each, and the information they carry.

Pineau & Lelarge (2018), InfoCatVAE, https://arxiv.org/abs/1806.08240.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from pyro_mivae.arguments import (
    LARGEST_WEIGHT,
    checked,
    choice,
    number,
    number_or_schedule,
    size,
    whole,
)
from pyro_mivae.elbo import (
    MutualInformationELBO,
    RelaxedCategoricalELBO,
    SampledCategoricalELBO,
)
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import MixtureGuide
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.priors import MixturePrior
from pyro_mivae.schedules import Schedule, linear_warmup
from pyro_mivae.terms import InformationTerm, RegularizedInformation
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import require_sizes
from pyro_mivae.variants.warm_start import warm_start_categories

Categorical = Literal["enumerate", "sample", "soft", "gumbel"]


class CatVAE(Variant):
    r"""A category, and a Gaussian about its mean; the category is summed out.

    .. math::
        J = \sum_c q(c \mid x) \{E_{q(z \mid x,c)}[\log p(x \mid z)]
            - KL(q(z \mid x,c) \| p(z \mid c))\} - KL(q(c \mid x) \| p(c))

    A training whose number of steps is known (`fit`, or `objective` with ``num_steps``) begins
    away from J, lest all data fall into one category or into categories without meaning: the KL
    divergences warm up, and `RegularizedInformation` is added with a weight that falls to 0.

    Args:
        data_shape: Shape of one datum.
        num_categories: :math:`K`; a prior that is given has its own.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted, or the
            prior's.
        radius: Distance of every category's mean from the origin.
        categorical: ``"enumerate"``: exact, the decoder sees every category. ``"sample"``: the
            decoder sees a few, and the gradient stays unbiased, see `SampledCategoricalELBO`.
            ``"soft"``: one decode of the probabilities, as the original code. ``"gumbel"``: one
            decode of a Gumbel-softmax sample. The last two train on what is not a bound.
        decodes: How many categories of each datum ``"sample"`` decodes, the most probable one
            among them; 2 if omitted.
        temperature: Of the Gumbel-softmax, 0.5 if omitted.
        warm_start: Steps of `warm_start_categories` before training (by `fit`, or by
            ``vae.initialize(x)``), or 0 for a random start.
        start_weight: Weight with which the start's `RegularizedInformation` goes on beside the
            ELBO, falling to 0 over the first 80 % of the training; see `objective`.
        warmup: Share of the training during which the weights of the KL divergences, and of an
            information term, rise from 0; see `objective`.
        likelihood: A likelihood or its name.
        prior: Takes the place of the mixture.
        guide: Takes the place of the mixture's guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If ``num_categories`` does not divide ``latent_dim``, ``categorical`` is
            none of these, ``decodes`` is not from 2 to ``num_categories`` or given to another
            than ``"sample"``, or a temperature is given to another than ``"gumbel"``.
        SiteError: If a prior that is given has no category, or other sites than the guide.
    """

    name = "cat"

    @checked(
        num_categories=size(),
        latent_dim=size(),
        radius=number(least=0),
        categorical=choice(*get_args(Categorical)),
        decodes=size(least=2),
        temperature=number_or_schedule(above=0),
        warm_start=whole(least=0),
        start_weight=number(least=0, most=LARGEST_WEIGHT),
        warmup=number(least=0, most=1),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
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
        for option, given, owner in (
            ("temperature", temperature, "gumbel"),
            ("decodes", decodes, "sample"),
        ):
            if given is not None and categorical != owner:
                raise OptionError(
                    f"{option}={given} is given beside categorical={categorical!r}; only "
                    f"{owner!r} has use for it"
                )

        def build_guide(sites: Mapping[str, int], encoder: nn.Module) -> nn.Module:
            if set(sites) != {"c", "z"}:
                raise SiteError(
                    f"the prior samples {list(sites)}, the default guide ['c', 'z']; name the "
                    "prior's sites like that, or give a guide that samples them"
                )
            return MixtureGuide(data_shape, sites["c"], sites["z"], encoder)

        super().__init__(
            data_shape,
            prior=MixturePrior(num_categories, latent_dim, radius) if prior is None else prior,
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
        require_sizes(self, num_categories=num_categories, latent_dim=latent_dim)
        most = self.sites[self.category]
        if decodes is not None and decodes > most:
            raise OptionError(
                f"decodes={decodes}: allowed are whole numbers from 2 (the most probable "
                f"category, and a draw of the others) to {most}, all there are"
            )
        self.start_weight = start_weight
        self.warm_start = warm_start
        self.warmup = warmup
        self.categorical = categorical
        self.decodes = 2 if decodes is None else decodes
        self.temperature = 0.5 if temperature is None else temperature

    def initialize(self, x: Tensor) -> None:
        """Gives the categories an unsupervised start, see `warm_start_categories`.

        Args:
            x: Training data, shape ``(n, *data_shape)``.
        """
        x = self.check_data(x)
        if self.warm_start:
            warm_start_categories(self.guide, x, self.category or "c", steps=self.warm_start)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        rising = self._rising(1.0, num_steps)
        kl_weights = dict.fromkeys(self.sites, rising)
        if self.categorical == "enumerate":
            return MutualInformationELBO(self._terms(num_steps), kl_weights)
        if self.categorical == "sample":
            terms = self._terms(num_steps)
            return SampledCategoricalELBO(terms, kl_weights, draws=self.decodes - 1)
        return RelaxedCategoricalELBO(
            self._terms(num_steps),
            kl_weights,
            relaxation=self.categorical,
            temperature=self.temperature,
        )

    def _terms(self, num_steps: int | None) -> tuple[InformationTerm, ...]:
        steps = round(0.8 * (num_steps or 0))
        if not (steps and self.start_weight and self.warm_start):
            return ()
        falling = linear_warmup(steps, start=self.start_weight, end=0.0)
        return (RegularizedInformation(self.category or "c", weight=falling),)

    def _rising(self, weight: float | Schedule, num_steps: int | None) -> float | Schedule:
        """Lets a constant weight rise from 0 during the warm-up."""
        steps = round(self.warmup * (num_steps or 0))
        if callable(weight) or not (weight and steps):
            return weight
        return linear_warmup(steps, end=weight)
