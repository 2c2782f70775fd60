"""CatVAE: categories with a Gaussian each.

Pineau & Lelarge (2018), InfoCatVAE, https://arxiv.org/abs/1806.08240.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any, Self, Unpack

from torch import Tensor, nn

from pyro_mivae.elbo import MutualInformationELBO, RelaxedCategoricalELBO, SampledCategoricalELBO
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import MixtureGuide
from pyro_mivae.priors import MixturePrior
from pyro_mivae.terms import InformationTerm
from pyro_mivae.variants import options
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.warm_start import CategoryStart, warm_start_categories


class CatVAE(Variant):
    r"""A category, and a Gaussian about its mean; the category is summed out.

    .. math::
        J = \sum_c q(c \mid x) \{E_{q(z \mid x,c)}[\log p(x \mid z)]
            - KL(q(z \mid x,c) \| p(z \mid c))\} - KL(q(c \mid x) \| p(c))

    A training whose number of steps is known (`fit`, or `objective` with ``num_steps``) begins
    away from J: otherwise all data may fall into one category or into categories without
    meaning. The KL divergences warm up, and `RegularizedInformation` is added with a weight that
    falls to 0.

    Args:
        data_shape: Shape of one datum.
        num_categories: :math:`K`; a prior that is given has its own.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted, or the
            prior's.
        radius: Distance of every category's mean from the origin.
        categorical: ``"enumerate"``: exact, the decoder sees every category. ``"sample"``: the
            decoder sees a few, and the gradient stays unbiased, see `SampledCategoricalELBO`.
            ``"soft"``: one decode of the probabilities, as the original code. ``"gumbel"``: one
            decode of a Gumbel-softmax sample. The last two train on a value that is no bound.
        num_decodes: Categories of each datum that ``"sample"`` decodes, the most probable one
            among them; 2 if omitted.
        temperature: options.Temperature of the Gumbel-softmax, 0.5 if omitted.
        warm_start: Steps of `warm_start_categories` before training (by `fit`, or by
            ``vae.initialize(x)``), or a `CategoryStart`, which also has the warm-ups.
        **parts: Parts, as `VAE` takes them.

    Raises:
        OptionError: If ``num_categories`` does not divide ``latent_dim``, ``categorical`` is
            none of these, ``num_decodes`` is not from 2 to ``num_categories`` or given to another
            than ``"sample"``, or a temperature is given to another than ``"gumbel"``.
        SiteError: If a prior that is given has no category, or other sites than the guide.
    """

    name = "cat"

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        num_categories: options.NumCategories = 10,
        latent_dim: options.LatentDim | None = None,
        radius: options.Radius = 3.0,
        categorical: options.CategoricalName = "enumerate",
        num_decodes: options.NumDecodes | None = None,
        temperature: options.Temperature | None = None,
        warm_start: options.WarmStart = CategoryStart.warm_start,
        **parts: Unpack[options.Parts],
    ) -> None:
        for option, given, owner in (
            ("temperature", temperature, "gumbel"),
            ("num_decodes", num_decodes, "sample"),
        ):
            if given is not None and categorical != owner:
                raise OptionError(
                    f"{option}={given} is given beside categorical={categorical!r}; only "
                    f"{owner!r} has use for it"
                )
        make_prior = partial(MixturePrior, num_categories, latent_dim, radius)
        super().__init__(data_shape, make_prior, self._mixture, **parts)
        if self.category is None:
            raise SiteError(
                f"the prior samples {list(self.sites)}, none of them a category; "
                f"{type(self).__name__} needs one"
            )
        self._require(num_categories=num_categories, latent_dim=latent_dim)
        most = self.sites[self.category]
        if num_decodes is not None and num_decodes > most:
            raise OptionError(
                f"num_decodes={num_decodes}: allowed are whole numbers from 2 (the most probable "
                f"category, and a draw of the others) to {most}, all there are"
            )
        start = CategoryStart(warm_start) if isinstance(warm_start, int) else warm_start
        self.given |= asdict(start)
        self.start = start
        self.categorical = categorical
        self.num_decodes = 2 if num_decodes is None else num_decodes
        self.temperature = 0.5 if temperature is None else temperature

    @classmethod
    def _own_options(cls) -> list[dict[str, Any]]:
        """Adds the options of the start."""
        start = {f.name: (f.type, options.copied(f)) for f in fields(CategoryStart)}
        return [*super()._own_options(), start]

    @classmethod
    def build(cls, data_shape: Sequence[int], **given: Any) -> Self:
        """Builds the variant from plain values for `options`, and parts."""
        start = {f.name: given.pop(f.name) for f in fields(CategoryStart) if f.name in given}
        return cls(data_shape, warm_start=CategoryStart(**start), **given)

    def initialize(self, x: Tensor) -> None:
        """Gives the categories an unsupervised start, see `warm_start_categories`.

        Args:
            x: Training data, shape ``(n, *data_shape)``.
        """
        x = self.check_data(x)
        if self.start.warm_start:
            warm_start_categories(self.guide, x, str(self.category), steps=self.start.warm_start)

    def _mixture(self, distributions: Mapping[str, Any], encoder: nn.Module) -> nn.Module:
        """Builds the default guide."""
        if set(distributions) != {"c", "z"}:
            raise SiteError(
                f"the prior samples {list(distributions)}, the default guide ['c', 'z']; name the "
                "prior's sites like that, or give a guide that samples them"
            )
        return MixtureGuide(self.data_shape, self.sites["c"], self.sites["z"], encoder)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        terms = self._terms(num_steps)
        kl_weights = dict.fromkeys(self.sites, self.start.rising(1.0, num_steps))
        if self.categorical == "enumerate":
            return MutualInformationELBO(terms, kl_weights)
        if self.categorical == "sample":
            return SampledCategoricalELBO(terms, kl_weights, draws=self.num_decodes - 1)
        return RelaxedCategoricalELBO(
            terms, kl_weights, relaxation=self.categorical, temperature=self.temperature
        )

    def _terms(self, num_steps: int | None) -> tuple[InformationTerm, ...]:
        return self.start.term(str(self.category), num_steps)
