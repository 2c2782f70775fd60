"""VAE of Kingma & Welling (2014), arXiv:1312.6114, and beta-VAE of Higgins et al. (2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.priors import StandardNormalPrior
from pyro_mivae.variants import options
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import check_sizes


class VAE(Variant):
    r"""Variational autoencoder: :math:`J = E_q[\log p(x \mid z)] - KL(q(z \mid x) \| p(z))`.

    A given prior determines the sizes of its sites.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z``.
        likelihood: A likelihood or its name, ``"bernoulli"`` if omitted.
        prior: Takes the place of :math:`N(0, I)`.
        guide: A guide in place of the mean-field guide, or the name of its family: one of
            `FAMILIES`, see `AmortizedGuide`.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Example:
        >>> vae = VAE((1, 8, 8), latent_dim=4)
        >>> vae.sample(3).shape, vae.encode(torch.rand(5, 1, 8, 8))["z"].shape
        (torch.Size([3, 1, 8, 8]), torch.Size([5, 4]))
    """

    name = "vae"

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: options.LatentDim = 20,
        **parts: Unpack[options.Parts],
    ) -> None:
        super().__init__(data_shape, lambda: StandardNormalPrior(latent_dim), **parts)
        check_sizes(self, latent_dim=latent_dim)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        return MutualInformationELBO()


class BetaVAE(VAE):
    r"""Weighs the KL divergence: :math:`J = E_q[\log p(x \mid z)] - \beta\,KL`.

    The other arguments are those of `VAE`.

    Args:
        beta: :math:`\beta`, a number of at least 0 or a schedule of the training step.

    Example:
        >>> BetaVAE((1, 8, 8), beta=4.0).objective().kl_weights["z"]()
        4.0
    """

    name = "beta"

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        beta: options.Beta = 4.0,
        **parts: Unpack[options.SizedParts],
    ) -> None:
        super().__init__(data_shape, **parts)
        self.beta = beta

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        return MutualInformationELBO(kl_weights=dict.fromkeys(self.sites, self.beta))
