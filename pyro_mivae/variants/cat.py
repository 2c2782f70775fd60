"""CatVAE of Pineau & Lelarge (2018), InfoCatVAE, https://arxiv.org/abs/1806.08240."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

from torch import Tensor

from pyro_mivae.elbo import MutualInformationELBO, RelaxedCategoricalELBO, SampledCategoricalELBO
from pyro_mivae.priors import MixturePrior
from pyro_mivae.terms import InformationTerm
from pyro_mivae.variants import options
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import check_sizes, check_treatment, given_labels, need
from pyro_mivae.variants.warm_start import CategoryStart

CHEAP = 2_000  # values per datum that may be decoded where fewer would do


class CatVAE(Variant):
    r"""A category, and a Gaussian around its mean; the category is summed out.

    .. math::
        J = \sum_c q(c \mid x) \{E_{q(z \mid x,c)}[\log p(x \mid z)]
            - KL(q(z \mid x,c) \| p(z \mid c))\} - KL(q(c \mid x) \| p(c))

    Args:
        data_shape: Shape of one datum.
        num_categories: :math:`K`.
        latent_dim: Size of ``z``, a multiple of ``num_categories``; twice it if omitted.
        radius: Distance of every category's mean from the origin.
        categorical: ``"enumerate"``: exact, the decoder sees every category. ``"sample"``: the
            decoder sees a few, and the gradient stays unbiased, see `SampledCategoricalELBO`.
            ``"auto"``: the first if all categories together decode at most 2,000 values per datum,
            else the second. ``"score-function"``: one draw, unbiased. ``"soft"``, ``"gumbel"``,
            ``"straight-through"``: one decode, see `RelaxedCategoricalELBO`.
        num_decodes: Number that ``"sample"`` decodes, the most probable and draws; 2 if omitted.
        temperature: Temperature of ``"gumbel"`` and ``"straight-through"``, 0.5 if omitted.
        warm_start: Steps of each unsupervised start of training, or a whole `CategoryStart`.
        **parts: Parts, as `VAE` takes them. A prior must have a category. With several, the sum is
            over their configurations, and every term is about all of them.

    Example:
        >>> CatVAE((1, 8, 8), num_categories=3).sample(5, category=2).shape
        torch.Size([5, 1, 8, 8])
    """

    name = "cat"
    groups = {"warm_start": CategoryStart}

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        num_categories: options.NumCategories = 10,
        latent_dim: options.LatentDim | None = None,
        radius: options.Radius = 6.0,
        categorical: options.CategoricalName = "auto",
        num_decodes: options.NumDecodes | None = None,
        temperature: options.Temperature | None = None,
        warm_start: options.WarmStart | None = None,
        **parts: Unpack[options.Parts],
    ) -> None:
        make_prior = partial(MixturePrior, num_categories, latent_dim, radius)
        super().__init__(data_shape, make_prior, **parts)
        need(self, self.category, "a category")
        check_sizes(self, num_categories=num_categories, latent_dim=latent_dim, radius=radius)
        configurations = math.prod(self.categories.values())
        check_treatment(categorical, num_decodes, temperature, configurations)
        chosen = "enumerate" if configurations * math.prod(data_shape) <= CHEAP else "sample"
        self.categorical = chosen if categorical == "auto" else categorical
        self.start = CategoryStart.of(warm_start)
        self.num_decodes = num_decodes or 2
        self.temperature = 0.5 if temperature is None else temperature

    def initialize(self, x: Tensor, labels: Tensor | None = None, given: Any = None) -> None:
        """Runs the start of the categories, see `Variant.initialize`."""
        args = self.arguments(x, given)
        super().initialize(x := args[0], labels)
        passed = any(self.given.get(part) is not None for part in ("guide", "encoder"))
        known = given_labels(self, labels, x)
        self.start.run(self.guide, args, self.categories, labels=known, keep_weights=passed)

    def _terms(self, num_steps: int | None) -> tuple[InformationTerm, ...]:
        return tuple(self.start.fading_terms(self.categories, num_steps))

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        terms = self._terms(num_steps)
        kl_weights = dict.fromkeys(self.sites, self.start.rising(1.0, num_steps))
        if self.categorical == "enumerate":
            return MutualInformationELBO(terms, kl_weights)
        if self.categorical in ("sample", "score-function"):
            few = {"exact": int(self.categorical == "sample"), "draws": self.num_decodes - 1}
            return SampledCategoricalELBO(terms, kl_weights, **few)
        relaxed: Any = {"relaxation": self.categorical, "temperature": self.temperature}
        return RelaxedCategoricalELBO(terms, kl_weights, **relaxed)
